//! Matrix instructions: all lanes of the warp must be there, and what they read must be sound.

use super::{fault, fault_with, outcome, silent};
use crate::harness::line;
use ptx_emulator::{Checks, Config, FaultKind};

const MULTIPLY: &str =
    "mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%r6, %r7}, {%r1}, {%r1}, {%r1, %r1};";
const LOAD: &str = "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r6, %r7},";
/// Each lane writes the 16 bytes at `%r8`.
const ROW: &str = "mad.lo.u32 %r8, %r1, 16, %r4;
st.shared.v4.u32 [%r8], {%r1, %r1, %r1, %r1};";
const WAIT: &str = "bar.warp.sync -1;";

#[test]
fn missing_lanes() {
    silent(MULTIPLY, 64);
    let last = "setp.lt.u32 %p1, %r1, 31;";
    let missing = FaultKind::InactiveLane { lane: 31 };
    for instruction in [
        MULTIPLY,
        "movmatrix.sync.aligned.m8n8.trans.b16 %r6, %r1;",
        "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r6}, [%r4];",
        "stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r4], {%r1};",
    ] {
        // A lane that goes another way, has exited, or never was.
        let apart = format!("{last}\n@%p1 {instruction} /*!*/");
        assert_eq!(fault(&apart, 32).kind, missing);
        let exited = format!("{last}\n@!%p1 exit;\n{instruction} /*!*/");
        assert_eq!(fault(&exited, 32).kind, missing);
        assert_eq!(fault(&format!("{instruction} /*!*/"), 31).kind, missing);
    }
}

#[test]
fn what_was_never_written() {
    let unwritten = MULTIPLY.replacen("{%r1}", "{%r9}", 1);
    assert_eq!(
        fault(&format!("{unwritten} /*!*/"), 32).kind,
        FaultKind::UninitializedRegister {
            register: "%r9".into()
        }
    );
    assert_eq!(
        fault(&format!("{LOAD} [%r4]; /*!*/"), 32).kind,
        FaultKind::UninitializedMemory { size: 16 }
    );
}

#[test]
fn bad_addresses() {
    silent(&format!("{ROW} {WAIT} {LOAD} [%r8];"), 32);
    for (address, kind) in [
        ("[%r8+8]", FaultKind::Misaligned { required: 16 }),
        ("[%r8+1024]", FaultKind::OutOfBounds { size: 16 }),
    ] {
        let body = format!("{ROW} {WAIT}\n{LOAD} {address}; /*!*/");
        assert_eq!(fault(&body, 32).kind, kind);
    }
    // The addresses of lanes that provide none do not matter.
    let wild = "setp.lt.u32 %p2, %r1, 16; @!%p2 mov.u32 %r8, 3;";
    silent(&format!("{ROW} {WAIT} {wild} {LOAD} [%r8];"), 32);
    let global = "ldmatrix.sync.aligned.m8n8.x1.b16 {%r6}, [%rd1]; /*!*/";
    assert!(matches!(
        fault(&format!("{ROW}\n{global}"), 32).kind,
        FaultKind::InvalidOperand { .. }
    ));
}

/// A lane reads what its neighbours wrote, with nothing between.
#[test]
fn races() {
    let body = format!("{ROW} xor.b32 %r8, %r8, 16;\n{LOAD} [%r8]; /*!*/");
    let found = fault_with(&body, line(32), Config::default());
    assert!(matches!(found.kind, FaultKind::SharedRace { .. }));
}

/// With checks off, a bad address loads nothing.
#[test]
fn unchecked_rows_are_left_out() {
    let body = format!(
        "{ROW}
setp.eq.u32 %p2, %r1, 0;
@%p2 mov.u32 %r8, 8000;
ldmatrix.sync.aligned.m8n8.x1.shared.b16 {{%r6}}, [%r8];
st.global.u32 [%rd3], %r6;"
    );
    let config = Config {
        checks: Checks::NONE,
        ..Config::default()
    };
    let output = outcome(&super::kernel(&body), line(32), config).unwrap();
    // Row `r` is lane `r`'s number, twice in each of four words; lane 0's is missing.
    let want: Vec<u32> = (0..32).map(|lane| lane / 4).collect();
    assert_eq!(output[..32], want);
}
