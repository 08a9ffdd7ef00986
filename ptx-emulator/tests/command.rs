//! `ptx-emu` as a user runs it.

use assert_cmd::Command;
use std::path::Path;

const PTX: &str = ".version 7.0
.target sm_75
.address_size 64
.visible .entry scale(.param .u64 x, .param .u64 y, .param .f32 factor, .param .u32 n)
{
.reg .pred %p<2>;
.reg .b32 %r<8>;
.reg .f32 %f<4>;
.reg .b64 %rd<8>;
ld.param.u64 %rd1, [x];
ld.param.u64 %rd2, [y];
ld.param.f32 %f1, [factor];
ld.param.u32 %r1, [n];
mov.u32 %r2, %ctaid.x;
mov.u32 %r3, %ntid.x;
mov.u32 %r4, %tid.x;
mad.lo.u32 %r5, %r2, %r3, %r4;
setp.ge.u32 %p1, %r5, %r1;
@%p1 exit;
mul.wide.u32 %rd3, %r5, 4;
add.s64 %rd4, %rd1, %rd3;
add.s64 %rd5, %rd2, %rd3;
ld.global.f32 %f2, [%rd4];
mul.f32 %f3, %f2, %f1;
st.global.f32 [%rd5], %f3;
ret;
}
";

fn command(folder: &Path) -> Command {
    let mut command = Command::cargo_bin("ptx-emu").unwrap();
    command.current_dir(folder);
    command
}

fn setup() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("k.ptx"), PTX).unwrap();
    let x: Vec<u8> = (0..100u16)
        .flat_map(|i| f32::from(i).to_le_bytes())
        .collect();
    std::fs::write(folder.path().join("x.bin"), x).unwrap();
    folder
}

/// What reads stdout may stop before everything is written, as `head` does.
#[test]
fn closed_stdout() {
    let folder = setup();
    for arguments in [
        &[&RUN[..], &["--arg", "u32:100"]].concat()[..],
        &["list", "k.ptx"],
        &["list", "k.ptx", "--json"],
        &["--help"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = std::process::Command::new(assert_cmd::cargo_bin!("ptx-emu"));
        let output = command
            .args(arguments)
            .current_dir(folder.path())
            .stdout(writer)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && errors.is_empty(),
            "{arguments:?}: {errors}"
        );
    }
}

const RUN: [&str; 14] = [
    "run",
    "k.ptx",
    "--entry",
    "scale",
    "--grid",
    "2,1,1",
    "--block",
    "64",
    "--arg",
    "buf:x.bin",
    "--arg",
    "out:400:y.bin",
    "--arg",
    "f32:0.5",
];

#[test]
fn runs_a_kernel() {
    let folder = setup();
    let output = command(folder.path())
        .args(RUN)
        .args(["--arg", "u32:100", "--profile"])
        .assert()
        .code(0)
        .get_output()
        .clone();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("ld.global.f32 %f2, [%rd4];"), "{text}");
    assert!(output.stderr.is_empty());
    let y: Vec<f32> = std::fs::read(folder.path().join("y.bin"))
        .unwrap()
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    let want: Vec<f32> = (0..100u16).map(|i| f32::from(i) / 2.0).collect();
    assert_eq!(y, want);
}

#[test]
fn prints_one_object() {
    let folder = setup();
    let output = command(folder.path())
        .args(RUN)
        .args(["--arg", "u32:100", "--json", "--profile"])
        .assert()
        .code(0)
        .get_output()
        .clone();
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(object["fault"].is_null());
    // 100 floats, in four requests.
    assert_eq!(object["counters"]["global"]["bytes_read"], 400);
    assert_eq!(object["counters"]["global"]["load_requests"], 4);
    assert_eq!(object["counters"]["global"]["load_sectors"], 13);
    assert!(object["lines"].as_array().unwrap().len() > 10);
    let list = command(folder.path())
        .args(["list", "k.ptx", "--json"])
        .assert()
        .code(0)
        .get_output()
        .clone();
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(list["entries"][0]["name"], "scale");
    assert_eq!(list["entries"][0]["params"][2]["size"], 4);
}

#[test]
fn a_fault_is_exit_1() {
    let folder = setup();
    // One element more than the buffers hold.
    let output = command(folder.path())
        .args(RUN)
        .args(["--arg", "u32:101", "--json"])
        .assert()
        .code(1)
        .get_output()
        .clone();
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object["fault"]["ptx_line"], 23);
    assert_eq!(object["fault"]["thread"], serde_json::json!([36, 0, 0]));
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(message.lines().count(), 1);
    assert!(message.contains("0 bytes past the end"), "{message}");
    assert!(!folder.path().join("y.bin").exists());
}

