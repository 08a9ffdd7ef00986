//! Reads of what was never written.

use std::sync::Arc;

use ptx_emulator::{Config, Emulator, FaultKind, LaunchError, Module, Space};

use super::harness::{HEADER, line};
use super::{fault, kernel, marked_line, outcome, silent};

/// The condition code has a value from `add.cc` and its like to the next call.
#[test]
fn condition_code() {
    let missing = FaultKind::UninitializedRegister {
        register: "CC.CF".to_owned(),
    };
    let found = fault("/*!*/ addc.u32 %r6, %r1, 1;", 32);
    assert_eq!(found.kind, missing);
    // Lanes 0 to 7 have it.
    let some = fault(
        "setp.lt.u32 %p1, %r1, 8;
        @%p1 add.cc.u32 %r6, %r1, 1;
        /*!*/ addc.u32 %r7, %r1, 0;",
        32,
    );
    assert_eq!((some.kind, some.thread), (missing.clone(), [8, 0, 0]));
    let ptx = |first: &str, last: &str| {
        kernel(&format!("{first}\n/*!*/ {last} addc.u32 %r7, %r1, 0;")).replace(
            ".visible .entry",
            ".func nothing() { ret; }\n.visible .entry",
        )
    };
    let run = |first, last| outcome(&ptx(first, last), line(32), Config::default());
    assert!(run("call nothing;", "add.cc.u32 %r6, %r1, 1;").is_ok());
    match run("add.cc.u32 %r6, %r1, 1; call nothing;", "") {
        Err(LaunchError::Fault(found)) => assert_eq!(found.kind, missing),
        other => panic!("{other:?}"),
    }
}

#[test]
fn uninitialized_memory() {
    let ptx = kernel("/*!*/ ld.global.u32 %r6, [%rd3];");
    let device = Emulator::new(Config::default());
    let loaded = device
        .load(&Arc::new(Module::parse(&ptx).unwrap()))
        .unwrap();
    let buffer = device.alloc(64).unwrap();
    // Three of the four bytes of the second word.
    device.write(buffer, &[0; 7]).unwrap();
    let error = device
        .launch(&loaded, "k", &line(16), &[&buffer.to_le_bytes()])
        .unwrap_err();
    let LaunchError::Fault(found) = error else {
        panic!("{error}");
    };
    assert_eq!(found.kind, FaultKind::UninitializedMemory { size: 4 });
    assert_eq!(
        (found.ptx_line, found.thread),
        (marked_line(&ptx), [1, 0, 0])
    );

    let shared = fault(
        "st.shared.u32 [%r5], %r1; /*!*/\nld.shared.u32 %r6, [%r5+4];"
            .replace(" /*!*/\n", "\n/*!*/ ")
            .as_str(),
        1,
    );
    assert_eq!(shared.space, Some(Space::Shared));
}

