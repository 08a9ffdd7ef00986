//! Races in global memory between blocks that could be ordered.

use ptx_emulator::Config;

use super::between_blocks::{cooperative, grid, other, silent_in};
use super::{fault_with, kernel, outcome};

/// The last block to finish adds up what all have written, as in CUDA's threadFenceReduction sample.
fn last_block(write: &str, fence: &str, atomic: &str, fence_after: &str, mark: &str) -> String {
    format!(
        "setp.ne.u32 %p1, %r1, 0;
        @%p1 bra end;
        mul.wide.u32 %rd4, %r2, 4;
        add.s64 %rd4, %rd1, %rd4;
        {write} [%rd4+64], %r2;
        {fence}
        {atomic} %r6, [%rd1], 1;
        {fence_after}
        mov.u32 %r7, %nctaid.x;
        sub.u32 %r7, %r7, 1;
        setp.ne.u32 %p2, %r6, %r7;
        @%p2 bra end;
        mov.u32 %r8, 0;
        mov.u64 %rd5, %rd1;
        more:
        {mark} ld.global.u32 %r9, [%rd5+64];
        add.s64 %rd5, %rd5, 4;
        add.u32 %r8, %r8, 1;
        setp.le.u32 %p3, %r8, %r7;
        @%p3 bra more;
        end:"
    )
}

#[test]
fn last_block_reduction() {
    let relaxed = "atom.global.add.u32";
    for (fence, atomic, after) in [
        ("membar.gl;", relaxed, "membar.gl;"),
        (
            "fence.acq_rel.gpu;",
            "atom.relaxed.sys.global.add.u32",
            "fence.sc.sys;",
        ),
        ("", "atom.acq_rel.gpu.global.add.u32", ""),
        ("membar.gl;", "atom.acquire.gpu.global.add.u32", ""),
    ] {
        silent_in(
            &last_block("st.global.u32", fence, atomic, after, ""),
            grid(9, 32),
        );
    }
    // What is volatile does not race with what is volatile only.
    for (fence, atomic, after) in [
        ("", relaxed, ""),
        ("", relaxed, "membar.gl;"),
        ("membar.gl;", relaxed, ""),
        ("membar.cta;", relaxed, "membar.gl;"),
        ("membar.gl;", relaxed, "membar.cta;"),
        ("", "atom.release.gpu.global.add.u32", ""),
        ("", "atom.acq_rel.cta.global.add.u32", ""),
    ] {
        let broken = last_block("st.global.u32", fence, atomic, after, "/*!*/");
        let found = match (fence, atomic.contains(".cta")) {
            // An atomic of block scope races with those of other blocks itself.
            (_, true) => match outcome(&kernel(&broken), grid(9, 32), Config::default()) {
                Err(ptx_emulator::LaunchError::Fault(found)) => *found,
                outcome => panic!("{outcome:?}"),
            },
            _ => fault_with(&broken, grid(9, 32), Config::default()),
        };
        assert!(other(&found).write, "{found}");
    }
    // A fence does not cover what comes after it.
    let late = last_block(
        "membar.gl; st.global.u32",
        "",
        relaxed,
        "membar.gl;",
        "/*!*/",
    );
    let found = fault_with(&late, grid(9, 32), Config::default());
    assert!(other(&found).write, "{found}");
}

/// One block writes data and then a flag; another one waits for the flag.
fn flag(order_writer: &str, set: &str, get: &str, order_reader: &str, mark: &str) -> String {
    format!(
        "setp.ne.u32 %p1, %r1, 0;
        @%p1 bra end;
        setp.ne.u32 %p2, %r2, 0;
        @%p2 bra reader;
        st.global.u32 [%rd1+64], 5;
        {order_writer}
        {set} [%rd1], 1;
        bra end;
        reader:
        {get} %r6, [%rd1];
        setp.eq.u32 %p3, %r6, 0;
        @%p3 bra reader;
        {order_reader}
        {mark} ld.global.u32 %r7, [%rd1+64];
        end:"
    )
}

#[test]
fn flags() {
    for (before, set, get, after) in [
        (
            "",
            "st.release.gpu.global.u32",
            "ld.acquire.gpu.global.u32",
            "",
        ),
        (
            "membar.gl;",
            "st.volatile.global.u32",
            "ld.volatile.global.u32",
            "membar.gl;",
        ),
        (
            "fence.acq_rel.gpu;",
            "st.relaxed.gpu.global.u32",
            "ld.acquire.sys.global.u32",
            "",
        ),
        (
            "",
            "red.release.gpu.global.add.u32",
            "ld.acquire.gpu.global.u32",
            "",
        ),
    ] {
        silent_in(&flag(before, set, get, after, ""), cooperative(4, 32));
    }
    for (before, set, get, after) in [
        ("", "st.volatile.global.u32", "ld.volatile.global.u32", ""),
        (
            "",
            "st.relaxed.gpu.global.u32",
            "ld.acquire.gpu.global.u32",
            "",
        ),
        (
            "",
            "st.release.gpu.global.u32",
            "ld.relaxed.gpu.global.u32",
            "",
        ),
        (
            "membar.cta;",
            "st.volatile.global.u32",
            "ld.volatile.global.u32",
            "membar.gl;",
        ),
    ] {
        let body = flag(before, set, get, after, "/*!*/");
        let found = fault_with(&body, cooperative(2, 32), Config::default());
        assert_eq!((found.block, other(&found).block), ([1, 0, 0], [0, 0, 0]));
    }
}

