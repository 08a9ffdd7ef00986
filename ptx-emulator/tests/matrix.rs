//! `mma`, `ldmatrix` and `stmatrix`, against the ISA's tables of which lane holds which element and exact sums.

mod harness;

use harness::exact::{BF16, F16, F32, F64, Format, Round, float};
use harness::{Arg, Bench, HEADER, line, parse};
use num_rational::BigRational;
use num_traits::Zero;
use proptest::prelude::*;
use ptx_emulator::{Checks, Config, FaultKind, LaunchError, Module};

/// Row and column of element `i` of a lane's part of `a`, as the ISA's figures for each shape say.
fn position_of_a(shape: (usize, usize), bits: usize, lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    match (shape, bits) {
        ((8, 4), 64) => (group, thread),
        ((8, 16), 8) => (group, thread * 4 + i),
        ((8, 32), 4) => (group, thread * 8 + i),
        ((16, 4), 32 | 64) => (if i == 0 { group } else { group + 8 }, thread),
        ((16, 8), 32 | 64) => (
            if i == 0 || i == 2 { group } else { group + 8 },
            if i < 2 { thread } else { thread + 4 },
        ),
        ((16, 16), 64) => (
            if i.is_multiple_of(2) {
                group
            } else {
                group + 8
            },
            i / 2 * 4 + thread,
        ),
        ((16, 8), 16) => (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1)),
        ((16, 16), 16) => (
            if i < 2 || (4..6).contains(&i) {
                group
            } else {
                group + 8
            },
            thread * 2 + (i & 1) + if i >= 4 { 8 } else { 0 },
        ),
        ((16, 16), 8) => (if i < 4 { group } else { group + 8 }, thread * 4 + (i & 3)),
        ((16, 32), 8) => (
            if i < 4 || (8..12).contains(&i) {
                group
            } else {
                group + 8
            },
            thread * 4 + (i & 3) + if i >= 8 { 16 } else { 0 },
        ),
        ((16, 32), 4) => (if i < 8 { group } else { group + 8 }, thread * 8 + (i & 7)),
        ((16, 64), 4) => (
            if i < 8 || (16..24).contains(&i) {
                group
            } else {
                group + 8
            },
            thread * 8 + (i & 7) + if i >= 16 { 32 } else { 0 },
        ),
        other => panic!("{other:?}"),
    }
}

/// Likewise of `b`: row and column.
fn position_of_b(bits: usize, lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    let row = match bits {
        32 | 64 => thread + 4 * i,
        16 => thread * 2 + (i & 1) + if i >= 2 { 8 } else { 0 },
        8 => thread * 4 + (i & 3) + if i >= 4 { 16 } else { 0 },
        _ => thread * 8 + (i & 7) + if i >= 8 { 32 } else { 0 },
    };
    (row, group)
}

/// Likewise of `c` and `d`.
fn position_of_c(lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1))
}

/// One `mma`: its words, shape, bits of a factor and of a sum.
#[derive(Clone, Copy, Debug)]
struct Form {
    words: &'static str,
    shape: (usize, usize),
    bits: usize,
    sum_bits: usize,
}

impl Form {
    fn registers(self) -> [usize; 3] {
        let (m, k) = self.shape;
        let of = |elements: usize, bits: usize| {
            (elements * bits / 32).div_ceil(if bits == 64 { 2 } else { 1 })
        };
        [
            of(m * k / 32, self.bits),
            of(k * 8 / 32, self.bits),
            of(m * 8 / 32, self.sum_bits),
        ]
    }

