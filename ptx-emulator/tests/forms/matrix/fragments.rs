//! `mma` on one warp: which lane has which element, by the figures of the ISA, and the exact sum of products.

use crate::harness::exact::{Format, Round, float};
use crate::harness::{Arg, Bench, HEADER, line};
use crate::syntax::Form;
use num_rational::BigRational;
use num_traits::Zero;
use proptest::prelude::*;

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

/// One `mma`: its name, shape, and bits of a factor and of a sum.
#[derive(Debug)]
pub(super) struct Product {
    name: String,
    shape: (usize, usize),
    pub(super) bits: usize,
    pub(super) sum_bits: usize,
}

impl Product {
    /// What a form's words say.
    pub(super) fn of(form: &Form) -> Self {
        let mut numbers = form.words[3].split(|c: char| !c.is_ascii_digit()).skip(1);
        let mut number = || numbers.next().expect("a shape").parse().expect("a number");
        let (m, _, k): (usize, usize, usize) = (number(), number(), number());
        let bits: Vec<_> = form.types().map(|ty| ty.bits as usize).collect();
        Self {
            name: form.to_string(),
            shape: (m, k),
            bits: bits[1],
            sum_bits: bits[0],
        }
    }

    /// Bits of a register that has elements of so many bits.
    pub(super) fn register_bits(&self, bits: usize) -> usize {
        bits.max(32)
    }

    pub(super) fn registers(&self) -> [usize; 3] {
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
    fn kernel(&self) -> String {
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
            "{} {{{}}}, {}, {}, {};\n",
            self.name,
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
    fn run(&self, a: &[Vec<u64>], b: &[Vec<u64>], c: &[Vec<u64>]) -> Vec<Vec<u64>> {
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
            .unwrap_or_else(|error| panic!("{}: {error}", self.name));
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

    /// Multiplies matrices, cut to the shape, and compares each element with what `expected` makes of a row, a column and an addend.
    pub(super) fn check(
        &self,
        random: &[Vec<Vec<u64>>; 3],
        expected: impl Fn(&[u64], &[u64], u64) -> u64,
    ) {
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
                    self.name, a[row], c[row][column], d[row][column]
                );
            }
        }
    }
}

/// The exact sum of products and `c`, rounded once.
pub(super) fn exact_sum(input: Format, output: Format, a: &[u64], b: &[u64], c: u64) -> u64 {
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
pub(super) fn matrices(
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
pub(super) fn factors(format: Format) -> impl Strategy<Value = u64> {
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

pub(super) fn signed(value: u64, bits: usize) -> i64 {
    (value << (64 - bits)) as i64 >> (64 - bits)
}
