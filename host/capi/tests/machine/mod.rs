//! What the tests need of the machine: the built libraries, a C compiler, valgrind.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

pub const HEADER: &str = include_str!("../../include/bitnet.h");

/// Cargo builds the libraries beside the test program.
fn beside(file: &str) -> PathBuf {
    let mut path = env::current_exe().expect("the test program has a path");
    path.set_file_name(file);
    assert!(
        path.exists(),
        "{} is not there: build the whole package",
        path.display()
    );
    path
}

/// The library under test.
pub fn library() -> PathBuf {
    beside("libbitnet.so")
}

/// The test double of the CUDA driver.
pub fn fake_driver() -> PathBuf {
    beside("libfake_libcuda.so")
}

/// Runs a command that has to succeed.
pub fn run(command: &mut Command) {
    print!("{}", output(command));
}

/// What a command that has to succeed prints.
pub fn output(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; this test needs that program"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{stdout}\n{stderr}",
        output.status
    );
    stdout
}

/// The C program in `tests/c`, compiled and linked with the library.
pub fn c_program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c");
        let mut sources: Vec<PathBuf> = sources
            .read_dir()
            .expect("the sources are there")
            .map(|entry| entry.expect("the folder can be read").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
            .collect();
        sources.sort();
        compile("tests", &sources)
    });
    &PROGRAM
}

/// A source file of this text, where cargo lets tests write.
pub fn write_source(name: &str, text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).expect("the folder can be written");
    path
}

/// Compiles a C program and links it with the library.
pub fn compile(name: &str, sources: &[PathBuf]) -> PathBuf {
    let library = library();
    let libraries = library.parent().expect("a file is in a folder");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // No fused multiply-adds: the reference in C rounds as the header says.
    run(Command::new("cc")
        .args([
            "-std=gnu11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-O1",
            "-g",
            "-ffp-contract=off",
        ])
        .args(
            env::var("BITNET_TEST_CFLAGS")
                .iter()
                .flat_map(|flags| flags.split_whitespace()),
        )
        .args(["-I", concat!(env!("CARGO_MANIFEST_DIR"), "/include")])
        .args(sources)
        .arg("-o")
        .arg(&program)
        .arg("-L")
        .arg(libraries)
        // As RPATH, which comes before LD_LIBRARY_PATH: cargo's may name a folder with an older build.
        .args(["-lbitnet", "-lm", "-ldl", "-Wl,--disable-new-dtags"])
        .arg(format!("-Wl,-rpath,{}", libraries.display())));
    program
}

/// valgrind, set to fail on an error or a leak; `None`, with a line that says so, where it is not installed.
pub fn valgrind() -> Option<Command> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("skipped: valgrind is not installed");
        return None;
    }
    let suppressions = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/valgrind.supp");
    let mut command = Command::new("valgrind");
    command.args([
        "--quiet",
        "--error-exitcode=99",
        "--leak-check=full",
        "--show-leak-kinds=definite,indirect,possible",
    ]);
    command.args(["--errors-for-leak-kinds=definite,indirect,possible"]);
    command.arg(format!("--suppressions={suppressions}"));
    Some(command)
}