/// A store of another block ends what a location carries.
#[test]
fn a_plain_flag_passes_nothing_on() {
    let body = "setp.ne.u32 %p1, %r1, 0;
        @%p1 bra end;
        setp.eq.u32 %p2, %r2, 1;
        @%p2 bra middle;
        setp.eq.u32 %p2, %r2, 2;
        @%p2 bra reader;
        st.global.u32 [%rd1+64], 5;
        st.release.gpu.global.u32 [%rd1], 1;
        bra end;
        middle:
        ld.relaxed.gpu.global.u32 %r6, [%rd1];
        setp.ne.u32 %p3, %r6, 1;
        @%p3 bra middle;
        st.relaxed.gpu.global.u32 [%rd1], 2;
        bra end;
        reader:
        ld.acquire.gpu.global.u32 %r6, [%rd1];
        setp.ne.u32 %p3, %r6, 2;
        @%p3 bra reader;
        /*!*/ ld.global.u32 %r7, [%rd1+64];
        end:";
    fault_with(body, cooperative(3, 32), Config::default());
    // A block that acquires and releases passes on what it learnt.
    let chained = body
        .replace("/*!*/", "")
        .replace("ld.relaxed", "ld.acquire")
        .replace("st.relaxed", "st.release");
    silent_in(&chained, cooperative(3, 32));
    // Or does both by a fence, which has to be one for both.
    let fenced = |fence: &str| {
        let set = "st.relaxed.gpu.global.u32 [%rd1], 2;";
        body.replace(set, &format!("{fence} {set}"))
    };
    silent_in(
        &fenced("fence.acq_rel.gpu;").replace("/*!*/", ""),
        cooperative(3, 32),
    );
    for fence in ["fence.acquire.gpu;", "fence.release.gpu;"] {
        fault_with(&fenced(fence), cooperative(3, 32), Config::default());
    }
    // So does an atomic, whoever it is by.
    let atomic = body.replace("/*!*/", "").replace(
        "st.relaxed.gpu.global.u32 [%rd1], 2",
        "red.relaxed.gpu.global.add.u32 [%rd1], 1",
    );
    silent_in(&atomic, cooperative(3, 32));
}

/// All blocks wait for each other, twice, as cooperative groups do.
#[test]
fn grid_barriers() {
    let barrier = |round: u32, fence: &str| {
        format!(
            "bar.sync 0;
            setp.ne.u32 %p1, %r1, 0;
            @%p1 bra over{round};
            {fence}
            atom.global.add.u32 %r6, [%rd1], 1;
            mov.u32 %r7, %nctaid.x;
            mul.lo.u32 %r7, %r7, {round};
            wait{round}:
            ld.volatile.global.u32 %r6, [%rd1];
            setp.lt.u32 %p2, %r6, %r7;
            @%p2 bra wait{round};
            {fence}
            over{round}:
            bar.sync 0;"
        )
    };
    let exchange = |fence: &str, mark: &str| {
        format!(
            "mov.u32 %r10, %nctaid.x;
            mad.lo.u32 %r8, %r2, 16, %r1;
            mul.wide.u32 %rd4, %r8, 4;
            add.s64 %rd4, %rd1, %rd4;
            setp.ge.u32 %p3, %r1, 16;
            @!%p3 st.global.u32 [%rd4+64], %r2;
            {}
            add.u32 %r9, %r2, 1;
            rem.u32 %r9, %r9, %r10;
            mad.lo.u32 %r9, %r9, 16, %r1;
            mul.wide.u32 %rd5, %r9, 4;
            add.s64 %rd5, %rd1, %rd5;
            {mark} @!%p3 ld.global.u32 %r11, [%rd5+64];
            {}
            @!%p3 st.global.u32 [%rd4+64], %r11;",
            barrier(1, fence),
            barrier(2, fence),
        )
    };
    silent_in(&exchange("membar.gl;", ""), cooperative(5, 64));
    fault_with(
        &exchange("", "/*!*/"),
        cooperative(5, 64),
        Config::default(),
    );
}

/// Who has seen what an atomic or a flag wrote may write there plainly, without any fence: the last block resets the counter.
#[test]
fn what_was_seen_comes_before() {
    let reset = |first: &str| {
        format!(
            "setp.ne.u32 %p1, %r1, 0;
            @%p1 bra end;
            {first} %r6, [%rd1], 1;
            mov.u32 %r7, %nctaid.x;
            sub.u32 %r7, %r7, 1;
            setp.ne.u32 %p2, %r6, %r7;
            @%p2 bra end;
            st.global.u32 [%rd1], 0;
            end:"
        )
    };
    silent_in(&reset("atom.global.add.u32"), grid(20, 32));
    silent_in(
        &flag(
            "",
            "st.volatile.global.u32",
            "ld.volatile.global.u32",
            "",
            "",
        )
        .replace("ld.global.u32 %r7, [%rd1+64]", "st.global.u32 [%rd1], 0"),
        cooperative(2, 32),
    );
    // Seen before it was written.
    let early = "setp.ne.u32 %p2, %r2, 0;
        @%p2 bra second;
        ld.volatile.global.u32 %r6, [%rd1];
        st.volatile.global.u32 [%rd1+64], 1;
        wait: ld.volatile.global.u32 %r6, [%rd1+128]; setp.eq.u32 %p3, %r6, 0; @%p3 bra wait;
        /*!*/ st.global.u32 [%rd1], 7;
        bra end;
        second:
        ld.volatile.global.u32 %r6, [%rd1+64]; setp.eq.u32 %p3, %r6, 0; @%p3 bra second;
        st.volatile.global.u32 [%rd1], 1;
        st.volatile.global.u32 [%rd1+128], 1;
        end:";
    let found = fault_with(early, cooperative(2, 1), Config::default());
    assert_eq!(other(&found).block, [1, 0, 0]);
    silent_in(
        &early.replace("/*!*/", "ld.volatile.global.u32 %r6, [%rd1];"),
        cooperative(2, 1),
    );
}
