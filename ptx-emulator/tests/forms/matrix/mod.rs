//! `mma`, `ldmatrix`, `stmatrix` and `movmatrix`, against the ISA's tables of which lane holds which element and exact sums.

mod fragments;
mod moves;
mod operands;
mod products;
mod quad_pairs;

use super::family::{Code, Family};

pub fn families() -> Vec<Family> {
    let mut families = products::families();
    families.extend(quad_pairs::families());
    families.extend(moves::families());
    families
}

/// An `mma` whose fragments have so many registers, each a list of names and their bits, for the loader.
fn unspecified(d: (usize, usize), a: (usize, usize), b: (usize, usize), c: (usize, usize)) -> Code {
    let list = |(count, bits): (usize, usize)| {
        let names: Vec<_> = (0..count).map(|i| format!("%m{bits}_{i}")).collect();
        format!("{{{}}}", names.join(", "))
    };
    let text = format!(
        ".reg .b32 %m32_<8>;\n.reg .b64 %m64_<16>;\n{{form}} {}, {}, {}, {};",
        list(d),
        list(a),
        list(b),
        list(c)
    );
    Code::new(text, &[], &[])
}
