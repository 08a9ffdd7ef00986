//! Arithmetic on 16-bit floats, alone and in pairs, against exact rational arithmetic.

use super::family::Family;
use super::float::{add, each, extreme, fma, mul, rounded, sign, sub};

pub fn families() -> Vec<Family> {
    vec![
        rounded("add{.rn}{.ftz}{.sat}.{f16,f16x2}", 2, add),
        rounded("sub{.rn}{.ftz}{.sat}.{f16,f16x2}", 2, sub),
        rounded("mul{.rn}{.ftz}{.sat}.{f16,f16x2}", 2, mul),
        rounded("fma.rn{.ftz}{.sat,.relu}.{f16,f16x2}", 3, fma),
        rounded("add{.rn}.{bf16,bf16x2}", 2, add),
        rounded("sub{.rn}.{bf16,bf16x2}", 2, sub),
        rounded("mul{.rn}.{bf16,bf16x2}", 2, mul),
        rounded("fma.rn{.relu}.{bf16,bf16x2}", 3, fma),
        each("min{.ftz}{.NaN}{.xorsign.abs}.{f16,f16x2}", 2, extreme),
        each("max{.ftz}{.NaN}{.xorsign.abs}.{f16,f16x2}", 2, extreme),
        each("min{.NaN}{.xorsign.abs}.{bf16,bf16x2}", 2, extreme),
        each("max{.NaN}{.xorsign.abs}.{bf16,bf16x2}", 2, extreme),
        each("neg{.ftz}.{f16,f16x2}", 1, sign),
        each("abs{.ftz}.{f16,f16x2}", 1, sign),
        each("neg.{bf16,bf16x2}", 1, sign),
        each("abs.{bf16,bf16x2}", 1, sign),
    ]
}