    /// A kernel in which each lane loads its registers, 64 bits for each, and stores those of the sum.
    fn kernel(self) -> String {
        let [a, b, c] = self.registers();
        let mut body = String::new();
        let register = |bits: usize, at: usize| {
            if bits == 64 {
                format!("%rd{}", 10 + at)
            } else {
                format!("%r{}", 10 + at)
            }
        };
        let mut at = 0;
        let mut lists = Vec::new();
        for (count, bits) in [(a, self.bits), (b, self.bits), (c, self.sum_bits)] {
            let mut names = Vec::new();
            for _ in 0..count {
                let name = register(bits, at);
                let width = if bits == 64 { 64 } else { 32 };
                body += &format!("ld.global.b{width} {name}, [%rd3+{}];\n", 8 * at);
                names.push(name);
                at += 1;
            }
            lists.push(format!("{{{}}}", names.join(", ")));
        }
        let results: Vec<_> = (0..c).map(|i| register(self.sum_bits, at + i)).collect();
        body += &format!(
            "mma.sync.aligned.{} {{{}}}, {}, {}, {};\n",
            self.words,
            results.join(", "),
            lists[0],
            lists[1],
            lists[2]
        );
        let width = if self.sum_bits == 64 { 64 } else { 32 };
        for (i, name) in results.iter().enumerate() {
            body += &format!("st.global.b{width} [%rd4+{}], {name};\n", 8 * i);
        }
        format!(
            "{HEADER}
.visible .entry k(.param .u64 input, .param .u64 output)
{{
.reg .b32 %r<40>;
.reg .b64 %rd<60>;
ld.param.u64 %rd1, [input];
ld.param.u64 %rd2, [output];
mov.u32 %r1, %laneid;
mul.wide.u32 %rd3, %r1, 256;
add.u64 %rd4, %rd2, %rd3;
add.u64 %rd3, %rd1, %rd3;
{body}
ret;
}}
"
        )
    }

    /// Element `i` of a lane's registers that start at `first`, `bits` each.
    fn locate(lane: usize, first: usize, i: usize, bits: usize) -> (usize, usize) {
        let in_register = (32 / bits).max(1);
        (
            lane * 32 + first + i / in_register,
            i % in_register * bits % 64,
        )
    }

    /// Runs it on matrices of bits; `c` and the result are `m` rows of 8.
    fn run(self, a: &[Vec<u64>], b: &[Vec<u64>], c: &[Vec<u64>]) -> Vec<Vec<u64>> {
        let (m, k) = self.shape;
        let [a_count, b_count, _] = self.registers();
        let mut input = vec![0u64; 32 * 32];
        for lane in 0..32 {
            let mut put = |first: usize, i: usize, bits: usize, value: u64| {
                let (word, shift) = Self::locate(lane, first, i, bits);
                input[word] |= value << shift;
            };
            for i in 0..m * k / 32 {
                let (row, column) = position_of_a(self.shape, self.bits, lane, i);
                put(0, i, self.bits, a[row][column]);
            }
            for i in 0..k * 8 / 32 {
                let (row, column) = position_of_b(self.bits, lane, i);
                put(a_count, i, self.bits, b[row][column]);
            }
            for i in 0..m * 8 / 32 {
                let (row, column) = position_of_c(lane, i);
                put(a_count + b_count, i, self.sum_bits, c[row][column]);
            }
        }
        let mut input: Vec<u8> = input.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut output = vec![0; 32 * 256];
        Bench::new(&self.kernel())
            .run(
                "k",
                line(32),
                &mut [Arg::Bytes(&mut input), Arg::Bytes(&mut output)],
            )
            .unwrap_or_else(|error| panic!("{}: {error}", self.words));
        let words: Vec<u64> = output
            .chunks_exact(8)
            .map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap()))
            .collect();
        let mut d = vec![vec![0; 8]; m];
        for lane in 0..32 {
            for i in 0..m * 8 / 32 {
                let (word, shift) = Self::locate(lane, 0, i, self.sum_bits);
                let (row, column) = position_of_c(lane, i);
                d[row][column] = words[word] >> shift & (u64::MAX >> (64 - self.sum_bits));
            }
        }
        d
    }

    fn check(self, random: &[Vec<Vec<u64>>; 3], expected: impl Fn(&[u64], &[u64], u64) -> u64) {
        let (m, k) = self.shape;
        let cut =
            |matrix: &[Vec<u64>], rows: usize, columns: usize, bits: usize| -> Vec<Vec<u64>> {
                matrix[..rows]
                    .iter()
                    .map(|row| {
                        row[..columns]
                            .iter()
                            .map(|&value| value & (u64::MAX >> (64 - bits)))
                            .collect()
                    })
                    .collect()
            };
        let a = cut(&random[0], m, k, self.bits);
        let b = cut(&random[1], k, 8, self.bits);
        let c = cut(&random[2], m, 8, self.sum_bits);
        let d = self.run(&a, &b, &c);
        for row in 0..m {
            for column in 0..8 {
                let factors: Vec<u64> = b.iter().map(|row| row[column]).collect();
                let want = expected(&a[row], &factors, c[row][column]);
                assert_eq!(
                    d[row][column], want,
                    "{}: row {row}, column {column}: {:x?} {factors:x?} {:#x} give {:#x}, expected {want:#x}",
                    self.words, a[row], c[row][column], d[row][column]
                );
            }
        }
    }
}

