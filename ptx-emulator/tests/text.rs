//! Texts that cannot be loaded, and texts that are broken at random: an error with a line, never a panic.

mod harness;

use harness::{HEADER, line};
use proptest::prelude::*;
use ptx_emulator::{Config, Emulator, LaunchConfig, Module};
use std::sync::Arc;

/// What rustc made of two of this project's kernels.
const RUSTC: &str = include_str!("rustc.ptx");

/// What nvcc made of kernels with asynchronous copies, matrices, output and recursion.
const NVCC: [&str; 5] = [
    include_str!("cuda/pipeline.ptx"),
    include_str!("cuda/mma_f16.ptx"),
    include_str!("cuda/mma_s8.ptx"),
    include_str!("cuda/printf.ptx"),
    include_str!("cuda/recursion.ptx"),
];

fn kernel(body: &str) -> String {
    format!(
        "{HEADER}
.global .align 4 .u32 variable;
.visible .entry k(.param .u64 buffer)
{{
.reg .pred %p<3>;
.reg .b16 %h<3>;
.reg .b32 %r<4>;
.reg .f32 %f<4>;
.reg .b64 %rd<4>;
label:
{body}
ret;
}}"
    )
}

/// The line of `body` within [`kernel`].
const BODY: usize = 14;

/// Each is refused, at its line, with these words in the message.
#[test]
fn refused() {
    for (body, words) in [
        ("frobnicate.u32 %r1, %r2;", "frobnicate.u32"),
        ("add.u33 %r1, %r2, %r3;", "add.u33"),
        ("add.ftz.u32 %r1, %r2, %r3;", "`.ftz`"),
        ("add.u32.u32 %r1, %r2, %r3;", "`.u32` is not supported here"),
        ("add.sat.u32 %r1, %r2, %r3;", "`.sat` is for `.s32`"),
        ("add.u32 %r1, %r2;", "3 operands"),
        ("add.u32 %r1, %r2, %r3, %r1;", "3 operands"),
        ("add.u32 %r1, %r2, %f1;", "`%f1` is .f32"),
        ("add.u32 %r1, %r2, %rd1;", "`%rd1` is .b64"),
        ("add.u32 %r1, %r2, %p1;", "predicate"),
        ("add.u32 %r1, %r2, %r9;", "`%r9` is not declared"),
        ("add.u32 %r1, %r2, %q;", "`%q` is not declared"),
        ("add.f32 %f1, %f2, 1;", "integer literal"),
        ("add.f64 %f1, %f2, %f3;", "`%f2` is .f32"),
        ("add.u32 %r1, %r2, 1.5;", "a float literal"),
        ("add.u32 %r1, %r2, 0f3F800000;", "a 32-bit float literal"),
        ("mov.b64 %rd1, 0f3F800000;", "a 32-bit float literal"),
        ("add.f16 %h1, %h2, 0x3c00;", "an integer literal"),
        ("add.f16 %h1, %h2, 1.0;", "a float literal"),
        ("add.u32 _, %r2, %r3;", "`_`"),
        ("set.lt.u32.f32 _, %f1, %f2;", "`_`"),
        ("cvt.u64.u32 _, %r1;", "`_`"),
        ("fma.rn.f16x2 %r1, %f1, %r2, %r3;", "`%f1` is .f32"),
        (".reg .f64 %d1; cvt.rn.f32.s32 %d1, %r1;", "`%d1` is .f64"),
        ("cvt.f32.bf16 %f1, %r1;", "`%r1` is .b32"),
        (".reg .bf16 %x;", "use `.b16`"),
        (".shared .tf32 x;", "use `.b32`"),
        (
            "add.rn.rz.f32 %f1, %f2, %f3;",
            "`.rz` is not supported here",
        ),
        ("setp.lo.s32 %p1, %r1, %r2;", "unsigned"),
        ("cvt.sat.u64.u32 %rd1, %r1;", "`.sat` has no use"),
        ("add.rn.sat.f64 %f1, %f2, %f3;", "`.sat`"),
        ("mul.u32 %r1, %r2, %r3;", "a part of the product"),
        ("mul.wide.u64 %rd1, %rd2, %rd3;", "cannot be widened"),
        ("fma.f32 %f1, %f2, %f3, %f1;", "needs a rounding"),
        ("div.f32 %f1, %f2, %f3;", "needs one of .approx"),
        ("sqrt.approx.rn.f32 %f1, %f2;", "needs one of .approx"),
        ("shl.u32 %r1, %r2, 3;", ".u32 is not a type"),
        ("neg.u32 %r1, %r2;", "signed"),
        ("setp.lt.b32 %p1, %r1, %r2;", "untyped bits"),
        ("setp.equ.s32 %p1, %r1, %r2;", "the type is an integer"),
        ("setp.xx.s32 %p1, %r1, %r2;", "a comparison"),
        ("setp.lt.and.s32 %p1, %r1, %r2;", "wrong number of operands"),
        ("selp.b32 %r1, %r2, %r3, %r1;", "not a predicate"),
        ("@%r1 mov.u32 %r1, 0;", "not a predicate"),
        ("cvt.f32.s32 %f1, %r1;", "needs one of .rn"),
        ("cvt.rn.s32.f32 %r1, %f1;", ".rni"),
        ("cvt.rn.u64.u32 %rd1, %r1;", "does not round"),
        ("cvt.u32.u64 %h1, %rd1;", "`%h1` is .b16"),
        ("lop3.b32 %r1, %r2, %r3, %r1, 256;", "more than a byte"),
        ("ld.global.u32 %r1, %rd1;", "in brackets"),
        ("ld.global.u32 %r1, [%h1];", "cannot hold an address"),
        ("ld.shared.u32 %r1, [variable];", "state space"),
        ("ld.global.u32 %r1, [buffer];", "use `.param`"),
        ("ld.global.v4.u32 {%r1, %r2}, [%rd1];", "2 registers for 4"),
        ("ld.global.v3.u32 %r1, [%rd1];", "`.v3`"),
        (
            "ld.global.v8.u64 {%rd1, %rd1, %rd1, %rd1, %rd1, %rd1, %rd1, %rd1}, [%rd1];",
            "32 bytes",
        ),
        ("ld.release.gpu.global.u32 %r1, [%rd1];", "cannot release"),
        ("st.const.u32 [%rd1], %r1;", "read-only"),
        ("ld.shared.nc.u32 %r1, [%rd1];", "`.nc`"),
        ("atom.global.add.s16 %h1, [%rd1], %h2;", "not a type"),
        ("atom.local.add.u32 %r1, [%rd1], 1;", "global and shared"),
        ("shfl.bfly.b32 %r1, %r2, 1, 31, -1;", "needs `.sync`"),
        ("bra nowhere;", "no label `nowhere`"),
        ("bra %r1;", "no label"),
        ("call nothing, ();", "`nothing` is not declared"),
        ("brx.idx %r1, nothing;", "no target list"),
        ("mov.b64 %rd1, {%r1, %r2, %r3};", "3 parts"),
        ("mov.u32 5, %r1;", "must be a register"),
        (
            "tex.2d.v4.f32.f32 {%f1, %f1, %f1, %f1}, [variable];",
            "tex.2d",
        ),
        ("label: mov.u32 %r1, 0;", "defined twice"),
        (".reg .b32 %x, %x;", "declared twice"),
        (".reg .zzz %x;", "`.zzz`"),
        (".directive 5;", "unknown directive `.directive`"),
        ("mov.u32 %r1, 0", "expected"),
        ("mov.u32 %r1 0;", "expected Comma"),
        ("mov.u32 %r1, #;", "'#'"),
        ("mov.u32 %r1, 09;", "`09` is not a number"),
        ("mov.f32 %f1, 0f123;", "`0f123` is not a number"),
        ("mov.u64 %rd1, 99999999999999999999;", "is not a number"),
    ] {
        let error = match Module::parse(&kernel(body)) {
            Err(error) => error,
            Ok(_) => panic!("accepted: {body}"),
        };
        assert!(error.message.contains(words), "{body}: {error}");
        let expected = if body.ends_with('0') { BODY + 1 } else { BODY };
        // A label is found to be double before its block is read.
        if !body.starts_with("label") {
            assert_eq!(error.line, expected, "{body}: {error}");
        }
    }
    Module::parse(&kernel("")).unwrap();
}

