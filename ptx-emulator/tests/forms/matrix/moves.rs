//! Matrices of 8 rows that the lanes of a warp hold together: moved between registers and shared memory, and transposed.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::family::{Code, Family, THREADS, random};
use crate::harness::Operands;
use crate::syntax::Form;

/// The matrices that a form moves.
fn count(form: &Form) -> usize {
    match form.one_of(&["x1", "x2", "x4"]) {
        Some("x1") => 1,
        Some("x2") => 2,
        _ => 4,
    }
}

/// An address, in `%at` or generic, of the row that `{c}` says: a thread's own 16 bytes.
fn address(form: &Form) -> (&'static str, &'static str) {
    let code = "mov.u32 %at, tile+16;
mad.lo.u32 %at, {c}, 64, %at;
cvt.u64.u32 %wide, %at;
cvta.shared.u64 %wide, %wide;
";
    match form.one_of(&["shared", "shared::cta"]) {
        Some(_) => (code, "[%at+-16]"),
        None => (code, "[%wide+-16]"),
    }
}

/// Two halves of a row for each thread, which row it has the address of, and what was in memory before.
fn rows(_: &Form) -> Vec<Operands> {
    let values = random(vec(any::<[u64; 3]>(), THREADS));
    let places: Vec<u64> = (0..THREADS as u64).collect();
    let places = random(Just(places).prop_shuffle());
    let tuple = |([a, b, before], place): ([u64; 3], u64)| [a, b, place, before];
    values.into_iter().zip(places).map(tuple).collect()
}

/// Element `column` of a row of 8 in two halves.
fn element(halves: [u64; 2], column: usize) -> u64 {
    halves[column / 4] >> (16 * (column % 4)) & 0xffff
}

/// The two neighbours that a lane holds of a matrix.
fn neighbours(lane: usize, transposed: bool) -> [(usize, usize); 2] {
    [0, 1].map(|i| {
        let (row, column) = (lane / 4, lane % 4 * 2 + i);
        if transposed {
            (column, row)
        } else {
            (row, column)
        }
    })
}

/// Each thread writes a row; its lane of the warp gets a part of each matrix.
fn load() -> Family {
    Family::new(
        "ldmatrix.sync.aligned.m8n8.{x1,x2,x4}{.trans}{.shared,.shared::cta}.b16",
        |form| {
            let results = ["{d}", "{d1}", "{d2}", "{d3}"][..count(form)].join(", ");
            let (before, address) = address(form);
            let text = format!(
                ".reg .b32 %at;
st.shared.b64 [%shared], {{a}};
st.shared.b64 [%shared+8], {{b}};
{before}bar.sync 0;
{{form}} {{{results}}}, {address};
bar.sync 0;"
            );
            Code::new(text, &[32, 32, 32, 32][..count(form)], &[64, 64, 32])
        },
        rows,
        |form, inputs, outputs| {
            for (thread, got) in outputs.iter().enumerate() {
                let mut want = [0; 4];
                for (matrix, want) in want[..count(form)].iter_mut().enumerate() {
                    let [low, high] =
                        neighbours(thread % 32, form.has("trans")).map(|(row, column)| {
                            let [.., place, _] = inputs[thread / 32 * 32 + 8 * matrix + row];
                            let [a, b, ..] = inputs[place as usize];
                            element([a, b], column)
                        });
                    *want = low | high << 16;
                }
                if *got != want {
                    return Err(format!("thread {thread} got {got:x?}, expected {want:x?}"));
                }
            }
            Ok(())
        },
    )
}

/// The lanes of each warp write their parts of the matrices; each thread reads a row.
fn store() -> Family {
    Family::new(
        "stmatrix.sync.aligned.m8n8.{x1,x2,x4}{.trans}{.shared,.shared::cta}.b16",
        |form| {
            let registers = ["%m0", "%m1", "%m2", "%m3"][..count(form)].join(", ");
            let (before, address) = address(form);
            let text = format!(
                ".reg .b32 %at, %m0, %m1, %m2, %m3;
st.shared.b64 [%shared], {{e}};
st.shared.b64 [%shared+8], {{e}};
mov.b64 {{%m0, %m1}}, {{a}};
mov.b64 {{%m2, %m3}}, {{b}};
{before}bar.sync 0;
{{form}} {address}, {{{registers}}};
bar.sync 0;
ld.shared.b64 {{d}}, [%shared];
ld.shared.b64 {{d1}}, [%shared+8];
bar.sync 0;"
            );
            Code::new(text, &[64, 64], &[64, 64, 32, 64])
        },
        rows,
        |form, inputs, outputs| {
            let mut want: Vec<_> = inputs
                .iter()
                .map(|[.., before]| [*before, *before])
                .collect();
            for (thread, [a, b, ..]) in inputs.iter().enumerate() {
                let registers = [a & 0xffff_ffff, a >> 32, b & 0xffff_ffff, b >> 32];
                for (matrix, register) in registers[..count(form)].iter().enumerate() {
                    let places = neighbours(thread % 32, form.has("trans"));
                    for (i, (row, column)) in places.into_iter().enumerate() {
                        let place = inputs[thread / 32 * 32 + 8 * matrix + row][2];
                        let half = &mut want[place as usize][column / 4];
                        let shift = 16 * (column % 4);
                        *half =
                            *half & !(0xffff << shift) | (register >> (16 * i) & 0xffff) << shift;
                    }
                }
            }
            for (thread, (got, want)) in outputs.iter().zip(want).enumerate() {
                if got[..2] != want {
                    return Err(format!("row {thread} is {got:x?}, expected {want:x?}"));
                }
            }
            Ok(())
        },
    )
}

fn transpose() -> Family {
    Family::new(
        "movmatrix.sync.aligned.m8n8.trans.b16",
        |_| Code::new("{form} {d}, {a};", &[32], &[32]),
        rows,
        |_, inputs, outputs| {
            for (warp, outputs) in inputs.chunks(32).zip(outputs.chunks(32)) {
                for (lane, got) in outputs.iter().enumerate() {
                    let [low, high] = neighbours(lane, true).map(|(row, column)| {
                        warp[4 * row + column / 2][0] >> (16 * (column % 2)) & 0xffff
                    });
                    let want = low | high << 16;
                    if got[0] != want {
                        return Err(format!("lane {lane} got {:#x}, expected {want:#x}", got[0]));
                    }
                }
            }
            Ok(())
        },
    )
}

pub fn families() -> Vec<Family> {
    vec![load(), store(), transpose()]
}