/// The exact sum of products and `c`, rounded once.
fn exact_sum(input: Format, output: Format, a: &[u64], b: &[u64], c: u64) -> u64 {
    let mut exact = if output.is_finite(c) {
        output.value(c)
    } else {
        BigRational::zero()
    };
    let mut infinities = [false; 2];
    let mut nan = output.is_nan(c);
    let mut all_negative_zeros = output.is_zero(c) && output.is_negative(c);
    if !nan && !output.is_finite(c) {
        infinities[usize::from(output.is_negative(c))] = true;
    }
    for (&a, &b) in a.iter().zip(b) {
        let negative = input.is_negative(a) != input.is_negative(b);
        all_negative_zeros &= negative && (input.is_zero(a) || input.is_zero(b));
        if input.is_nan(a) || input.is_nan(b) {
            nan = true;
        } else if !input.is_finite(a) || !input.is_finite(b) {
            nan |= input.is_zero(a) || input.is_zero(b);
            infinities[usize::from(negative)] = true;
        } else {
            exact += input.value(a) * input.value(b);
        }
    }
    match infinities {
        _ if nan => output.nan(),
        [true, true] => output.nan(),
        [true, false] => output.infinity(),
        [false, true] => output.infinity() | output.sign(),
        [false, false] if all_negative_zeros => output.sign(),
        [false, false] => output.round(&exact, Round::Nearest),
    }
}

/// Matrices of bits, as large as the largest shape.
fn matrices(
    a: impl Strategy<Value = u64> + 'static,
    c: impl Strategy<Value = u64>,
) -> impl Strategy<Value = [Vec<Vec<u64>>; 3]> {
    use proptest::collection::vec;
    let a = a.boxed();
    (
        vec(vec(a.clone(), 64), 16),
        vec(vec(a, 8), 64),
        vec(vec(c, 8), 16),
    )
        .prop_map(|(a, b, c)| [a, b, c])
}

/// Numbers that cancel and round, mostly finite.
fn factors(format: Format) -> impl Strategy<Value = u64> {
    let finite =
        (any::<u64>(), any::<bool>(), -3i64..3).prop_map(move |(bits, negative, exponent)| {
            let one = format.round(&num_traits::One::one(), Round::Nearest);
            let field = bits & ((1 << format.mantissa) - 1);
            let bits = one.wrapping_add_signed(exponent << format.mantissa) | field;
            if negative { bits | format.sign() } else { bits }
        });
    // One strategy in a hundred elements is enough to have every special value somewhere.
    let special = float(format).boxed();
    let finite = finite.boxed();
    proptest::strategy::Union::new_weighted(vec![(200, finite), (1, special)])
}

const fn form(words: &'static str, shape: (usize, usize), bits: usize, sum_bits: usize) -> Form {
    Form {
        words,
        shape,
        bits,
        sum_bits,
    }
}

