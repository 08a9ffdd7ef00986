//! Every form of every instruction that the loader takes, run and compared with plain arithmetic; and no other form is taken.

#[path = "../harness/mod.rs"]
mod harness;

mod family;
mod integer;
mod neighbours;
mod syntax;

use family::Family;

/// All families.
fn families() -> Vec<Family> {
    [integer::families()].into_iter().flatten().collect()
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