/// Compilers say which bytes of a load matter: those between the members of a structure do not.
#[test]
fn bytes_that_are_not_used() {
    // What faults where the first or the second load gets bytes that were not written: the load, or what uses its registers.
    let loads = ["ld.shared.v2.u32", "ld.shared.u32"];
    let uses = ["add.u32", "st.global.u32"];
    for (space, address, declare, faulty) in [
        (".shared", "%r5", "", loads),
        (
            ".local",
            "%rd4",
            ".local .align 8 .b8 depot[16]; mov.u64 %rd4, depot;",
            uses,
        ),
        (
            ".param",
            "there",
            ".param .align 8 .b8 there[16]; call (there), fill, ();",
            uses,
        ),
    ] {
        let found = |mask: &str, pad: bool| {
            let pad = if pad {
                format!("st{space}.b8 [{address}+8], 5; st{space}.b16 [{address}+10], 6;")
            } else {
                String::new()
            };
            let stores = format!(
                "st{space}.b8 [{address}], 1; st{space}.b16 [{address}+2], 2;
st{space}.b32 [{address}+4], 3; st{space}.b8 [{address}+9], 4; {pad}"
            );
            // A parameter that the caller reads is written by the function that it calls.
            let (of_function, of_kernel) = match space {
                ".param" => (stores.as_str(), ""),
                _ => ("", stores.as_str()),
            };
            let body = format!(
                "{{ {declare}
{of_kernel}
{mask}
ld{space}.v2.u32 {{%r6, %r7}}, [{address}];
add.u32 %r6, %r6, %r7;
ld{space}.u32 %r7, [{address}+8];
st.global.u32 [%rd3], %r7; }}"
            );
            let entry = ".visible .entry";
            let function = format!(
                ".func (.param .align 8 .b8 there[16]) fill() {{ {of_function} ret; }}\n{entry}"
            );
            let ptx = kernel(&body).replacen(entry, &function, 1);
            match outcome(&ptx, line(1), Config::default()) {
                Ok(_) => None,
                Err(LaunchError::Fault(found)) => Some(found.instruction),
                Err(error) => panic!("{error}"),
            }
        };
        let is = |found: Option<String>, name: &str| {
            assert!(
                found.as_ref().is_some_and(|found| found.starts_with(name)),
                "{space}: {found:?}, not {name}"
            );
        };
        for all in [
            "",
            ".pragma \"used_bytes_mask 0xff\";",
            ".pragma \"used_bytes_mask 2\";",
        ] {
            is(found(all, true), faulty[0]);
        }
        let mask = ".pragma \"used_bytes_mask 0xfd\";";
        assert_eq!(found(mask, true), None);
        // It is the next load's mask, not that of the one after it.
        is(found(mask, false), faulty[1]);
    }
    let ptx = |mask: &str| {
        kernel(&format!(
            ".pragma \"used_bytes_mask {mask}\";\nld.global.u32 %r6, [%rd3];"
        ))
    };
    let run = |mask: &str| {
        let device = Emulator::new(Config::default());
        let loaded = device
            .load(&Arc::new(Module::parse(&ptx(mask)).unwrap()))
            .unwrap();
        let buffer = device.alloc(64).unwrap();
        device.write(buffer, &[0; 7]).unwrap();
        device.launch(&loaded, "k", &line(2), &[&buffer.to_le_bytes()])
    };
    run("7").expect("three bytes");
    assert!(run("8").is_err());
    let error = Module::parse(&ptx("all")).unwrap_err();
    assert!(error.message.contains("`all` is not a mask"), "{error}");
}

/// An operand of `prmt` is used if the selector takes a byte of it: LLVM permutes one register beside one without a value.
#[test]
fn operands_of_a_permutation() {
    silent("prmt.b32 %r6, %r1, %r9, 0x0213; add.u32 %r6, %r6, 1;", 4);
    silent("prmt.b32 %r6, %r9, %r1, 0xc567; add.u32 %r6, %r6, 1;", 4);
    for permute in [
        "prmt.b32 %r6, %r1, %r9, 0x0243;",
        "prmt.b32 %r6, %r9, %r1, 0x5367;",
        "mov.u32 %r7, 0x0213;\n/*!*/ prmt.b32 %r6, %r1, %r9, %r7;",
        "prmt.b32.f4e %r6, %r1, %r9, 0;",
    ] {
        let mark = if permute.contains("/*!*/") {
            ""
        } else {
            "/*!*/ "
        };
        let register = "%r9".to_owned();
        assert_eq!(
            fault(&format!("{mark}{permute}"), 4).kind,
            FaultKind::UninitializedRegister { register }
        );
    }
}

