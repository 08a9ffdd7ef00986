//! What a user of the library has to build: nothing that only the commands need.

use std::collections::BTreeSet;
use std::process::Command;

/// Names of the packages that a build of `bitnet-cuda` takes.
fn packages(features: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--package", "bitnet-cuda"])
        .args(["--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(features)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_library_does_without_the_command_line() {
    let (library, command) = (packages(&["--no-default-features"]), packages(&[]));
    assert!(library.contains("ptx-emulator"), "{library:?}");
    for name in ["anyhow", "clap", "indicatif", "tracing-subscriber"] {
        assert!(command.contains(name), "{name} is not a dependency at all");
        assert!(!library.contains(name), "{name} is still there");
    }
}