#[test]
fn refused_as_a_whole() {
    for (text, words) in [
        ("", "`.version`"),
        (".version 8.0", "`.target`"),
        (".version 8", "a version"),
        (".version 8.0\n.target compute", "sm_NN"),
        (
            ".version 8.0\n.target sm_90\n.address_size 32",
            "address_size",
        ),
        (
            ".version 8.0\n.target sm_90\n.visible .entry k(",
            "expected `.param`",
        ),
        (
            ".version 8.0\n.target sm_90\n.visible .entry k() {",
            "ends inside a function",
        ),
        (
            ".version 8.0\n.target sm_90\n.visible .entry k() { ret; } .visible .entry k() { ret; }",
            "defined twice",
        ),
        (
            ".version 8.0\n.target sm_90\n.global .u32 x = {1, 2};",
            "longer than",
        ),
        (
            ".version 8.0\n.target sm_90\n.global .u64 x = nothing;",
            "no symbol `nothing`",
        ),
        (
            ".version 8.0\n.target sm_90\n.shared .u32 x = 5;",
            "initialiser",
        ),
        (
            ".version 8.0\n.target sm_90\n.global .b8 x[99999999999];",
            "too large",
        ),
        (
            ".version 8.0\n.target sm_90\n.global .align 3 .b8 x[4];",
            "power of two",
        ),
        ("hello", "expected a directive"),
    ] {
        let error = Module::parse(text).unwrap_err();
        assert!(error.message.contains(words), "{text}: {error}");
    }
    // Braces without end, on both sides of the limit.
    let nested = |depth: usize| kernel(&format!("{}{}", "{".repeat(depth), "}".repeat(depth)));
    Module::parse(&nested(50)).unwrap();
    assert!(
        Module::parse(&nested(100_000))
            .unwrap_err()
            .message
            .contains("nested")
    );
    let operands = kernel(&format!("mov.u32 %r1, {};", "{".repeat(100_000)));
    assert!(
        Module::parse(&operands)
            .unwrap_err()
            .message
            .contains("nested")
    );
}