/// The exit status says what happened, also where stderr cannot be written to.
#[cfg(target_os = "linux")]
#[test]
fn full_stderr() {
    let folder = setup();
    let fault = [&RUN[..], &["--arg", "u32:101"]].concat();
    for (arguments, status) in [
        (&fault[..], 1),
        (&["list", "none.ptx"], 2),
        (&["unknown"], 2),
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let mut command = std::process::Command::new(assert_cmd::cargo_bin!("ptx-emu"));
        let output = command
            .args(arguments)
            .current_dir(folder.path())
            .stderr(full.unwrap())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}");
    }
}

#[test]
fn what_cannot_be_run_is_exit_2() {
    let folder = setup();
    std::fs::write(
        folder.path().join("bad.ptx"),
        PTX.replace("mul.f32", "mulx.f32"),
    )
    .unwrap();
    let base = [
        "run", "k.ptx", "--entry", "scale", "--grid", "1", "--block", "32",
    ];
    for (args, words) in [
        (
            vec![
                "run", "none.ptx", "--entry", "k", "--grid", "1", "--block", "1",
            ],
            "none.ptx",
        ),
        (
            vec![
                "run", "bad.ptx", "--entry", "k", "--grid", "1", "--block", "1",
            ],
            "line 24: `mulx.f32`",
        ),
        (base.to_vec(), "takes 4 arguments"),
        (
            [&base[..], &["--arg", "u32:x"]].concat(),
            "`x` is not a u32",
        ),
        ([&base[..], &["--arg", "u99:1"]].concat(), "`u99`"),
        ([&base[..], &["--arg", "5"]].concat(), "KIND:VALUE"),
        (
            [&base[..], &["--arg", "buf:missing.bin"]].concat(),
            "missing.bin",
        ),
        (
            [&base[..], &["--arg", "out:0:y.bin"]].concat(),
            "at least one byte",
        ),
        (
            [&base[..], &["--capability", "70"]].concat(),
            "k.ptx: the PTX is for sm_75",
        ),
        (
            [&base[..], &["--memory", "1000", "--arg", "out:2000:y.bin"]].concat(),
            "2000 bytes asked for, 1000 of 1000 bytes are free",
        ),
        (vec!["run", "k.ptx"], "--entry <ENTRY>"),
        (vec!["list", "k.ptx", "--all"], "'--all'"),
        (
            [&base[..], &["--check", "race"]].concat(),
            "`race` is not one of all",
        ),
        (vec!["run", "k.ptx", "--grid", "1,2,3,4"], "at most three"),
        (
            vec![
                "run", "k.ptx", "--entry", "other", "--grid", "1", "--block", "1",
            ],
            "the module has: scale",
        ),
        (
            [&base[..], &["--arg", "out:400:none/y.bin"]].concat(),
            "none/y.bin: there is no folder none",
        ),
        (
            [&base[..], &["--arg", "out:400:."]].concat(),
            "cannot write .: it is a folder",
        ),
        (
            vec![
                "run", "k.ptx", "--entry", "scale", "--grid", "0", "--block", "1",
            ],
            "grid x is 0",
        ),
    ] {
        let output = command(folder.path())
            .args(&args)
            .assert()
            .code(2)
            .get_output()
            .clone();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(message.contains(words), "{args:?}: {message}");
        assert!(output.stdout.is_empty());
    }
    command(folder.path()).arg("--help").assert().code(0);
}

/// What a kernel prints comes before the counts, or is in the object; a failed assertion is a fault.
#[test]
fn prints_what_the_kernel_prints() {
    let folder = setup();
    let ptx = include_str!("cuda/printf.ptx");
    std::fs::write(folder.path().join("printf.ptx"), ptx).unwrap();
    let values: Vec<u8> = [5i32, -3]
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    std::fs::write(folder.path().join("values.bin"), values).unwrap();
    let run = |entry: &str, last: &str, more: &[&str]| {
        command(folder.path())
            .args([
                "run",
                "printf.ptx",
                "--entry",
                entry,
                "--grid",
                "1",
                "--block",
                "2",
            ])
            .args(["--arg", "buf:values.bin", "--arg", last])
            .args(more)
            .output()
            .unwrap()
    };
    let first = "block 0 thread  0: 5, +0.625, 0x5, a%\n";
    let text = String::from_utf8(run("report", "u32:1", &[]).stdout).unwrap();
    assert!(text.starts_with(&format!("{first}instructions")), "{text}");
    let output = run("report", "u32:1", &["--json"]).stdout;
    let object: serde_json::Value = serde_json::from_slice(&output).unwrap();
    assert_eq!(object["printed"], first);
    let output = run("check", "s32:5", &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("assertion `value < limit` failed in printf.cu:16"),
        "{text}"
    );
}