/// nvcc and LLVM pack an element beside one without a value, and take it out again.
#[test]
fn elements_of_a_packed_register() {
    const HALVES: &str = ".reg .b16 %a; .reg .b16 %never; .reg .b16 %c; mov.u16 %a, 7;";
    for taken in [
        "mov.b32 %r6, {%a, %never}; cvt.u16.u32 %c, %r6;",
        "mov.b32 %r6, {%never, %a}; shr.u32 %r7, %r6, 16; cvt.u16.u32 %c, %r7;",
        "mov.b32 %r6, {%never, %a}; mov.b32 {%never, %c}, %r6;",
        "mov.b32 %r6, {%a, %never}; and.b32 %r6, %r6, 0xffff; cvt.u16.u32 %c, %r6;",
        "mov.b64 %rd4, {%r9, %r1}; and.b64 %rd4, %rd4, -4294967296; mov.u16 %c, 7;",
        "mov.b32 %r6, {%a, %a}; @!%p1 mov.b32 %r6, {%a, %never}; cvt.u16.u32 %c, %r6;",
        // Lanes that pack in different ways, or not at all, keep what they have.
        "mov.b32 %r6, {%a, %never}; @%p1 mov.b32 %r6, {%a, %a}; mov.b32 {%c, %never}, %r6;",
        "mov.b32 %r6, {%a, %never}; @%p1 mov.b32 %r6, %r8; @%p1 mov.b32 %r6, 7; cvt.u16.u32 %c, %r6;",
        "mov.b64 %rd4, {%a, %never, %a, %a}; @%p1 mov.b64 %rd4, {%r9, %r1};
        @!%p1 cvt.u16.u64 %c, %rd4; @%p1 shr.u64 %rd4, %rd4, 32; @%p1 cvt.u16.u64 %c, %rd4; @%p1 add.u16 %c, %c, 5;",
        // A copy is packed as the original is.
        "mov.b32 %r6, {%a, %never}; mov.b32 %r7, %r6; mov.b32 %r6, %r7; cvt.u16.u32 %c, %r6;",
        "mov.b32 %r6, {%a, %never}; mov.b32 %r6, %r6; mov.b32 {%c, %never}, %r6;",
        "mov.b32 %r6, {%a, %never}; mov.b32 %r7, {%never, %a}; selp.b32 %r8, %r7, %r6, %p1;
        @%p1 shr.u32 %r8, %r8, 16; cvt.u16.u32 %c, %r8;",
    ] {
        let body = format!(
            "{HALVES} setp.eq.u32 %p1, %r1, 2;\n{taken}\ncvt.u32.u16 %r8, %c; st.global.u32 [%rd3], %r8;"
        );
        let output = outcome(&kernel(&body), line(4), Config::default()).unwrap();
        assert_eq!(output[..4], [7; 4], "{taken}");
    }
    for taken in [
        "mov.b32 %r6, {%a, %never};\n/*!*/ cvt.u64.u32 %rd4, %r6;",
        "mov.b32 %r6, {%never, %a};\n/*!*/ cvt.u16.u32 %c, %r6;",
        "mov.b32 %r6, {%a, %never};\n/*!*/ and.b32 %r6, %r6, 0x10001;",
        "mov.b32 %r6, {%never, %a};\n/*!*/ shr.u32 %r7, %r6, 15;",
        "mov.b32 %r6, {%never, %a}; mov.b32 {%c, %a}, %r6;\n/*!*/ cvt.u32.u16 %r7, %c;",
        "mov.b32 %r6, {%a, %never}; mov.b32 %r6, %r9;\n/*!*/ cvt.u16.u32 %c, %r6;",
        "mov.b32 %r6, {%a, %never}; mov.b32 %r7, %r6; mov.b32 %r7, %r9;\n/*!*/ cvt.u16.u32 %c, %r7;",
        "mov.b32 %r6, {%a, %never}; mov.b32 %r7, %r6;\n/*!*/ shr.u32 %r7, %r7, 16;",
        "mov.b32 %r6, {%a, %never}; setp.eq.u32 %p1, %r1, 2; @%p1 mov.b32 %r6, %r9;\n/*!*/ cvt.u16.u32 %c, %r6;",
        "mov.b32 %r6, {%a, %never}; setp.eq.u32 %p1, %r1, 2; @%p1 mov.b32 %r7, %r6;\n/*!*/ cvt.u16.u32 %c, %r7;",
    ] {
        fault(&format!("{HALVES}\n{taken}"), 4);
    }
}

/// Local memory passes on that a value was never written, as registers do: debug builds keep their variables there.
#[test]
fn uninitialized_local_memory() {
    const DEPOT: &str = ".local .align 8 .b8 depot[16];
        mov.u64 %rd4, depot; cvta.local.u64 %rd5, %rd4;";
    // Half of the value was written.
    let found = fault(
        &format!(
            "{DEPOT} st.local.u32 [%rd4], %r1; ld.local.u64 %rd6, [%rd4];\n/*!*/ add.s64 %rd6, %rd6, 1;"
        ),
        1,
    );
    assert_eq!(
        found.kind,
        FaultKind::UninitializedRegister {
            register: "%rd6".into()
        }
    );
    // Each element and each lane for itself, by generic addresses too.
    let found = fault(
        &format!(
            "{DEPOT} setp.lt.u32 %p1, %r1, 3; @%p1 mov.u32 %r7, 5;
            st.v2.u32 [%rd5+8], {{%r1, %r7}};
            ld.v2.u32 {{%r8, %r9}}, [%rd5+8];
            add.u32 %r8, %r8, 1;
            /*!*/ add.u32 %r9, %r9, 1;"
        ),
        8,
    );
    assert_eq!(found.thread, [3, 0, 0]);
    // What was written once and is overwritten by what was not.
    fault(
        &format!(
            "{DEPOT} st.u32 [%rd5], 1; st.u32 [%rd5], %r7; ld.u32 %r8, [%rd5];\n/*!*/ st.global.u32 [%rd3], %r8;"
        ),
        1,
    );
    silent(
        &format!(
            "{DEPOT} st.local.u32 [%rd4], %r7; ld.u64 %rd6, [%rd5]; st.local.u64 [%rd4+8], %rd6; st.u32 [%rd5+12], 1; ld.local.u32 %r8, [%rd4+12]; add.u32 %r8, %r8, 1;"
        ),
        1,
    );
    // Elsewhere a store is a use.
    fault("/*!*/ st.u32 [%rd3], %r9;", 1);
    fault("cvta.shared.u64 %rd5, 0;\n/*!*/ st.u32 [%rd5], %r9;", 1);
}

