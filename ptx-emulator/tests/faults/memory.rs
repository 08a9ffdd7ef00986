//! Accesses that are out of bounds, misaligned, to freed or to constant memory.

use std::sync::Arc;

use ptx_emulator::{Checks, Config, Emulator, FaultKind, LaunchError, Module, Space};

use super::harness::{HEADER, line};
use super::{fault, kernel, marked_line, outcome, silent};

#[test]
fn out_of_bounds() {
    // The buffer has 256 words.
    let found = fault("/*!*/ ld.global.u32 %r6, [%rd3+1020];", 32);
    assert_eq!(found.kind, FaultKind::OutOfBounds { size: 4 });
    assert_eq!((found.block, found.thread), ([0, 0, 0], [1, 0, 0]));
    assert_eq!(found.space, Some(Space::Global));
    let nearest = found.nearest.clone().unwrap();
    assert_eq!((nearest.len, nearest.offset), (1024, 1024));
    assert_eq!(found.address, Some(nearest.base + 1024));
    assert!(
        found
            .to_string()
            .contains("0 bytes past the end of allocation of 1024 bytes"),
        "{found}"
    );

    let before = fault("/*!*/ st.global.u32 [%rd3+-8], %r1;", 1);
    assert!(
        before.to_string().contains("8 bytes before allocation"),
        "{before}"
    );
    // Half of a vector is inside.
    let half = fault("/*!*/ ld.global.v2.u64 {%rd4, %rd5}, [%rd1+1008+16];", 1);
    assert_eq!(half.kind, FaultKind::OutOfBounds { size: 16 });
    // Null, and far away.
    fault("mov.u64 %rd4, 0; /*!*/ ld.global.u32 %r6, [%rd4];", 1);
    fault("mov.u64 %rd4, -4; /*!*/ ld.global.u32 %r6, [%rd4];", 1);
    fault("mov.u64 %rd4, -4; /*!*/ ld.u32 %r6, [%rd4];", 1);
    silent("ld.global.u32 %r6, [%rd3+992];", 8);
}

/// An overrun does not land in the next allocation.
#[test]
fn allocations_do_not_touch() {
    let ptx = kernel("/*!*/ ld.global.u32 %r6, [%rd3+1024];");
    let device = Emulator::new(Config::default());
    let loaded = device
        .load(&Arc::new(Module::parse(&ptx).unwrap()))
        .unwrap();
    let buffers = [1024, 1024].map(|bytes| device.alloc(bytes).unwrap());
    for buffer in buffers {
        device.fill(buffer, 0, 1024).unwrap();
    }
    let error = device
        .launch(&loaded, "k", &line(1), &[&buffers[0].to_le_bytes()])
        .unwrap_err();
    assert!(matches!(error, LaunchError::Fault(_)), "{error}");
}

#[test]
fn out_of_bounds_elsewhere() {
    let shared = fault("/*!*/ st.shared.u32 [%r5+1020], %r1;", 2);
    assert_eq!(shared.space, Some(Space::Shared));
    assert_eq!(shared.address, Some(1024));
    assert_eq!(shared.thread, [1, 0, 0]);
    let local = fault(
        ".local .align 4 .b8 depot[16];
        mov.u64 %rd4, depot;
        /*!*/ st.local.u32 [%rd4+16], %r1;",
        1,
    );
    assert_eq!(local.space, Some(Space::Local));
    let param = fault(
        "mov.u64 %rd4, buffer;
        /*!*/ ld.param.u64 %rd5, [%rd4+8];",
        1,
    );
    assert_eq!(param.space, Some(Space::Param));
}

