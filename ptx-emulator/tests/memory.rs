//! Memory as kernels use it: variables, parameters and addresses; and the host's side.

mod harness;

use harness::{Arg, Bench, HEADER, line};
use ptx_emulator::{Config, Emulator, LaunchConfig, MemoryError, Module};

fn kernel(params: &str, body: &str) -> String {
    format!("{HEADER}\n.visible .entry k({params})\n{{\n{body}\nret;\n}}\n")
}

const IN_OUT: &str = ".param .u64 input, .param .u64 output";

/// Threads side by side copy elements side by side: whole warps and a part of one.
#[test]
fn contiguous_copies() {
    for (shape, registers, step) in [
        ("u8", "%h1", 1),
        ("s16", "%h1", 2),
        ("u32", "%r1", 4),
        ("s32", "%rd6", 4),
        ("f32", "%r1", 4),
        ("b64", "%rd6", 8),
        ("v4.u8", "{%h1, %h2, %h3, %h4}", 4),
        ("v4.b16", "{%h1, %h2, %h3, %h4}", 8),
        ("v2.u32", "{%r1, %r2}", 8),
        ("v2.s32", "{%rd6, %rd7}", 8),
        ("v4.f32", "{%r1, %r2, %r3, %r4}", 16),
        ("v2.b64", "{%rd6, %rd7}", 16),
    ] {
        let ptx = kernel(
            IN_OUT,
            &format!(
                ".reg .b16 %h<5>;
                .reg .b32 %r<6>;
                .reg .b64 %rd<8>;
                ld.param.u64 %rd1, [input];
                ld.param.u64 %rd2, [output];
                mov.u32 %r5, %tid.x;
                mul.wide.u32 %rd3, %r5, {step};
                add.s64 %rd4, %rd1, %rd3;
                add.s64 %rd5, %rd2, %rd3;
                ld.global.{shape} {registers}, [%rd4];
                st.global.{shape} [%rd5], {registers};"
            ),
        );
        let mut input: Vec<u8> = (0..72 * step).map(|i| (i * 7 + 3) as u8).collect();
        let mut output = vec![0; input.len()];
        Bench::new(&ptx)
            .run(
                "k",
                line(72),
                &mut [Arg::Bytes(&mut input), Arg::Bytes(&mut output)],
            )
            .unwrap();
        assert_eq!(input, output, "{shape}");
    }
}

/// A value through shared memory, addressed by name, by register and by generic address; static and dynamic.
#[test]
fn shared_memory() {
    let ptx = format!(
        "{HEADER}
.extern .shared .align 16 .b8 dynamic[];
.shared .align 8 .b8 fixed[256];
.visible .entry k(.param .u64 output)
{{
.reg .b32 %r<12>;
.reg .b64 %rd<9>;
.shared .align 4 .b32 own[32];
ld.param.u64 %rd1, [output];
mov.u32 %r1, %tid.x;
shl.b32 %r2, %r1, 2;
mov.u32 %r3, fixed;
add.s32 %r4, %r3, %r2;
st.shared.u32 [%r4+128], %r1;
mov.u32 %r5, own;
add.s32 %r5, %r5, %r2;
ld.shared.u32 %r6, [%r4+128];
add.s32 %r6, %r6, 100;
st.shared.u32 [%r5], %r6;
mov.u64 %rd2, dynamic;
cvta.shared.u64 %rd3, %rd2;
cvt.u64.u32 %rd4, %r2;
add.s64 %rd5, %rd3, %rd4;
ld.shared.u32 %r7, [%r5];
st.u32 [%rd5], %r7;
cvta.to.shared.u64 %rd6, %rd5;
ld.shared.u32 %r8, [%rd6];
add.s32 %r9, %r7, %r8;
add.s64 %rd7, %rd1, %rd4;
st.global.u32 [%rd7], %r9;
ret;
}}
"
    );
    let bench = Bench::new(&ptx);
    let entry = bench.module.entry("k").unwrap();
    assert_eq!(entry.static_shared, 256 + 128);
    let mut output = vec![0; 32];
    let shape = LaunchConfig {
        dynamic_shared: 128,
        ..line(32)
    };
    bench
        .run("k", shape, &mut [Arg::Words(&mut output)])
        .unwrap();
    let want: Vec<u32> = (0..32).map(|thread| 2 * (thread + 100)).collect();
    assert_eq!(output, want);
}