fn signed(value: u64, bits: usize) -> i64 {
    (value << (64 - bits)) as i64 >> (64 - bits)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn integers(random in matrices(any::<u64>(), prop_oneof![
        any::<u64>(),
        (0u64..100_000).prop_map(|below| 0x7fff_ffff - below),
        (0u64..100_000).prop_map(|above| 0x8000_0000 + above),
    ])) {
        for (shape, m, k, bits) in [
            ("m8n8k16", 8, 16, 8), ("m16n8k16", 16, 16, 8), ("m16n8k32", 16, 32, 8),
            ("m8n8k32", 8, 32, 4), ("m16n8k32", 16, 32, 4), ("m16n8k64", 16, 64, 4),
        ] {
            for (a_letter, b_letter) in [("s", "s"), ("s", "u"), ("u", "s"), ("u", "u")] {
                for saturate in [false, true] {
                    let satfinite = if saturate { ".satfinite" } else { "" };
                    let words = format!("{shape}.row.col{satfinite}.s32.{a_letter}{bits}.{b_letter}{bits}.s32");
                    let value = |letter: &str, value: u64| match letter {
                        "s" => signed(value, bits),
                        _ => value as i64,
                    };
                    form(words.leak(), (m, k), bits, 32).check(&random, |a, b, c| {
                        let products: i64 = a.iter().zip(b).map(|(&a, &b)| value(a_letter, a) * value(b_letter, b)).sum();
                        let sum = products + signed(c, 32);
                        let sum = if saturate { sum.clamp(i32::MIN.into(), i32::MAX.into()) } else { sum };
                        sum as u64 & 0xffff_ffff
                    });
                }
            }
        }
    }

    #[test]
    fn halves(random in matrices(factors(F16), prop_oneof![9 => factors(F32), 1 => float(F32)]),
              half_sums in matrices(factors(F16), factors(F16))) {
        for (shape, k) in [("m16n8k8", 8), ("m16n8k16", 16)] {
            let words = format!("{shape}.row.col.f32.f16.f16.f32").leak();
            form(words, (16, k), 16, 32).check(&random, |a, b, c| exact_sum(F16, F32, a, b, c));
            let words = format!("{shape}.row.col.f16.f16.f16.f16").leak();
            form(words, (16, k), 16, 16).check(&half_sums, |a, b, c| exact_sum(F16, F16, a, b, c));
        }
    }

    /// Terms of very different size: what a sum in `f64` would lose.
    #[test]
    fn brains(near in matrices(factors(BF16), factors(F32)), far in matrices(any::<u64>(), any::<u64>())) {
        for (shape, k) in [("m16n8k8", 8), ("m16n8k16", 16)] {
            let words = format!("{shape}.row.col.f32.bf16.bf16.f32").leak();
            for random in [&near, &far] {
                form(words, (16, k), 16, 32).check(random, |a, b, c| exact_sum(BF16, F32, a, b, c));
            }
        }
    }

    #[test]
    fn tensor_floats(near in matrices(factors(F32), factors(F32)), far in matrices(any::<u64>(), any::<u64>())) {
        const TF32: Format = Format { exponent: 8, mantissa: 10 };
        for (shape, k) in [("m16n8k4", 4), ("m16n8k8", 8)] {
            let words = format!("{shape}.row.col.f32.tf32.tf32.f32").leak();
            for random in [&near, &far] {
                form(words, (16, k), 32, 32).check(random, |a, b, c| {
                    let upper = |bits: &[u64]| bits.iter().map(|bits| bits >> 13).collect::<Vec<_>>();
                    exact_sum(TF32, F32, &upper(a), &upper(b), c)
                });
            }
        }
    }

    /// `f64` products are added one by one, each rounded, from `k = 0` on.
    #[test]
    fn doubles(random in matrices(float(F64), float(F64))) {
        for (shape, m, k) in [("m8n8k4", 8, 4), ("m16n8k4", 16, 4), ("m16n8k8", 16, 8), ("m16n8k16", 16, 16)] {
            for (rounding, round) in [("", Round::Nearest), (".rz", Round::Zero), (".rm", Round::Down), (".rp", Round::Up)] {
                let words = format!("{shape}.row.col{rounding}.f64.f64.f64.f64").leak();
                form(words, (m, k), 64, 64).check(&random, |a, b, c| {
                    a.iter().zip(b).fold(c, |sum, (&a, &b)| F64.fma(a, Some(b), Some(sum), round))
                });
            }
        }
    }

    /// Loads matrices whose rows are anywhere, and stores them as they came or transposed.
    #[test]
    fn loads_and_stores(data in proptest::collection::vec(any::<u16>(), 256), places in Just((0u32..64).collect::<Vec<_>>()).prop_shuffle()) {
        for count in [1usize, 2, 4] {
            for (load_trans, store_trans) in [(false, false), (true, false), (false, true), (true, true)] {
                let (got, registers) = move_matrices(&data, &places, count, load_trans, store_trans);
                for matrix in 0..count {
                    let source = |row: usize, column: usize| data[64 * matrix + 8 * row + column];
                    for lane in 0..32 {
                        let element = |e: usize| {
                            let (row, column) = (lane / 4, lane % 4 * 2 + e);
                            if load_trans { source(column, row) } else { source(row, column) }
                        };
                        let want = u32::from(element(0)) | u32::from(element(1)) << 16;
                        prop_assert_eq!(registers[matrix * 32 + lane], want);
                    }
                    for row in 0..8 {
                        for column in 0..8 {
                            let want = if load_trans == store_trans { source(row, column) } else { source(column, row) };
                            prop_assert_eq!(got[64 * matrix + 8 * row + column], want, "{} {} {}", count, load_trans, store_trans);
                        }
                    }
                }
            }
        }
    }
}

