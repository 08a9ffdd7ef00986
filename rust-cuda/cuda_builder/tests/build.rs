//! `CudaBuilder` as its users meet it: same input, same bytes; and errors that say what is wrong.

mod machine;

use std::fs;
use std::path::{Path, PathBuf};

use cuda_builder::{CudaBuilder, CudaBuilderError};

/// A kernel crate in a folder of its own.
fn kernel_crate(folder: &Path, body: &str) {
    let cuda_std = machine::workspace().join("rust-cuda/cuda_std");
    let manifest = format!(
        "[package]\nname = \"crate-under-test\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [dependencies]\ncuda_std = {{ path = {cuda_std:?} }}\n\n[workspace]\n"
    );
    // The lines that cuda_std's documentation says a kernel crate starts with.
    let documentation = fs::read_to_string(cuda_std.join("src/lib.rs")).expect("readable");
    let header: String = documentation
        .lines()
        .skip_while(|line| *line != "//! ```ignore")
        .skip(1)
        .take_while(|line| *line != "//! ```")
        .map(|line| format!("{}\n", line.trim_start_matches("//! ")))
        .collect();
    let source = format!(
        "{header}#[kernel]\npub unsafe fn halves(x: *const f32, y: *mut f32, n: u32) {{\n{body}\n}}\n"
    );
    fs::create_dir_all(folder.join("src")).expect("writable");
    fs::write(folder.join("Cargo.toml"), manifest).expect("writable");
    fs::write(folder.join("src/lib.rs"), source).expect("writable");
}

/// Bounds checks bring functions of `core` along, and `file!()` a path: what could tell one machine's build from
/// another's.
const CHECKED: &str = "
    let x = unsafe { core::slice::from_raw_parts(x, n as usize) };
    let i = thread::index_1d() as usize;
    let (low, high) = x.split_at(i * 2);
    let value: Option<&f32> = high.iter().find(|v| **v > low[i]);
    let path = file!().as_bytes()[i];
    unsafe { *y.add(i) = *value.unwrap() + f32::from(path) };";

#[test]
fn the_same_sources_give_the_same_bytes_wherever_they_lie() {
    let Some(compiler) = machine::compiler() else {
        return;
    };
    let first = tempfile::tempdir().expect("a temporary folder");
    let second = tempfile::Builder::new()
        .prefix("another-longer-name")
        .tempdir()
        .expect("a temporary folder");
    let second = second.path().join("deeper/still");
    let build = |folder: &Path, target: &Path| {
        kernel_crate(folder, CHECKED);
        let copy = folder.join("copied/kernels.ptx");
        let output = CudaBuilder::new(folder)
            .compiler(compiler.clone())
            .target_dir(target)
            .copy_to(&copy)
            .build()
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(output.ptx, copy);
        assert_eq!(output.entries, ["halves"]);
        fs::read_to_string(copy).expect("written")
    };
    let texts = [
        build(first.path(), &machine::scratch()),
        build(&second, &second.join("target")),
    ];
    assert_eq!(texts[0], texts[1]);
    assert!(
        texts[0].contains("panic"),
        "nothing of core is in it, so the test shows nothing"
    );
    for path in [
        first.path(),
        &second,
        machine::workspace(),
        compiler.sysroot(),
    ] {
        let path = path.to_str().expect("UTF-8");
        assert!(!texts[0].contains(path), "`{path}` is in the PTX");
    }
}