/// A kernel has 48 KiB of static shared memory on any device, and a module 64 KiB of constants.
#[test]
fn most_that_is_declared() {
    let store = |name: &str| format!("st.shared.u32 [{name}], 1;\n");
    let two = ".shared .b8 a[30000];\n.shared .align 4 .b8 b[19152];\n";
    let uses_b = ".func f()\n{\nst.shared.u32 [b], 1;\nret;\n}\n";
    let other = format!(".visible .entry other()\n{{\n{}ret;\n}}\n", store("b"));
    let big = two.replace("19152", "19153");
    let constants = ".const .b8 c[65529];\n.const .align 8 .b8 d[8];\n";
    // The declarations of the module, the kernel's body, and where the text is refused, with these words.
    let error = |line: usize, words: &'static str| Some((line, words));
    let cases = [
        (
            String::new(),
            format!(".shared .align 4 .b8 s[49152];\n{}", store("s")),
            None,
        ),
        (
            String::new(),
            format!(".shared .align 4 .b8 s[49153];\n{}", store("s")),
            error(
                5,
                "kernel `k` has 49153 bytes of static shared memory, and can have 49152: declare `.extern .shared`",
            ),
        ),
        (two.to_owned(), store("a") + &store("b"), None),
        (
            big.clone(),
            store("a") + &store("b"),
            error(7, "has 49153 bytes"),
        ),
        (
            format!("{big}{uses_b}"),
            store("a") + "call f;",
            error(12, "has 49153 bytes"),
        ),
        // Of each kernel for itself.
        (format!("{big}{other}"), store("a"), None),
        (
            ".const .align 4 .b8 c[65536];".to_owned(),
            String::new(),
            None,
        ),
        (
            ".const .align 4 .b8 c[65537];".to_owned(),
            String::new(),
            error(
                4,
                "`c`: the module's constants are 65537 bytes up to here, and can be 65536: put some in `.global`",
            ),
        ),
        (constants.replace("65529", "65528"), String::new(), None),
        (
            constants.to_owned(),
            String::new(),
            error(5, "`d`: the module's constants are 65544 bytes"),
        ),
    ];
    for (declared, body, refused) in cases {
        let ptx = kernel("", &body).replace(HEADER, &format!("{HEADER}{declared}"));
        let Some((line, words)) = refused else {
            harness::parse(&ptx);
            continue;
        };
        let error = Module::parse(&ptx).expect_err(&ptx);
        assert!(error.message.contains(words), "{error}\n{ptx}");
        assert_eq!(error.line, line, "{ptx}");
        if let Some(ptxas) = std::env::var_os("PTX_EMULATOR_PTXAS") {
            assert!(!harness::run_ptxas(&ptxas, &ptx).status.success(), "{ptx}");
        }
    }
}

/// An initialiser has addresses of variables in global and constant memory only.
#[test]
fn addresses_that_are_not_known() {
    let declared = ".extern .global .align 8 .u64 ext;
.extern .shared .align 8 .b8 dynamic[];
.shared .align 8 .u64 sh;
.const .align 8 .u64 fixed = 5;
.global .align 8 .u64 other = 6;
.global .align 8 .u64 good[2] = {fixed, generic(other)};
";
    let refused = "`a`: the initialiser has the address of";
    let cases = [
        (
            "a = ext",
            "`ext`, which the module declares but does not define",
        ),
        ("a = generic(ext)", "`ext`, which"),
        ("a[2] = {0, ext+8}", "`ext`, which"),
        ("a = sh", "`sh`, which is in shared memory"),
        ("a = generic(sh)", "`sh`, which is in shared memory"),
        ("a = dynamic", "`dynamic`, which is in shared memory"),
    ];
    harness::parse(&kernel("", "").replace(HEADER, &format!("{HEADER}{declared}")));
    for (variable, words) in cases {
        let variable = format!(".global .align 8 .u64 {variable};\n");
        let words = format!("{refused} {words}");
        // In the module, and in the kernel.
        for (declared, body, line) in [
            (format!("{declared}{variable}"), String::new(), 10),
            (declared.to_owned(), variable, 13),
        ] {
            let ptx = kernel("", &body).replace(HEADER, &format!("{HEADER}{declared}"));
            let error = Module::parse(&ptx).expect_err(&ptx);
            assert!(error.message.contains(&words), "{error}");
            assert_eq!(error.line, line, "{error}\n{ptx}");
        }
    }
}

