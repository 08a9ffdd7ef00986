//! A process that finds no driver.

use std::process::Command;

use cust_lazy::{LIBRARY_VARIABLE, LoadError};

/// Set in the child processes that the tests below start.
const CHILD: &str = "CUST_LAZY_TEST_CHILD";

/// Runs the ignored test `child` in a process of its own, with the library that it is to load.
fn run_child(library: &str) -> String {
    run_child_with(library, &[])
}

fn run_child_with(library: &str, variables: &[(&str, &str)]) -> String {
    // Where the system's loader looks first: a machine with a driver has none here either.
    let no_driver = concat!(env!("CARGO_TARGET_TMPDIR"), "/no-driver");
    std::fs::create_dir_all(no_driver).expect("the folder is the tests'");
    std::fs::write(format!("{no_driver}/libcuda.so.1"), "no library").expect("it is a new file");
    let output = Command::new(std::env::current_exe().expect("the test program has a path"))
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(LIBRARY_VARIABLE, library)
        .env("LD_LIBRARY_PATH", no_driver)
        .env(CHILD, "1")
        .envs(variables.iter().copied())
        .output()
        .expect("the test program runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

#[test]
#[ignore = "started by the other tests, with an environment of its own"]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    // Before anything was loaded, and with arguments of every kind of function.
    assert_eq!(
        cust::quick_init().unwrap_err(),
        cust::error::CudaError::NoDevice
    );
    assert_eq!(
        cust::CudaApiVersion::get().unwrap_err(),
        cust::error::CudaError::NoDevice
    );
    assert_eq!(
        cust::error::CudaError::NoDevice.to_string(),
        "\"no CUDA-capable device is detected\""
    );
    assert_eq!(cust_lazy::error_name(100), "CUDA_ERROR_NO_DEVICE");
    let error = cust_lazy::load().expect_err("there is no driver");
    assert_eq!(cust_lazy::load(), Err(error.clone()));
    assert_eq!(
        cust_lazy::load_from("elsewhere.so"),
        Err(LoadError::AlreadyLoaded {
            library: "elsewhere.so".into()
        })
    );
    assert_eq!(
        cust::quick_init().unwrap_err(),
        cust::error::CudaError::NoDevice
    );
    println!("error: {error}");
    println!("remedy: {}", error.remedy());
}

#[test]
fn a_missing_library_is_named() {
    let text = run_child("/nowhere/libcuda.so.1");
    assert!(
        text.contains("error: cannot open the CUDA driver /nowhere/libcuda.so.1: "),
        "{text}"
    );
    assert!(text.contains("No such file"), "{text}");
    assert!(text.contains("remedy: unset CUST_LAZY_LIBCUDA"), "{text}");
}

#[test]
fn an_empty_name_is_none() {
    let text = run_child("");
    assert!(
        text.contains("error: cannot open the CUDA driver libcuda.so.1: "),
        "{text}"
    );
    assert!(text.contains("remedy: install"), "{text}");
}

#[test]
fn a_file_that_is_no_library_is_an_error() {
    let text = run_child(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    assert!(
        text.contains("error: cannot open the CUDA driver "),
        "{text}"
    );
}

#[test]
fn a_library_that_is_no_driver_is_an_error() {
    let text = run_child("libc.so.6");
    assert!(
        text.contains("error: libc.so.6 is not a CUDA driver: it has no function cuInit"),
        "{text}"
    );
    assert!(text.contains("remedy: unset CUST_LAZY_LIBCUDA"), "{text}");
}

#[test]
fn a_driver_that_does_not_start_is_none() {
    // Cargo builds the test double beside the test program. `cust_raw` does not know the code.
    let mut library = std::env::current_exe().expect("the test program has a path");
    library.set_file_name("libfake_libcuda.so");
    let text = run_child_with(
        library.to_str().expect("UTF-8"),
        &[("FAKE_CUDA_INIT", "46")],
    );
    assert!(text.contains("does not start: cuInit returned"), "{text}");
    assert!(text.contains("(46)"), "{text}");
}

#[test]
fn the_program_does_not_link_libcuda() {
    let mapped = std::fs::read_to_string("/proc/self/maps").expect("Linux has it");
    assert!(mapped.contains("libc.so"), "{mapped}");
    assert!(!mapped.contains("libcuda"), "{mapped}");
}