/// Rows go to places in shared memory, are loaded from there as matrices and stored to where other rows were. Returns the
/// stored elements, and what was in the registers between.
fn move_matrices(
    data: &[u16],
    places: &[u32],
    count: usize,
    load_trans: bool,
    store_trans: bool,
) -> (Vec<u16>, Vec<u32>) {
    let registers = ["%r10", "%r11", "%r12", "%r13"][..count].join(", ");
    let trans = |yes: bool| if yes { ".trans" } else { "" };
    let stores: String = (0..count)
        .map(|matrix| {
            format!(
                "st.global.u32 [%rd6+{}], %r{};\n",
                128 * matrix,
                10 + matrix
            )
        })
        .collect();
    let ptx = format!(
        "{HEADER}
.visible .entry k(.param .u64 input, .param .u64 places, .param .u64 output, .param .u64 registers)
{{
.reg .b32 %r<40>;
.reg .b64 %rd<20>;
.shared .align 16 .b8 cells[1040];
ld.param.u64 %rd1, [input];
ld.param.u64 %rd2, [places];
ld.param.u64 %rd3, [output];
ld.param.u64 %rd4, [registers];
mov.u32 %r1, %tid.x;
// Lane l moves row l, and has its place, and the place it is stored to.
mul.wide.u32 %rd5, %r1, 4;
add.u64 %rd6, %rd4, %rd5;
add.u64 %rd5, %rd2, %rd5;
ld.global.u32 %r2, [%rd5];
ld.global.u32 %r3, [%rd5+128];
mov.u32 %r4, cells+16;
shl.b32 %r2, %r2, 4;
shl.b32 %r3, %r3, 4;
add.u32 %r2, %r4, %r2;
add.u32 %r3, %r4, %r3;
mul.wide.u32 %rd7, %r1, 16;
add.u64 %rd8, %rd1, %rd7;
add.u64 %rd9, %rd3, %rd7;
ld.global.v4.u32 {{%r20, %r21, %r22, %r23}}, [%rd8];
st.shared.v4.u32 [%r2], {{%r20, %r21, %r22, %r23}};
st.shared.v4.u32 [%r3], {{%r20, %r21, %r22, %r23}};
bar.warp.sync -1;
cvt.u64.u32 %rd10, %r2;
cvta.shared.u64 %rd10, %rd10;
ldmatrix.sync.aligned.m8n8.x{count}{}.b16 {{{registers}}}, [%rd10];
bar.warp.sync -1;
sub.u32 %r3, %r3, 16;
stmatrix.sync.aligned.m8n8.x{count}{}.shared.b16 [%r3+16], {{{registers}}};
bar.warp.sync -1;
ld.shared.v4.u32 {{%r20, %r21, %r22, %r23}}, [%r3+16];
st.global.v4.u32 [%rd9], {{%r20, %r21, %r22, %r23}};
{stores}
ret;
}}
",
        trans(load_trans),
        trans(store_trans)
    );
    let mut input: Vec<u8> = data.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut places = places.to_vec();
    let mut output = vec![0; 512];
    let mut seen = vec![0; 128];
    Bench::new(&ptx)
        .run(
            "k",
            line(32),
            &mut [
                Arg::Bytes(&mut input),
                Arg::Words(&mut places),
                Arg::Bytes(&mut output),
                Arg::Words(&mut seen),
            ],
        )
        .unwrap_or_else(|error| panic!("{error}\n{ptx}"));
    let output = output
        .chunks_exact(2)
        .map(|chunk| u16::from_le_bytes(chunk.try_into().unwrap()))
        .collect();
    (output, seen)
}

fn small_kernel(body: &str) -> String {
    format!(
        "{HEADER}
.visible .entry k(.param .u64 output)
{{
.reg .pred %p<4>;
.reg .b32 %r<16>;
.reg .f32 %f<8>;
.reg .f64 %d<8>;
.reg .b64 %rd<4>;
.shared .align 16 .b8 cells[512];
mov.u32 %r1, %tid.x;
mov.u32 %r2, cells;
mov.u32 %r3, 0;
setp.lt.u32 %p1, %r1, 31;
{body}
ret;
}}
"
    )
}