/// Local memory is each thread's own, at the same addresses.
#[test]
fn local_memory() {
    let ptx = kernel(
        ".param .u64 output",
        ".local .align 16 .b8 depot[48];
        .reg .b32 %r<8>;
        .reg .b64 %rd<8>;
        ld.param.u64 %rd1, [output];
        mov.u32 %r1, %tid.x;
        mov.u64 %rd2, depot;
        cvta.local.u64 %rd3, %rd2;
        st.local.u32 [%rd2+16], %r1;
        mul.lo.s32 %r2, %r1, 3;
        st.u32 [%rd3+20], %r2;
        ld.local.v2.u32 {%r3, %r4}, [depot+16];
        add.s32 %r5, %r3, %r4;
        mul.wide.u32 %rd4, %r1, 4;
        add.s64 %rd5, %rd1, %rd4;
        st.global.u32 [%rd5], %r5;",
    );
    let mut output = vec![0; 50];
    Bench::new(&ptx)
        .run("k", line(50), &mut [Arg::Words(&mut output)])
        .unwrap();
    let want: Vec<u32> = (0..50).map(|thread| 4 * thread).collect();
    assert_eq!(output, want);
}

/// Initialised variables of the module, addresses among them.
#[test]
fn module_variables() {
    let ptx = format!(
        "{HEADER}
.const .align 4 .u32 table[4] = {{10, 20, 30}};
.global .align 8 .b8 text[6] = {{104, 105, 0x21, 0, 0xff}};
.global .align 4 .f32 number = 0f3FC00000;
.global .align 8 .u64 pointer[2] = {{generic(text)+2, table}};
.global .align 2 .u16 grid[2][3] = {{{{1, 2, 3}}, {{4, 5, 6}}}};
.global .align 4 .u32 counter;
.visible .entry k(.param .u64 output)
{{
.reg .b16 %h<4>;
.reg .b32 %r<12>;
.reg .b64 %rd<9>;
ld.param.u64 %rd1, [output];
ld.const.u32 %r1, [table+4];
st.global.u32 [%rd1], %r1;
ld.const.u32 %r2, [table+12];
st.global.u32 [%rd1+4], %r2;
ld.global.u64 %rd2, [pointer];
ld.u8 %r3, [%rd2];
st.global.u32 [%rd1+8], %r3;
ld.global.u32 %r4, [number];
st.global.u32 [%rd1+12], %r4;
ld.global.u16 %h1, [grid+8];
cvt.u32.u16 %r5, %h1;
st.global.u32 [%rd1+16], %r5;
ld.global.u32 %r6, [counter];
add.u32 %r6, %r6, 1;
st.global.u32 [counter], %r6;
st.global.u32 [%rd1+20], %r6;
mov.u64 %rd3, text;
ld.global.u8 %r7, [%rd3+4];
st.global.u32 [%rd1+24], %r7;
ret;
}}
"
    );
    let mut output = vec![0; 7];
    Bench::new(&ptx)
        .run("k", line(1), &mut [Arg::Words(&mut output)])
        .unwrap();
    assert_eq!(output, [20, 0, 0x21, 0x3fc0_0000, 5, 1, 255]);
}