/// Two warps that meet in shared memory without a barrier, and blocks that add to one word without an atomic.
const RACES: &str = ".version 7.0
.target sm_75
.address_size 64
.visible .entry races(.param .u64 sum, .param .u64 order)
{
.reg .pred %p<2>;
.reg .b32 %r<8>;
.reg .b64 %rd<8>;
ld.param.u64 %rd1, [sum];
ld.param.u64 %rd3, [order];
mov.u32 %r1, %tid.x;
setp.ne.u32 %p1, %r1, 0;
@%p1 exit;
atom.global.add.u32 %r2, [%rd1+4], 1;
mov.u32 %r3, %ctaid.x;
mul.wide.u32 %rd4, %r3, 4;
add.s64 %rd3, %rd3, %rd4;
st.global.u32 [%rd3], %r2;
ld.global.u32 %r4, [%rd1];
add.u32 %r4, %r4, 1;
st.global.u32 [%rd1], %r4;
ret;
}
";

#[test]
fn check_tries_many_orders() {
    let folder = setup();
    let path = folder.path();
    std::fs::write(path.join("races.ptx"), RACES).unwrap();
    std::fs::write(path.join("zeros.bin"), [0; 8]).unwrap();
    let check = |ptx: &str, json: bool| {
        std::fs::write(path.join("checked.ptx"), ptx).unwrap();
        let args = "check checked.ptx --entry races --grid 6 --block 64 --seeds 5 \
            --arg buf:zeros.bin --arg out:24:order.bin";
        let mut command = command(path);
        command.args(args.split_whitespace());
        if json {
            command.arg("--json");
        }
        command.output().unwrap()
    };
    let output = check(RACES, true);
    assert_eq!(output.status.code(), Some(1));
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object["orders"], 6);
    let findings = object["findings"].as_array().unwrap();
    assert!(!findings.is_empty());
    for finding in findings {
        assert!(
            finding["message"].as_str().unwrap().contains("race"),
            "{finding}"
        );
        let line = 1 + RACES
            .lines()
            .position(|line| line == "ld.global.u32 %r4, [%rd1];")
            .unwrap();
        assert_eq!(finding["ptx_line"], line);
        assert_eq!(finding["other"]["ptx_line"], line + 2);
        assert_eq!(finding["other"]["write"], true);
        assert_ne!(finding["other"]["block"], finding["block"]);
    }
    // An atomic sum has no race; which block gets which number still depends on the order.
    let atomic = RACES
        .replace("ld.global.u32 %r4, [%rd1];\nadd.u32 %r4, %r4, 1;\n", "")
        .replace("st.global.u32 [%rd1], %r4", "red.global.add.u32 [%rd1], 1");
    let output = check(&atomic, true);
    assert_eq!(output.status.code(), Some(1));
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object["findings"], serde_json::json!([]));
    assert_eq!(object["differences"].as_array().unwrap().len(), 1);
    assert_eq!(object["differences"][0]["argument"], 1);
    // Without the numbers nothing is left.
    let output = check(
        &atomic.replace("st.global.u32 [%rd3], %r2", "st.global.u32 [%rd3], 1"),
        false,
    );
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, "nothing found in 6 orders\n");
    // No file is written, and the ways to fail are those of `run`.
    assert!(!path.join("order.bin").exists());
    let missing = command(path)
        .args("check races.ptx --entry other --grid 1 --block 1".split_whitespace())
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn profiles_by_line_and_by_source_line() {
    let folder = setup();
    let scan = include_str!("cuda/scan.ptx");
    std::fs::write(folder.path().join("scan.ptx"), scan).unwrap();
    std::fs::write(folder.path().join("x.bin"), vec![0; 4 * 128]).unwrap();
    let run = |more: &[&str]| {
        let args = "run scan.ptx --entry inclusive_scan --grid 1 --block 128 --arg buf:x.bin \
            --arg out:512:y.bin --profile";
        let output = command(folder.path())
            .args(args.split_whitespace())
            .args(more)
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let text = run(&[]);
    let head = text.find("PTX line").unwrap();
    assert!(text[head..].contains("source line"), "{text}");
    assert!(text[head..].contains("scan.cu:"), "{text}");
    // The first column of sectors adds up to what was moved: 512 bytes in, 512 out.
    let object: serde_json::Value = serde_json::from_str(&run(&["--json"])).unwrap();
    for table in ["lines", "sources"] {
        let rows = object[table].as_array().unwrap();
        let sectors: u64 = rows
            .iter()
            .map(|row| row["sectors"].as_u64().unwrap())
            .sum();
        assert_eq!(sectors, 32, "{table}");
    }
}
