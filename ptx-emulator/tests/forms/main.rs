//! Every form of every instruction that the loader takes, run and compared with plain arithmetic; and no other form is taken.

#[path = "../harness/mod.rs"]
mod harness;

mod bits;
mod carry;
mod family;
mod integer;
mod movement;
mod neighbours;
mod opcodes;
mod syntax;

use family::Family;

/// All families.
fn families() -> Vec<Family> {
    [
        integer::families(),
        carry::families(),
        bits::families(),
        movement::families(),
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