/// Parameters of every size, by name, by offset and through their address.
#[test]
fn parameters() {
    let ptx = format!(
        "{HEADER}
.visible .entry k(.param .u64 output, .param .u8 small, .param .align 8 .b8 block[24], .param .f32 real)
{{
.reg .b32 %r<8>;
.reg .b64 %rd<8>;
ld.param.u64 %rd1, [output];
ld.param.u8 %r1, [small];
ld.param.v2.u32 {{%r2, %r3}}, [block+8];
ld.param.b32 %r4, [real];
mov.b64 %rd2, block;
cvta.param.u64 %rd3, %rd2;
ld.u32 %r5, [%rd3+20];
ld.param.u32 %r6, [%rd2+16];
st.global.v4.u32 [%rd1], {{%r1, %r2, %r3, %r4}};
st.global.v2.u32 [%rd1+16], {{%r5, %r6}};
ret;
}}
"
    );
    let bench = Bench::new(&ptx);
    let sizes: Vec<_> = bench
        .module
        .entry("k")
        .unwrap()
        .params
        .iter()
        .map(|param| (param.name.as_str(), param.size, param.align))
        .collect();
    assert_eq!(
        sizes,
        [
            ("output", 8, 8),
            ("small", 1, 1),
            ("block", 24, 8),
            ("real", 4, 4)
        ]
    );
    let output = bench.device.alloc(24).unwrap();
    let loaded = bench.device.load(&bench.module).unwrap();
    let block: Vec<u8> = (1..7u32).flat_map(u32::to_le_bytes).collect();
    bench
        .device
        .launch(
            &loaded,
            "k",
            &line(1),
            &[&output.to_le_bytes(), &[200], &block, &1.5f32.to_le_bytes()],
        )
        .unwrap();
    let mut bytes = [0; 24];
    bench.device.read(output, &mut bytes).unwrap();
    let words: Vec<u32> = bytes
        .chunks_exact(4)
        .map(|chunk| u32::from_le_bytes(chunk.try_into().unwrap()))
        .collect();
    assert_eq!(words, [200, 3, 4, 1.5f32.to_bits(), 6, 5]);
}

#[test]
fn host_operations() {
    let device = Emulator::new(Config {
        memory_limit: 1000,
        ..Config::default()
    });
    assert_eq!(device.alloc(0), Err(MemoryError::ZeroSize));
    let first = device.alloc(600).unwrap();
    assert_eq!(
        device.alloc(401),
        Err(MemoryError::OutOfMemory {
            requested: 401,
            available: 400,
            limit: 1000
        })
    );
    let second = device.alloc(400).unwrap();
    assert_eq!(device.memory_in_use(), 1000);
    assert_eq!((first % 256, second % 256), (0, 0));

    // Never written: a fixed pattern.
    let mut bytes = [0; 5];
    device.read(second + 3, &mut bytes).unwrap();
    assert_eq!(bytes, [0xa5; 5]);

    device.fill(first, 7, 600).unwrap();
    device.write(first + 9, &[1, 2, 3]).unwrap();
    device.copy(second + 1, first + 8, 5).unwrap();
    let mut bytes = [0; 7];
    device.read(second, &mut bytes).unwrap();
    assert_eq!(bytes, [0xa5, 7, 1, 2, 3, 7, 0xa5]);
    // Overlapping ranges behave as if copied through a buffer.
    device.copy(first + 10, first + 9, 3).unwrap();
    device.read(first + 8, &mut bytes).unwrap();
    assert_eq!(bytes, [7, 1, 1, 2, 3, 7, 7]);

    let error = device.write(first + 599, &[0, 0]).unwrap_err();
    assert!(matches!(error, MemoryError::OutOfBounds { .. }));
    assert_eq!(
        error.to_string(),
        format!(
            "host access to {:#x}, 2 bytes, does not lie within one live allocation (at byte 599 of allocation of 600 bytes at {first:#x})",
            first + 599
        )
    );
    assert!(matches!(
        device.read(u64::MAX - 1, &mut bytes),
        Err(MemoryError::OutOfBounds { .. })
    ));
    // No sum of address and length overflows.
    assert!(matches!(
        device.fill(first + 1, 0, usize::MAX),
        Err(MemoryError::OutOfBounds { .. })
    ));
    assert_eq!(
        device.free(first + 4),
        Err(MemoryError::NotAnAllocation { address: first + 4 })
    );
    device.free(first).unwrap();
    assert_eq!(
        device.free(first),
        Err(MemoryError::NotAnAllocation { address: first })
    );
    assert_eq!(device.memory_in_use(), 400);
    let error = device.write(first, &[0]).unwrap_err();
    assert!(error.to_string().contains("freed"), "{error}");
}