#[test]
fn a_kernel_that_does_not_compile_shows_rustcs_message() {
    let Some(compiler) = machine::compiler() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    kernel_crate(folder.path(), "unsafe { *y = x }");
    let built = CudaBuilder::new(folder.path())
        .compiler(compiler)
        .target_dir(machine::scratch())
        .build();
    let error = built.expect_err("a pointer is no f32");
    assert!(matches!(error, CudaBuilderError::Compile { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("crate-under-test does not compile for sm_75"),
        "{text}"
    );
    assert!(
        text.contains("mismatched types") && text.contains("src/lib.rs:5"),
        "{text}"
    );
}

#[test]
fn a_function_of_a_newer_architecture_is_an_error_that_names_it() {
    let Some(compiler) = machine::compiler() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    kernel_crate(
        folder.path(),
        "unsafe { *y = warp::warp_reduce_add_u32(warp::FULL_MASK, n) as f32 }",
    );
    let built = CudaBuilder::new(folder.path())
        .compiler(compiler)
        .target_dir(machine::scratch())
        .build();
    let text = built.expect_err("redux.sync needs sm_80").to_string();
    assert!(
        text.contains("cannot find function `warp_reduce_add_u32`"),
        "{text}"
    );
    assert!(text.contains("target_feature = \"sm_80\""), "{text}");
}

#[test]
fn a_warning_about_the_kernels_is_passed_on() {
    let Some(compiler) = machine::compiler() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    kernel_crate(folder.path(), "let unused = n;");
    let built = CudaBuilder::new(folder.path())
        .compiler(compiler)
        .target_dir(machine::scratch())
        .build();
    let output = built.unwrap_or_else(|error| panic!("{error}"));
    assert!(
        output
            .warnings
            .iter()
            .any(|warning| warning.contains("unused variable: `unused`"))
    );
    assert!(
        output
            .warnings
            .iter()
            .all(|warning| !warning.contains("-Ctarget-feature"))
    );
}

#[test]
fn profiles_of_single_packages_do_not_change_the_ptx() {
    let Some(compiler) = machine::compiler() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    kernel_crate(folder.path(), "unsafe { *y = (*x as u32 + n) as f32 }");
    let build = || {
        let output = CudaBuilder::new(folder.path())
            .compiler(compiler.clone())
            .target_dir(machine::scratch())
            .build()
            .unwrap_or_else(|error| panic!("{error}"));
        fs::read_to_string(output.ptx).expect("written")
    };
    let plain = build();
    let manifest = folder.path().join("Cargo.toml");
    let mut text = fs::read_to_string(&manifest).expect("written");
    text.push_str(
        "[profile.release.package.crate-under-test]\noverflow-checks = true\nopt-level = 1\n\
         [profile.release.package.cuda_std]\noverflow-checks = true\n",
    );
    fs::write(manifest, text).expect("writable");
    assert_eq!(build(), plain);
}

#[test]
fn the_sources_are_those_of_the_crate_and_of_what_it_depends_on() {
    let Some(compiler) = machine::compiler() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    kernel_crate(folder.path(), "unsafe { *y = *x + n as f32 }");
    // Relative to this process's folder, which is not that of rustc.
    let here = std::env::current_dir().expect("there is one");
    let mut scratch: PathBuf = here.components().skip(1).map(|_| "..").collect();
    scratch.extend(machine::scratch().components().skip(1));
    let output = CudaBuilder::new(folder.path())
        .compiler(compiler)
        .target_dir(scratch)
        .build()
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(output.ptx.is_file());
    for file in [
        folder.path().join("Cargo.toml"),
        folder.path().join("Cargo.lock"),
        folder.path().join("src/lib.rs"),
        machine::workspace().join("rust-cuda/cuda_std/src/thread.rs"),
        machine::workspace().join("rust-cuda/cuda_std_macros/src/kernel.rs"),
    ] {
        let canonical = file.canonicalize().expect("there");
        assert!(
            output.sources.contains(&file) || output.sources.contains(&canonical),
            "{} is not in {:?}",
            file.display(),
            output.sources
        );
    }
}

#[test]
fn a_folder_without_a_crate_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let error = CudaBuilder::new(folder.path().join("nowhere"))
        .build()
        .expect_err("no crate");
    assert!(matches!(error, CudaBuilderError::NoCrate { .. }), "{error}");
    assert!(error.to_string().contains("nowhere"), "{error}");

    fs::write(folder.path().join("Cargo.toml"), "[workspace]\n").expect("writable");
    let error = CudaBuilder::new(folder.path())
        .build()
        .expect_err("no package");
    assert!(matches!(error, CudaBuilderError::NoCrate { .. }), "{error}");
}