#[test]
fn misaligned() {
    let found = fault("/*!*/ ld.global.u32 %r6, [%rd3+2];", 1);
    assert_eq!(found.kind, FaultKind::Misaligned { required: 4 });
    // A vector must be aligned to its whole size.
    let vector = fault("/*!*/ st.global.v4.u32 [%rd3+8], {%r1, %r1, %r1, %r1};", 1);
    assert_eq!(vector.kind, FaultKind::Misaligned { required: 16 });
    let shared = fault("/*!*/ st.shared.u16 [%r5+1], %r1;", 1);
    assert_eq!(shared.space, Some(Space::Shared));
    // As nvcc writes a packed structure that a function returns.
    let parameter = fault(
        ".param .align 1 .b8 packed[8];\n/*!*/ st.param.b32 [packed+3], %r1;",
        1,
    );
    assert_eq!(
        (parameter.kind, parameter.space, parameter.address),
        (
            FaultKind::Misaligned { required: 4 },
            Some(Space::Param),
            Some(3)
        )
    );
    // Only a lane that takes part counts.
    silent(
        "add.s64 %rd4, %rd3, 2; setp.ne.u32 %p1, %r1, %r1; @%p1 ld.global.u32 %r6, [%rd4];",
        4,
    );
}

#[test]
fn use_after_free() {
    let ptx = kernel("/*!*/ ld.global.u32 %r6, [%rd3];");
    let device = Emulator::new(Config::default());
    let loaded = device
        .load(&Arc::new(Module::parse(&ptx).unwrap()))
        .unwrap();
    let keep = device.alloc(64).unwrap();
    let freed = device.alloc(64).unwrap();
    device.free(freed).unwrap();
    let later = device.alloc(64).unwrap();
    assert!(later != freed, "addresses are not used again");
    let error = device
        .launch(&loaded, "k", &line(1), &[&freed.to_le_bytes()])
        .unwrap_err();
    let LaunchError::Fault(found) = error else {
        panic!("{error}");
    };
    assert_eq!(found.kind, FaultKind::UseAfterFree { size: 4 });
    assert_eq!(found.ptx_line, marked_line(&ptx));
    assert!(found.nearest.unwrap().freed);
    device.fill(keep, 0, 64).unwrap();
    device
        .launch(&loaded, "k", &line(1), &[&keep.to_le_bytes()])
        .unwrap();
}

#[test]
fn stores_to_constants() {
    let ptx = format!(
        "{HEADER}
.const .align 4 .u32 fixed = 5;
.visible .entry k(.param .u64 buffer)
{{
.reg .b32 %r<4>;
.reg .b64 %rd<4>;
mov.u64 %rd1, fixed;
cvta.const.u64 %rd2, %rd1;
ld.u32 %r1, [%rd2];
/*!*/ st.u32 [%rd2], %r1;
ret;
}}"
    );
    let Err(LaunchError::Fault(found)) = outcome(&ptx, line(1), Config::default()) else {
        panic!("a store to constant memory");
    };
    assert_eq!(found.kind, FaultKind::ReadOnly);
    assert_eq!(found.ptx_line, marked_line(&ptx));
}

/// `ld.const` reads constants, by name or by an address that was converted, and nothing else.
#[test]
fn loads_of_constants() {
    let ptx = |load: &str| {
        format!(
            "{HEADER}
.const .align 4 .u32 fixed = 5;
.visible .entry k(.param .u64 buffer)
{{
.reg .b32 %r<4>;
.reg .b64 %rd<8>;
ld.param.u64 %rd1, [buffer];
mov.u64 %rd2, fixed;
cvta.const.u64 %rd3, %rd2;
cvta.to.const.u64 %rd4, %rd3;
cvta.to.const.u64 %rd5, %rd1;
{load}
st.global.u32 [%rd1], %r1;
ret;
}}"
        )
    };
    let run = |address: &str, config: Config| {
        let ptx = ptx(&format!("/*!*/ ld.const.u32 %r1, [{address}];"));
        outcome(&ptx, line(1), config).map(|words| words[0])
    };
    for address in ["fixed", "%rd2", "%rd4"] {
        assert_eq!(run(address, Config::default()), Ok(5));
    }
    let Err(LaunchError::Fault(found)) = run("%rd5", Config::default()) else {
        panic!("`ld.const` of global memory");
    };
    assert_eq!(found.kind, FaultKind::OutOfBounds { size: 4 });
    assert_eq!(found.space, Some(Space::Const));
    // With the check off, it loads zero.
    let config = Config {
        checks: Checks {
            memory: false,
            ..Checks::ALL
        },
        ..Config::default()
    };
    assert_eq!(run("fixed", config.clone()), Ok(5));
    assert_eq!(run("%rd5", config), Ok(0));
}