#[test]
fn refused() {
    for (body, words) in [
        ("ld.global.u32 %rd2, %rd1;", "in brackets"),
        ("ld.global.u32 _, [%rd1];", "needs a register"),
        ("ld.global.v2.u32 {_, _}, [%rd1];", "needs a register"),
        (
            "ld.global.v4.u64 {%rd1, %rd1, %rd1, %rd1}, [%rd1];",
            "16 bytes",
        ),
        ("ld.global.u32 %r2, [16];", "`.local`"),
        ("ld.param.u32 %r2, [0];", "`.local`"),
        ("ld.param::func.u64 %rd2, [input];", "`.param::entry`"),
        ("ld.relaxed.global.u32 %r2, [%rd1];", "needs a scope"),
        ("ld.gpu.global.u32 %r2, [%rd1];", "needs an order"),
        (
            "ld.relaxed.gpu.local.u32 %r2, [%rd1];",
            "weak accesses only",
        ),
        (
            "ld.mmio.relaxed.gpu.global.u32 %r2, [%rd1];",
            "an order and `.sys`",
        ),
        (
            "ld.mmio.relaxed.sys.v2.u32 {%r2, %r3}, [%rd1];",
            "no vectors",
        ),
        (
            "ld.global.ca.L1::evict_first.u32 %r2, [%rd1];",
            "exclude each other",
        ),
        ("ld.volatile.global.cg.u32 %r2, [%rd1];", "weak accesses"),
        ("ld.shared.L2::128B.u32 %r2, [%r1];", "`.global`"),
        ("ld.weak.global.nc.u32 %r2, [%rd1];", "`.nc`"),
        ("ld.global.f16 %r2, [%rd1];", ".f16 is not a type"),
        ("st.param::func.u32 [input], %r2;", "`.param::entry`"),
        ("st.param.u32 [input], %r2;", "read-only"),
        ("st.global.ca.u32 [%rd1], %r2;", "`.ca`"),
        (
            "atom.global.v2.f32.min {%r2, %r3}, [%rd1], {%r2, %r3};",
            "not a type",
        ),
        (
            "atom.shared.add.v2.f32 {%r2, %r3}, [%r1], {%r2, %r3};",
            "global memory",
        ),
        (
            "atom.global.add.v2.f32 %r2, [%rd1], {%r2, %r3};",
            "2 registers",
        ),
        (
            "atom.global.add.v2.f32 {%r2, %r3}, [%rd1], {%r2, %r3, %r2, %r3};",
            "4 registers for 2",
        ),
        (
            "atom.global.cas.L2::cache_hint.b32 %r2, [%rd1], 0, 1, %rd5;",
            "no cache policy",
        ),
        (
            "red.acquire.gpu.global.add.u32 [%rd1], 1;",
            "cannot acquire",
        ),
        ("fence.sc.gpu %r2;", "0 operands"),
        ("fence.sc;", "needs a scope"),
        (
            "fence.acquire.sync_restrict::shared::cta.cluster;",
            "`.release`",
        ),
        ("membar.gpu;", "a level"),
        (
            "ld.global.L2::cache_hint.u32 %r2, [%rd1];",
            "number of operands",
        ),
        (
            "ld.global.L2::cache_hint.u32 %r2, [%rd1], %r3;",
            "`%r3` is .b32",
        ),
        ("ld.global.u32 %r2, [%rd1], %rd5;", "number of operands"),
        (
            "ld.shared.L2::cache_hint.u32 %r2, [%r1], %rd5;",
            "`.global`",
        ),
        (
            "createpolicy.fractional.L2::evict_never.b64 %rd5, 1.0;",
            "a priority",
        ),
        (
            "createpolicy.fractional.L2::evict_first.b64 %rd5, 1.5;",
            "from 0 to 1",
        ),
        (
            "createpolicy.fractional.L2::evict_first.b32 %r5, 1.0;",
            ".b32 is not a type",
        ),
        ("createpolicy.cvt.b64 %rd5, %rd6;", "needs `.L2`"),
        ("createpolicy.cvt.L2.b64 _, %rd6;", "cannot be `_`"),
        (
            "ld.global.L2::cache_hint.u32 %r2, [%rd1], 1.5;",
            "float literal",
        ),
        ("applypriority.global.L2::evict_normal [%rd1], 64;", "128"),
        ("discard.global.L2 [%rd1], 128;", "unknown instruction"),
        ("prefetch.const.L1 [%rd1];", "state space"),
        ("prefetch.tensormap [%rd1];", "a cache level"),
    ] {
        let registers = ".reg .b32 %r<6>; .reg .b64 %rd<8>;";
        let ptx = kernel(IN_OUT, &format!("{registers}\n{body}"));
        let ptx = ptx.replace(HEADER, &format!("{HEADER}.const .u32 fixed = 5;\n"));
        match Module::parse(&ptx) {
            Err(error) => assert!(error.message.contains(words), "{body}: {error}"),
            Ok(_) => panic!("accepted: {body}"),
        }
    }
}
