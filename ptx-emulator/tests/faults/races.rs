//! Races in shared memory.

use ptx_emulator::{Config, FaultKind, LaunchConfig};

use super::harness::line;
use super::{fault, kernel, outcome, silent};

#[test]
fn shared_memory_races() {
    // A write, then a read by a thread of another warp.
    let found = fault(
        "st.shared.u32 [%r5], %r1;
        xor.b32 %r6, %r3, 128;
        add.u32 %r6, %r4, %r6;
        setp.ge.u32 %p1, %r1, 32;
        /*!*/ @%p1 ld.shared.u32 %r7, [%r6];",
        64,
    );
    let FaultKind::SharedRace { other } = &found.kind else {
        panic!("{found}");
    };
    assert!(other.write);
    assert_eq!(other.thread, [0, 0, 0]);
    assert_eq!(other.instruction, "st.shared.u32 [%r5], %r1;");
    assert_eq!(found.thread, [32, 0, 0]);

    // A read, then a write.
    let found = fault(
        "st.shared.u32 [%r5], %r1;
        bar.sync 0;
        xor.b32 %r6, %r3, 4;
        add.u32 %r6, %r4, %r6;
        ld.shared.u32 %r7, [%r6];
        /*!*/ st.shared.u32 [%r5], %r7;",
        64,
    );
    let FaultKind::SharedRace { other } = &found.kind else {
        panic!("{found}");
    };
    assert!(!other.write);

    // Two writes to one byte, in one instruction.
    fault("/*!*/ st.shared.u32 [%r4], %r1;", 2);
    fault("/*!*/ st.global.u32 [%rd1], %r1;", 2);
    // By two warps: the second one changes what the first one wrote.
    let found = fault("shr.u32 %r6, %r1, 5; /*!*/ st.shared.u32 [%r4], %r6;", 64);
    assert_eq!(found.thread, [32, 0, 0]);
    // One element of two differs, and one byte of the same value.
    fault("/*!*/ st.shared.v2.u32 [%r4], {%r2, %r1};", 2);
    fault(
        "st.shared.u32 [%r5], %r2; cvt.u16.u32 %h1, %r1; /*!*/ st.shared.u8 [%r4+1], %h1;",
        64,
    );
    // Lanes of a warp are not ordered by running in step.
    fault(
        "st.shared.u32 [%r5], %r1;
        xor.b32 %r6, %r3, 4;
        add.u32 %r6, %r4, %r6;
        /*!*/ ld.shared.u32 %r7, [%r6];",
        32,
    );
}

/// It does not matter which of several stores of one value is the last one.
#[test]
fn stores_of_one_value_are_no_races() {
    // In one instruction; only the bytes that are stored count.
    silent("st.shared.u32 [%r4], 7;", 32);
    silent("st.global.u32 [%rd1], 7;", 32);
    silent(
        "shl.b32 %r6, %r1, 8; cvt.u16.u32 %h1, %r6; st.shared.u8 [%r4], %h1;",
        32,
    );
    // Lanes 8 and up write to sectors what lanes 0 to 7 write.
    silent(
        "and.b32 %r6, %r1, 7; shl.b32 %r7, %r6, 2; add.u32 %r7, %r4, %r7; st.shared.u32 [%r7], %r6;
        bar.sync 0;
        ld.shared.u32 %r8, [%r7];",
        128,
    );
    silent(
        "and.b32 %r6, %r1, 3; shl.b32 %r7, %r6, 4; add.u32 %r7, %r4, %r7; st.shared.v4.u32 [%r7], {%r6, %r2, 5, %r6};",
        96,
    );
    // A reader that nothing orders after one of the writers is a race as ever.
    let found = fault(
        "/*!*/ st.shared.u32 [%r4], 7;
        bar.warp.sync -1;
        ld.shared.u32 %r6, [%r4];",
        64,
    );
    assert_eq!(found.thread, [32, 0, 0]);
    // Each of the writers is remembered: the third warp comes after the first one only.
    let found = fault(
        "shr.u32 %r6, %r1, 5;
        setp.eq.u32 %p1, %r6, 0;
        setp.eq.u32 %p2, %r6, 2;
        @!%p2 st.shared.u32 [%r4], 7;
        @%p1 bar.arrive 1, 64;
        @%p2 bar.sync 1, 64;
        /*!*/ @%p2 st.shared.u32 [%r4], 8;",
        96,
    );
    let FaultKind::SharedRace { other } = &found.kind else {
        panic!("{found}");
    };
    assert_eq!((found.thread, other.thread), ([64, 0, 0], [32, 0, 0]));
}

