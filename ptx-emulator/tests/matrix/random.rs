//! Products of random matrices, and random rows moved by `ldmatrix` and `stmatrix`.

use super::fragments::{exact_sum, factors, form, matrices, signed};
use crate::harness::exact::{BF16, F16, F32, F64, Format, Round, float};
use crate::harness::{Arg, Bench, HEADER, line};
use proptest::prelude::*;

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