fn run_small(body: &str, threads: u32, checks: Checks) -> Result<Vec<u32>, LaunchError> {
    let mut output = vec![0; 64];
    let config = Config {
        checks,
        ..Config::default()
    };
    Bench::with(&small_kernel(body), config).run(
        "k",
        line(threads),
        &mut [Arg::Words(&mut output)],
    )?;
    Ok(output)
}

#[test]
fn bad_use_is_found() {
    let mma =
        "mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%r4, %r5}, {%r3}, {%r3}, {%r3, %r3};";
    let fault = |body: &str, threads| match run_small(body, threads, Checks::ALL) {
        Err(LaunchError::Fault(fault)) => fault.kind,
        other => panic!("{body}: {other:?}"),
    };
    run_small(mma, 64, Checks::ALL).unwrap();
    // A lane that goes another way, has exited, or never was.
    let missing = FaultKind::InactiveLane { lane: 31 };
    assert_eq!(fault(&format!("@%p1 {mma}"), 32), missing);
    assert_eq!(fault(&format!("@!%p1 exit; {mma}"), 32), missing);
    assert_eq!(fault(mma, 31), missing);
    let load = "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r4}, [%r2];";
    assert_eq!(fault(load, 31), missing);
    assert_eq!(
        fault(
            "mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%r4, %r5}, {%r9}, {%r3}, {%r3, %r3};",
            32
        ),
        FaultKind::UninitializedRegister {
            register: "%r9".into()
        }
    );
    assert_eq!(fault(load, 32), FaultKind::UninitializedMemory { size: 16 });
    let row = "mad.lo.u32 %r6, %r1, 16, %r2; st.shared.v4.u32 [%r6], {%r3, %r3, %r3, %r3};";
    let wait = "bar.warp.sync -1;";
    let load = "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r4, %r5},";
    run_small(&format!("{row} {wait} {load} [%r6];"), 32, Checks::ALL).unwrap();
    assert_eq!(
        fault(&format!("{row} {wait} {load} [%r6+8];"), 32),
        FaultKind::Misaligned { required: 16 }
    );
    assert_eq!(
        fault(&format!("{row} {wait} {load} [%r6+512];"), 32),
        FaultKind::OutOfBounds { size: 16 }
    );
    // The addresses of lanes that provide none do not matter.
    let wild = "setp.lt.u32 %p2, %r1, 16; @!%p2 mov.u32 %r6, 3;";
    run_small(
        &format!("{row} {wait} {wild} {load} [%r6];"),
        32,
        Checks::ALL,
    )
    .unwrap();
    assert!(matches!(
        fault(
            &format!(
                "{row} ld.param.u64 %rd1, [output]; ldmatrix.sync.aligned.m8n8.x1.b16 {{%r4}}, [%rd1];"
            ),
            32
        ),
        FaultKind::InvalidOperand { .. }
    ));
    // A lane reads what its neighbours wrote, with nothing between.
    assert!(matches!(
        fault(&format!("{row} xor.b32 %r6, %r6, 16; {load} [%r6];"), 32),
        FaultKind::SharedRace { .. }
    ));
}

/// A matrix whose elements say where they are, transposed in registers.
#[test]
fn transposed_in_registers() {
    let body = "shr.u32 %r4, %r1, 2; and.b32 %r5, %r1, 3; shl.b32 %r5, %r5, 1; mad.lo.u32 %r6, %r4, 8, %r5;
mad.lo.u32 %r7, %r6, 0x10001, 0x10000;
movmatrix.sync.aligned.m8n8.trans.b16 %r8, %r7;
ld.param.u64 %rd1, [output]; mul.wide.u32 %rd2, %r1, 4; add.u64 %rd1, %rd1, %rd2; st.global.u32 [%rd1], %r8;";
    let output = run_small(body, 32, Checks::ALL).unwrap();
    for (lane, got) in output[..32].iter().enumerate() {
        // Element (r, c) is 8 r + c; the lane has two neighbours of a row of the transposed matrix.
        let (row, column) = (lane as u32 / 4, lane as u32 % 4 * 2);
        let element = |row: u32, column: u32| 8 * column + row;
        assert_eq!(*got, element(row, column) | element(row, column + 1) << 16);
    }
    let Err(LaunchError::Fault(fault)) = run_small(
        &format!("@%p1 {}", "movmatrix.sync.aligned.m8n8.trans.b16 %r8, %r1;"),
        32,
        Checks::ALL,
    ) else {
        panic!("a lane is missing");
    };
    assert_eq!(fault.kind, FaultKind::InactiveLane { lane: 31 });
}

