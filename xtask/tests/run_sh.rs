//! The bundle's `run.sh`, with programs that stand in for the real ones: what it plans, and what it keeps of parts that fail or hang.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Stands in for `bitnet`: writes its arguments, and results where asked to.
const BITNET: &str = r#"#!/bin/sh
echo "$*" "commit=$BITNET_COMMIT"
while [ $# -gt 0 ]; do [ "$1" = --output ] && echo measured >"$2"; shift; done
"#;

fn bundle(folder: &Path, tests: &[(&str, &str)]) {
    let program = |path: &str, text: &str| {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    program("run.sh", include_str!("../src/bundle/run.sh"));
    program("bitnet", BITNET);
    for (name, text) in tests {
        program(&format!("tests/{name}"), text);
    }
    program("tests/integration", "#!/bin/sh\necho \"$*\"\n");
    fs::write(folder.join("modules"), "gemv gemv::a gemv::rows::b\n").unwrap();
    // Beside the programs, and none itself.
    program("tests/libfake_libcuda.so", "no program");
    fs::write(folder.join("COMMIT"), "abc").unwrap();
    let archive = folder.join("tests.tar.gz");
    let packed = Command::new("tar")
        .arg("-czf")
        .arg(archive)
        .arg("-C")
        .arg(folder)
        .args(["tests", "modules"])
        .status();
    assert!(packed.unwrap().success());
    fs::remove_dir_all(folder.join("tests")).unwrap();
    fs::remove_file(folder.join("modules")).unwrap();
}

/// From another folder, with `OUT` relative to that.
fn run(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(folder.join("run.sh"))
        .args(arguments)
        .current_dir(folder.parent().unwrap())
        .env("OUT", Path::new(folder.file_name().unwrap()).join("out"))
        .output()
        .unwrap()
}

fn parts(folder: &Path) -> Vec<(String, String)> {
    let run: Value =
        serde_json::from_str(&fs::read_to_string(folder.join("out/run.json")).unwrap()).unwrap();
    assert_eq!(run["commit"], "abc");
    let text = |part: &Value, field: &str| part[field].as_str().unwrap().to_owned();
    run["parts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| (text(part, "part"), text(part, "status")))
        .collect()
}

#[test]
fn the_plan_is_printed_and_nothing_runs() {
    let folder = tempfile::tempdir().unwrap();
    bundle(folder.path(), &[]);
    let output = run(folder.path(), &["--dry-run", "--seconds", "300"]);
    assert_eq!(output.status.code(), Some(0));
    let plan = String::from_utf8(output.stdout).unwrap();
    let names: Vec<&str> = plan
        .lines()
        .skip(1)
        .filter_map(|line| line.split(':').next())
        .collect();
    assert_eq!(names, ["info", "test-gemv", "compare", "bench"], "{plan}");
    assert!(
        plan.contains("bench: at most 150 s: bitnet bench --device cuda --time-limit 120"),
        "{plan}"
    );
    assert!(!folder.path().join("out").exists());
}

#[test]
fn a_part_that_fails_or_hangs_loses_nothing_of_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let tests = [
        (
            "a_fails",
            "#!/bin/sh\necho device $BITNET_TEST_DEVICE; echo broken >&2; exit 101\n",
        ),
        ("b_hangs", "#!/bin/sh\nexec sleep 1000\n"),
        ("c_passes", "#!/bin/sh\ntest -d tests\n"),
    ];
    bundle(folder.path(), &tests);
    let peer = folder.path().canonicalize().unwrap().join("COMMIT");
    // Relative to where the script is called.
    let name = Path::new(peer.parent().unwrap().file_name().unwrap()).join("COMMIT");
    let arguments = ["--seconds", "30", "--peer", name.to_str().unwrap()];
    let output = run(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(1));
    let expected = [
        ("info", "passed"),
        ("test-gemv", "passed"),
        ("test-a_fails", "failed"),
        ("test-b_hangs", "out of time"),
        ("test-c_passes", "passed"),
        ("compare", "passed"),
        ("bench", "passed"),
    ];
    assert_eq!(
        parts(folder.path()),
        expected.map(|(part, status)| (part.to_owned(), status.to_owned()))
    );
    let out = folder.path().join("out");
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    let part = |name: &str| {
        let mut tar = Command::new("tar");
        tar.arg("-xOf").arg(out.join("parts.tar")).arg(name);
        String::from_utf8(tar.output().unwrap().stdout).unwrap()
    };
    // A module's tests by name, and no others whose names contain it.
    assert_eq!(part("test-gemv.out"), "--exact gemv::a gemv::rows::b\n");
    assert_eq!(part("test-a_fails.out"), "device cuda\n");
    assert_eq!(part("test-a_fails.err"), "broken\n");
    for line in [
        "  test-a_fails.out: device cuda\n",
        "  test-a_fails.err: broken\n",
    ] {
        assert!(read("log.txt").contains(line), "{line}");
    }
    let bench = part("bench.out");
    assert!(bench.contains("--device cuda") && bench.contains("commit=abc"));
    assert!(bench.contains(&format!("--peer {}", peer.display())));
    assert_eq!(read("results.json"), "measured\n");
    assert!(read("compare.json").starts_with("compare --device cuda --json"));
    assert_eq!(fs::read_dir(&out).unwrap().count(), 5);
}

#[test]
fn only_what_is_asked_for_is_run() {
    for (only, expected) in [
        (&["tests"][..], &["info", "test-gemv"][..]),
        (&["compare"], &["info", "compare"]),
        (&["bench"], &["info", "bench"]),
        (&["bench", "tests"], &["info", "test-gemv", "bench"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        bundle(folder.path(), &[]);
        let arguments: Vec<&str> = only.iter().flat_map(|&part| ["--only", part]).collect();
        let output = run(folder.path(), &arguments);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let parts = parts(folder.path());
        let names: Vec<&str> = parts.iter().map(|(part, _)| part.as_str()).collect();
        assert_eq!(names, expected);
    }
}

#[test]
fn the_emulator_has_nothing_to_be_compared_with() {
    let folder = tempfile::tempdir().unwrap();
    bundle(
        folder.path(),
        &[("unit", "#!/bin/sh\ntest $BITNET_TEST_DEVICE = emulated\n")],
    );
    let output = run(folder.path(), &["--device", "emulated", "--seconds", "60"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let names: Vec<String> = parts(folder.path())
        .into_iter()
        .map(|(part, _)| part)
        .collect();
    assert_eq!(names, ["info", "test-gemv", "test-unit", "bench"]);
}

#[test]
fn wrong_usage_is_told() {
    let folder = tempfile::tempdir().unwrap();
    bundle(folder.path(), &[]);
    for arguments in [
        &["--seconds", "soon"][..],
        &["--seconds"],
        &["--seconds", "0"],
        &["--device", "tpu"],
        &["--only", "some"],
        &["--only"],
        &["--peer", "nowhere.so"],
        &["--peer"],
        &["--fast"],
    ] {
        let output = run(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            String::from_utf8(output.stderr).unwrap().contains("usage:"),
            "{arguments:?}"
        );
    }
}
