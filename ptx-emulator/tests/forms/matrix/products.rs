//! The forms of `mma` that multiply two matrices of a warp, on random matrices.

use proptest::prelude::*;

use super::fragments::{Product, exact_sum, factors, matrices, signed};
use crate::family::{Code, Family, random};
use crate::harness::exact::{BF16, F16, F32, F64, Format, Round, float};
use crate::syntax::Form;

/// Random matrices for each form.
const RUNS: usize = 2;

const TF32: Format = Format {
    exponent: 8,
    mantissa: 10,
};

/// The registers of a form, for the loader.
fn code(form: &Form) -> Code {
    let product = Product::of(form);
    let [a, b, c] = product.registers();
    let sum = (c, product.register_bits(product.sum_bits));
    let bits = product.register_bits(product.bits);
    super::unspecified(sum, (a, bits), (b, bits), sum)
}

/// Every form on `RUNS` matrices each of several kinds, each element of which must be what `expected` says.
fn product<S: Strategy<Value = [Vec<Vec<u64>>; 3]> + 'static>(
    syntax: &'static str,
    kinds: fn(&Form) -> Vec<S>,
    expected: fn(&Form, &[u64], &[u64], u64) -> u64,
) -> Family {
    Family::apart(syntax, code, move |form| {
        for kind in kinds(form) {
            for random in random(proptest::collection::vec(kind, RUNS)) {
                Product::of(form).check(&random, |a, b, c| expected(form, a, b, c));
            }
        }
    })
}

fn integers(syntax: &'static str) -> Family {
    product(
        syntax,
        |_| {
            // Sums near the ends, where they wrap around or are clamped.
            let sums = prop_oneof![
                any::<u64>(),
                (0u64..100_000).prop_map(|below| 0x7fff_ffff - below),
                (0u64..100_000).prop_map(|above| 0x8000_0000 + above),
            ];
            vec![matrices(any::<u64>(), sums)]
        },
        |form, a, b, c| {
            let [_, a_type, b_type, _] = form.types().collect::<Vec<_>>()[..] else {
                panic!("{form}");
            };
            let value = |ty: crate::syntax::Type, bits| {
                if ty.is_signed() {
                    signed(bits, ty.bits as usize)
                } else {
                    bits as i64
                }
            };
            let products = a
                .iter()
                .zip(b)
                .map(|(&a, &b)| value(a_type, a) * value(b_type, b));
            let sum = products.sum::<i64>() + signed(c, 32);
            let sum = if form.has("satfinite") {
                sum.clamp(i32::MIN.into(), i32::MAX.into())
            } else {
                sum
            };
            sum as u64 & 0xffff_ffff
        },
    )
}

pub fn families() -> Vec<Family> {
    vec![
        integers(
            "mma.sync.aligned.{m8n8k16,m16n8k16,m16n8k32}.row.col{.satfinite}.s32.{s8,u8}.{s8,u8}.s32",
        ),
        integers(
            "mma.sync.aligned.{m8n8k32,m16n8k32,m16n8k64}.row.col{.satfinite}.s32.{s4,u4}.{s4,u4}.s32",
        ),
        product(
            "mma.sync.aligned.{m16n8k8,m16n8k16}.row.col.f32.f16.f16.f32",
            |_| {
                vec![matrices(
                    factors(F16),
                    prop_oneof![9 => factors(F32), 1 => float(F32)],
                )]
            },
            |_, a, b, c| exact_sum(F16, F32, a, b, c),
        ),
        product(
            "mma.sync.aligned.{m16n8k8,m16n8k16}.row.col.f16.f16.f16.f16",
            |_| vec![matrices(factors(F16), factors(F16))],
            |_, a, b, c| exact_sum(F16, F16, a, b, c),
        ),
        // Terms of very different size too: what a sum in `f64` would lose.
        product(
            "mma.sync.aligned.{m16n8k8,m16n8k16}.row.col.f32.bf16.bf16.f32",
            |_| {
                let near = matrices(factors(BF16), factors(F32)).boxed();
                vec![near, matrices(any::<u64>(), any::<u64>()).boxed()]
            },
            |_, a, b, c| exact_sum(BF16, F32, a, b, c),
        ),
        product(
            "mma.sync.aligned.{m16n8k4,m16n8k8}.row.col.f32.tf32.tf32.f32",
            |_| {
                let near = matrices(factors(F32), factors(F32)).boxed();
                vec![near, matrices(any::<u64>(), any::<u64>()).boxed()]
            },
            |_, a, b, c| {
                let upper = |bits: &[u64]| bits.iter().map(|bits| bits >> 13).collect::<Vec<_>>();
                exact_sum(TF32, F32, &upper(a), &upper(b), c)
            },
        ),
        // Products are added one by one, each sum rounded, from `k = 0` on.
        product(
            "mma.sync.aligned.{m8n8k4,m16n8k4,m16n8k8,m16n8k16}.row.col{.rn,.rz,.rm,.rp}.f64.f64.f64.f64",
            |_| vec![matrices(float(F64), float(F64))],
            |form, a, b, c| {
                let round = match form.one_of(&["rz", "rm", "rp"]) {
                    Some("rz") => Round::Zero,
                    Some("rm") => Round::Down,
                    Some("rp") => Round::Up,
                    _ => Round::Nearest,
                };
                let step = |sum, (&a, &b)| F64.fma(a, Some(b), Some(sum), round);
                a.iter().zip(b).fold(c, step)
            },
        ),
    ]
}