/// Runs whatever a text has, with little time and memory. Only that it ends is of interest.
fn run_everything(text: &str) {
    let Ok(module) = Module::parse(text) else {
        return;
    };
    let device = Emulator::new(Config {
        memory_limit: 1 << 20,
        instruction_limit: Some(5000),
        ..Config::default()
    });
    let Ok(loaded) = device.load(&Arc::new(module)) else {
        return;
    };
    let buffer = device.alloc(4096).unwrap();
    device.fill(buffer, 1, 4096).unwrap();
    for entry in loaded.module().entries() {
        let args: Vec<Vec<u8>> = entry
            .params
            .iter()
            .map(|param| match param.size {
                8 => buffer.to_le_bytes().to_vec(),
                size => [64u8, 0, 0, 0].iter().copied().cycle().take(size).collect(),
            })
            .collect();
        let slices: Vec<_> = args.iter().map(Vec::as_slice).collect();
        let shape = LaunchConfig {
            grid: [2, 1, 1],
            ..line(64)
        };
        // A fault is as good as a result here.
        let _ = device.launch(&loaded, &entry.name, &shape, &slices);
    }
}

#[test]
fn the_text_itself_loads() {
    let module = Module::parse(RUSTC).unwrap();
    let names: Vec<_> = module.entries().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["quantize_f32_c1", "gemv_m1_t1_w2"]);
    run_everything(RUSTC);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn truncated(end in 0..RUSTC.len()) {
        run_everything(&RUSTC[..end]);
    }

    #[test]
    fn one_byte_changed(at in 0..RUSTC.len(), byte in 0u8..128) {
        let mut bytes = RUSTC.as_bytes().to_vec();
        bytes[at] = byte;
        run_everything(std::str::from_utf8(&bytes).unwrap());
    }

    /// Words trade places: most results are PTX in form, and wrong in some way.
    #[test]
    fn words_exchanged(first in 0usize..4000, second in 0usize..4000) {
        let mut words: Vec<&str> = RUSTC.split_inclusive(char::is_whitespace).collect();
        let count = words.len();
        words.swap(first % count, second % count);
        run_everything(&words.concat());
    }

    #[test]
    fn lines_left_out(at in 0usize..2000, count in 1usize..4) {
        let lines: Vec<&str> = RUSTC.lines().collect();
        let at = at % lines.len();
        let text: Vec<&str> = lines.iter().enumerate()
            .filter(|(index, _)| !(at..at + count).contains(index))
            .map(|(_, line)| *line)
            .collect();
        run_everything(&text.join("\n"));
    }

    /// The same with what nvcc made of copies, matrices, output and recursion.
    #[test]
    fn words_of_nvcc_exchanged(text in 0..NVCC.len(), first in 0usize..4000, second in 0usize..4000) {
        let mut words: Vec<&str> = NVCC[text].split_inclusive(char::is_whitespace).collect();
        let count = words.len();
        words.swap(first % count, second % count);
        run_everything(&words.concat());
    }

    /// Any number in place of another one: sizes, offsets, counts, register numbers.
    #[test]
    fn numbers_of_nvcc_changed(text in 0..NVCC.len(), at in 0usize..2000, number in prop_oneof![0u64..40, any::<u32>().prop_map(u64::from), any::<u64>()]) {
        let mut words: Vec<String> = NVCC[text].split_inclusive(|c: char| !c.is_ascii_digit()).map(str::to_owned).collect();
        let digits: Vec<usize> = (0..words.len()).filter(|&word| words[word].starts_with(|c: char| c.is_ascii_digit())).collect();
        let word = digits[at % digits.len()];
        let rest = words[word].trim_start_matches(|c: char| c.is_ascii_digit()).to_owned();
        words[word] = format!("{number}{rest}");
        run_everything(&words.concat());
    }

    #[test]
    fn any_text(text in ".{0,200}") {
        run_everything(&text);
        run_everything(&kernel(&text));
    }
}

