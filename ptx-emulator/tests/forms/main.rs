//! Every form of every instruction that the loader takes, run and compared with plain arithmetic; and no other form is taken.

#[path = "../harness/mod.rs"]
mod harness;

mod address;
mod approximate;
mod bits;
mod carry;
mod compare;
mod convert;
mod family;
mod float;
mod half;
mod integer;
mod movement;
mod neighbours;
mod opcodes;
mod select;
mod syntax;

use family::Family;

/// All families.
fn families() -> Vec<Family> {
    [
        integer::families(),
        carry::families(),
        bits::families(),
        movement::families(),
        float::families(),
        half::families(),
        approximate::families(),
        compare::families(),
        select::families(),
        convert::families(),
        address::families(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn check(families: Vec<Family>) {
    for family in families {
        family.check();
    }
}

#[test]
fn integer_arithmetic() {
    check(integer::families());
}

#[test]
fn carries() {
    check(carry::families());
}

#[test]
fn bits_and_bytes() {
    check(bits::families());
}

#[test]
fn moves() {
    check(movement::families());
}

#[test]
fn float_arithmetic() {
    check(float::families());
}

#[test]
fn half_precision_arithmetic() {
    check(half::families());
}

#[test]
fn approximate_functions() {
    check(approximate::families());
}

#[test]
fn comparisons() {
    check(compare::families());
}

#[test]
fn selections() {
    check(select::families());
}

#[test]
fn conversions() {
    check(convert::families());
}

#[test]
fn addresses() {
    check(address::families());
}