/// What excuses accesses that nothing orders, that they are strong or store the same, does so only where they overlap completely.
#[test]
fn accesses_of_different_sizes() {
    let threads = |first: &str, mark: &str, second: &str| {
        format!(
            "setp.ge.u32 %p1, %r1, 32; setp.eq.u32 %p2, %r1, 0; setp.eq.u32 %p3, %r1, 32; mov.u64 %rd4, 7;
            @%p1 bra second;
            @%p2 {first}
            bra end;
            second:
            {mark} @%p3 {second}
            end:"
        )
    };
    for (first, second) in [
        ("st.shared.u64 [%r4], %rd4;", "st.shared.u32 [%r4], 7;"),
        ("st.shared.u32 [%r4], 0;", "st.shared.u8 [%r4+1], 0;"),
        (
            "st.shared.v2.u32 [%r4], {7, 0};",
            "st.shared.u64 [%r4], %rd4;",
        ),
        (
            "red.global.add.u64 [%rd1], 1;",
            "ld.relaxed.gpu.global.u32 %r6, [%rd1+4];",
        ),
        (
            "ld.volatile.global.v2.u32 {%r6, %r7}, [%rd1];",
            "st.volatile.global.u64 [%rd1], %rd4;",
        ),
        // A later access of the same thread does not make up for one of another size.
        (
            "red.global.add.u64 [%rd1], 1; @%p2 red.global.add.u32 [%rd1], 1;",
            "ld.relaxed.gpu.global.u32 %r6, [%rd1];",
        ),
    ] {
        fault(&threads(first, "/*!*/", second), 64);
    }
    for (first, second) in [
        // Each element of a vector is an access of its own.
        (
            "st.shared.v2.u32 [%r4], {7, 8};",
            "st.shared.u32 [%r4+4], 8;",
        ),
        (
            "red.global.add.u32 [%rd1], 1;",
            "ld.relaxed.gpu.global.v2.u32 {%r6, %r7}, [%rd1];",
        ),
        // Compilers make atomics of bytes from words.
        (
            "atom.global.cas.b32 %r6, [%rd1], 0, 1;",
            "ld.relaxed.gpu.global.u8 %r6, [%rd1+1];",
        ),
    ] {
        silent(&threads(first, "", second), 64);
    }
}

#[test]
fn ordered_accesses_are_no_races() {
    for order in ["bar.sync 0;", "bar.warp.sync -1;"] {
        silent(
            &format!(
                "st.shared.u32 [%r5], %r1;
                {order}
                xor.b32 %r6, %r3, 4;
                add.u32 %r6, %r4, %r6;
                ld.shared.u32 %r7, [%r6];
                {order}
                st.shared.u32 [%r5], %r7;"
            ),
            64,
        );
    }
    // Neighbouring bytes are different places.
    silent(
        "add.u32 %r6, %r4, %r1; cvt.u16.u32 %h1, %r1; st.shared.u8 [%r6], %h1;",
        64,
    );
    // Atomics do not race with each other.
    silent(
        "setp.ne.u32 %p1, %r1, 0; @!%p1 st.shared.u32 [%r4], %r1; bar.sync 0; atom.shared.add.u32 %r6, [%r4], 1;",
        64,
    );
    // Reads do not race.
    silent(
        "setp.ne.u32 %p1, %r1, 0; @!%p1 st.shared.u32 [%r4], %r1; bar.sync 0; ld.shared.u32 %r6, [%r4]; ld.shared.u32 %r7, [%r4];",
        64,
    );
    // A flag with release and acquire orders what is around it.
    silent(
        "setp.ne.u32 %p1, %r1, 0;
        @!%p1 st.shared.u32 [%r4], %r1;
        bar.sync 0;
        setp.eq.u32 %p2, %r1, 40;
        @!%p2 bra reader;
        st.shared.u32 [%r4+16], %r1;
        st.release.cta.shared.u32 [%r4], %r1;
        bra end;
        reader:
        setp.ne.u32 %p3, %r1, 3;
        @%p3 bra end;
        wait:
        ld.acquire.cta.shared.u32 %r6, [%r4];
        setp.eq.u32 %p4, %r6, 0;
        @%p4 bra wait;
        ld.shared.u32 %r7, [%r4+16];
        end:",
        64,
    );
    // Each block has its own.
    let shape = LaunchConfig {
        grid: [5, 1, 1],
        ..line(64)
    };
    let body = "st.shared.u32 [%r5], %r1;";
    outcome(&kernel(body), shape, Config::default()).unwrap();
}