#[test]
fn uninitialized_registers() {
    let found = fault("/*!*/ add.u32 %r6, %r1, %r7;", 1);
    assert_eq!(
        found.kind,
        FaultKind::UninitializedRegister {
            register: "%r7".into()
        }
    );
    // Written on one way only.
    let partly = fault(
        "setp.lt.u32 %p1, %r1, 5;
        @%p1 mov.u32 %r7, 3;
        /*!*/ add.u32 %r6, %r1, %r7;",
        32,
    );
    assert_eq!(partly.thread, [5, 0, 0]);
    let guard = fault("/*!*/ @%p3 mov.u32 %r6, 3;", 1);
    assert_eq!(
        guard.kind,
        FaultKind::UninitializedRegister {
            register: "%p3".into()
        }
    );
    fault("/*!*/ st.global.u32 [%rd3], %r9;", 1);
    fault("/*!*/ ld.global.u32 %r6, [%rd7];", 1);
    // A shuffle brings the property of the lane that is read.
    let shuffled = fault(
        "setp.lt.u32 %p1, %r1, 4;
        @%p1 mov.u32 %r7, 3;
        shfl.sync.down.b32 %r8, %r7, 2, 0x1f, -1;
        /*!*/ add.u32 %r8, %r8, 1;",
        32,
    );
    assert_eq!(shuffled.thread, [2, 0, 0]);
    // So does one between lanes that called its function one part after the other.
    let ptx = kernel(
        "setp.lt.u32 %p1, %r1, 16;
        @%p1 bra meet;
        mov.u32 %r7, 3;
        setp.gt.u32 %p2, %r1, 1000;
        @%p2 bra past;
        meet:
        { .param .b32 a; .param .b32 r;
        st.param.b32 [a], %r7;
        call (r), exchange, (a);
        ld.param.b32 %r8, [r]; }
        past:
        @%p1 add.u32 %r6, %r8, 1;
        /*!*/ add.u32 %r6, %r8, 1;",
    )
    .replace(
        ".visible .entry",
        ".func (.param .b32 result) exchange(.param .b32 x) { .reg .b32 %r<3>; ld.param.b32 %r1, [x];
        shfl.sync.bfly.b32 %r2, %r1, 16, 0x1f, -1; st.param.b32 [result], %r2; ret; }
        .visible .entry",
    );
    let Err(LaunchError::Fault(exchanged)) = outcome(&ptx, line(32), Config::default()) else {
        panic!("values that were never written");
    };
    assert_eq!(
        (exchanged.ptx_line, exchanged.thread),
        (marked_line(&ptx), [16, 0, 0])
    );
    let ptx = format!(
        "{HEADER}
.func (.param .b32 result) same(.param .b32 x) {{ .reg .b32 %r<2>; ld.param.b32 %r1, [x]; st.param.b32 [result], %r1; ret; }}
.visible .entry k(.param .u64 buffer)
{{
.reg .b32 %r<5>;
.param .b32 a; .param .b32 r;
st.param.b32 [a], %r1;
call.uni (r), same, (a);
ld.param.b32 %r2, [r];
/*!*/ add.u32 %r3, %r2, 1;
ret;
}}"
    );
    let Err(LaunchError::Fault(passed)) = outcome(&ptx, line(1), Config::default()) else {
        panic!("an argument that was never written");
    };
    assert_eq!(passed.ptx_line, marked_line(&ptx), "{passed}");
    // Copies only pass the property on.
    fault(
        "mov.u32 %r6, %r7; mov.b64 %rd4, {%r1, %r6};\n/*!*/ add.s64 %rd4, %rd4, 1;",
        1,
    );
    silent(
        "mov.u32 %r6, %r7; mov.b64 %rd4, {%r1, %r6}; setp.eq.u32 %p1, %r1, %r1; selp.b32 %r8, %r1, %r6, %p1; add.u32 %r8, %r8, 1;",
        1,
    );
}