#[test]
fn unchecked_rows_are_left_out() {
    let body = "mad.lo.u32 %r6, %r1, 16, %r2; st.shared.v4.u32 [%r6], {%r1, %r1, %r1, %r1};
setp.eq.u32 %p2, %r1, 0; @%p2 mov.u32 %r6, 8000;
ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r4}, [%r6];
ld.param.u64 %rd1, [output]; mul.wide.u32 %rd2, %r1, 4; add.u64 %rd1, %rd1, %rd2; st.global.u32 [%rd1], %r4;";
    let output = run_small(body, 32, Checks::NONE).unwrap();
    let want: Vec<u32> = (0..32).map(|lane| lane / 4).collect();
    assert_eq!(output[..32], want);
}

#[test]
fn refused() {
    for (body, words) in [
        (
            "mma.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%r4, %r5}, {%r3}, {%r3}, {%r3, %r3};",
            "`.sync.aligned`",
        ),
        (
            "mma.sync.aligned.m8n8k16.col.col.s32.s8.s8.s32 {%r4, %r5}, {%r3}, {%r3}, {%r3, %r3};",
            "`.row.col`",
        ),
        (
            "mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {%f1}, {%r3}, {%r3}, {%f1};",
            "m8n8k4 is not supported",
        ),
        (
            "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%f1}, {%r3}, {%r3}, {%f1};",
            "four types",
        ),
        (
            "mma.sync.aligned.m8n8k16.row.col.s32.s8.s4.s32 {%r4, %r5}, {%r3}, {%r3}, {%r3, %r3};",
            "combination of types",
        ),
        (
            "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f16 {%f1, %f2, %f3, %f4}, {%r3, %r3}, {%r3}, {%r3, %r3};",
            "must be the same",
        ),
        (
            "mma.sync.aligned.m16n8k8.row.col.satfinite.f32.f16.f16.f32 {%f1, %f2, %f3, %f4}, {%r3, %r3}, {%r3}, {%f1, %f2, %f3, %f4};",
            "`.satfinite`",
        ),
        (
            "mma.sync.aligned.m16n8k8.row.col.rz.f32.f16.f16.f32 {%f1, %f2, %f3, %f4}, {%r3, %r3}, {%r3}, {%f1, %f2, %f3, %f4};",
            "`.f64`",
        ),
        (
            "mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%r4}, {%r3}, {%r3}, {%r3, %r3};",
            "takes 2 registers",
        ),
        (
            "mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%r4, %r5}, %r3, {%r3}, {%r3, %r3};",
            "with 1 registers",
        ),
        (
            "mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%r4, %r5}, {5}, {%r3}, {%r3, %r3};",
            "in registers",
        ),
        (
            "mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32 {%f1, %f2, %f3, %f4}, {%f1, %f2}, {%f3}, {%f1, %f2, %f3, %f4};",
            "`%f1` is .f32",
        ),
        (
            "ldmatrix.sync.aligned.m16n16.x1.shared.b8 {%r4, %r5}, [%r2];",
            "`.m8n8`",
        ),
        (
            "ldmatrix.sync.aligned.m8n8.x3.shared.b16 {%r4, %r5}, [%r2];",
            "number of matrices",
        ),
        (
            "ldmatrix.sync.aligned.m8n8.x1.global.b16 {%r4}, [%rd1];",
            "`.shared`",
        ),
        (
            "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r4}, [%r2];",
            "takes 2 registers",
        ),
        (
            "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%f1}, [%r2];",
            "`%f1` is .f32",
        ),
        ("movmatrix.sync.aligned.m8n8.b16 %r4, %r5;", "`.m8n8.trans`"),
        (
            "stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r2], {7};",
            "in registers",
        ),
    ] {
        match Module::parse(&small_kernel(body)) {
            Err(error) => assert!(error.message.contains(words), "{body}: {error}"),
            Ok(_) => panic!("accepted: {body}"),
        }
    }
    // Results that nobody wants, and literals to add, are fine.
    parse(&small_kernel(
        "mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {_, %r5}, {%r3}, {%r3}, {0, 1};",
    ));
}
