//! Every form of every instruction that the loader takes, run and compared with plain arithmetic; and no other form is taken.

#[path = "../harness/mod.rs"]
mod harness;

mod address;
mod approximate;
mod asynchronous;
mod atomic;
mod barrier;
mod bits;
mod carry;
mod compare;
mod control;
mod convert;
mod family;
mod float;
mod half;
mod hints;
mod integer;
mod load;
mod matrix;
mod mbarrier;
mod movement;
mod neighbours;
mod opcodes;
mod operands;
mod select;
mod special;
mod store;
mod syntax;
mod video;
mod warp;

use family::Family;
use ptx_emulator::Module;

/// All families.
fn families() -> Vec<Family> {
    [
        integer::families(),
        carry::families(),
        bits::families(),
        video::families(),
        movement::families(),
        float::families(),
        half::families(),
        approximate::families(),
        compare::families(),
        select::families(),
        convert::families(),
        address::families(),
        warp::families(),
        barrier::families(),
        control::families(),
        matrix::families(),
        load::families(),
        store::families(),
        atomic::families(),
        operands::families(),
        hints::families(),
        asynchronous::families(),
        mbarrier::families(),
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

/// That a scope of the standard kernel cannot be loaded, and that the error has these words.
fn refused(scope: &str, words: &str) {
    match Module::parse(&family::kernel(&format!("{{ {scope} }}"))) {
        Err(error) => assert!(error.message.contains(words), "{scope}: {error}"),
        Ok(_) => panic!("taken: {scope}"),
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
fn video_instructions() {
    check(video::families());
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

#[test]
fn warps() {
    check(warp::families());
}

#[test]
fn barriers() {
    check(barrier::families());
}

#[test]
fn control_flow() {
    check(control::families());
}

#[test]
fn matrices() {
    check(matrix::families());
}

#[test]
fn loads() {
    check(load::families());
}

#[test]
fn stores() {
    check(store::families());
}

#[test]
fn operands_of_memory() {
    check(operands::families());
}

#[test]
fn atomics() {
    check(atomic::families());
}

#[test]
fn hints() {
    check(hints::families());
}

#[test]
fn asynchronous_copies() {
    check(asynchronous::families());
}

#[test]
fn mbarriers() {
    check(mbarrier::families());
}