/// The kernel that rustc made gives what its definition says, with every check on.
#[test]
fn quantization() {
    let module = Arc::new(Module::parse(RUSTC).unwrap());
    let device = Emulator::new(Config::default());
    let loaded = device.load(&module).unwrap();
    const K: usize = 1000;
    let x: Vec<f32> = (0..3 * K)
        .map(|i| ((i * 7919 % 2003) as f32 - 1000.0) / 317.0 * (i / K) as f32)
        .collect();
    let alloc = |bytes: usize| device.alloc(bytes).unwrap();
    let (input, quantized, scale, sum) = (alloc(12 * K), alloc(3 * 1024), alloc(12), alloc(12));
    let bytes: Vec<u8> = x.iter().flat_map(|x| x.to_le_bytes()).collect();
    device.write(input, &bytes).unwrap();
    let shape = LaunchConfig {
        grid: [3, 1, 1],
        ..line(128)
    };
    device
        .launch(
            &loaded,
            "quantize_f32_c1",
            &shape,
            &[
                &input.to_le_bytes(),
                &quantized.to_le_bytes(),
                &scale.to_le_bytes(),
                &sum.to_le_bytes(),
                &(K as u32).to_le_bytes(),
                &1024u32.to_le_bytes(),
            ],
        )
        .unwrap();
    let mut codes = vec![0; 3 * 1024];
    device.read(quantized, &mut codes).unwrap();
    let mut sums = [0; 12];
    device.read(sum, &mut sums).unwrap();
    for token in 0..3 {
        let row = &x[token * K..(token + 1) * K];
        let largest = row.iter().fold(1e-5f32, |largest, x| largest.max(x.abs()));
        let s = 127.0 / largest;
        let want: Vec<i8> = row
            .iter()
            .map(|x| (x * s).round_ties_even().clamp(-128.0, 127.0) as i8)
            .collect();
        let got: Vec<i8> = codes[token * 1024..token * 1024 + K]
            .iter()
            .map(|&code| code as i8)
            .collect();
        assert_eq!(got, want, "token {token}");
        let sum = i32::from_le_bytes(sums[4 * token..4 * token + 4].try_into().unwrap());
        assert_eq!(sum, want.iter().map(|&code| i32::from(code)).sum::<i32>());
    }
}
