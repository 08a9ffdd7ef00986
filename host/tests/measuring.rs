//! `bitnet bench` and `bitnet compare`: on the emulator, and through the driver's interface on the test double of libcuda.

use kernel_benches::{Case, LAUNCHED_EARLY, Results};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The driver that a run gets.
#[derive(Clone, Copy)]
enum Driver {
    None,
    /// Times that it gives mean nothing; what is tested is the way that they are taken.
    Double,
}

fn bitnet(driver: Driver, arguments: &[&str]) -> Output {
    command(driver, arguments).output().unwrap()
}

fn command(driver: Driver, arguments: &[&str]) -> Command {
    let library = match driver {
        Driver::None => PathBuf::from("no-such-libcuda.so"),
        // Cargo builds the dependency beside the test program.
        Driver::Double => std::env::current_exe()
            .unwrap()
            .with_file_name("libfake_libcuda.so"),
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitnet"));
    command
        .args(arguments)
        .env("CUST_LAZY_LIBCUDA", library)
        .env_remove("BITNET_COMMIT");
    command
}

fn stdout(driver: Driver, arguments: &[&str]) -> String {
    let output = bitnet(driver, &[arguments, &["--json"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn bench(driver: Driver, arguments: &[&str]) -> Results {
    Results::from_json(&stdout(driver, &[&["bench"], arguments].concat())).unwrap()
}

fn refusal(driver: Driver, arguments: &[&str]) -> String {
    let output = bitnet(driver, arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    stderr
}

/// The variants of each product.
fn products(results: &Results) -> Vec<Vec<&Case>> {
    let mut groups: Vec<Vec<&Case>> = Vec::new();
    for case in results.cases.iter().filter(|case| case.op == "gemv") {
        let same =
            |group: &Vec<&Case>| (group[0].m, group[0].n, group[0].k) == (case.m, case.n, case.k);
        match groups.iter_mut().find(|group| same(group)) {
            Some(group) => group.push(case),
            None => groups.push(vec![case]),
        }
    }
    groups
}

#[test]
fn the_emulator_gives_counts_and_no_times() {
    let results = bench(
        Driver::None,
        &["--device", "emulated", "--seed", "1", "--commit", "abc"],
    );
    assert_eq!(
        (results.device.kind.as_str(), results.method.seed),
        ("emulated", 1)
    );
    assert_eq!(results.commit.as_deref(), Some("abc"));
    assert!(results.not_run.is_empty(), "{:?}", results.not_run);
    assert!(results.ceilings.is_none() && results.pairs.is_empty());
    for case in &results.cases {
        assert_eq!(case.mismatches, 0, "{case:?}");
        assert!(
            case.checked > 0 && case.time().is_none() && !case.best,
            "{case:?}"
        );
        let counts = case.counts.unwrap();
        // Each input is read and each output written, at least once; what is read twice is small beside the weights.
        let bytes = counts.bytes_read + counts.bytes_written;
        assert!(
            bytes as usize >= case.bytes / 2 && counts.warp_instructions > 0,
            "{case:?}"
        );
    }
    let products = products(&results);
    assert_eq!(products.len(), 3 * 2);
    for variants in products {
        assert!(variants.len() > 1);
        assert_eq!(
            variants.iter().filter(|case| case.chosen).count(),
            1,
            "{variants:?}"
        );
    }
    for op in [
        "quantize f32",
        "rmsnorm + quantize",
        "residual + rmsnorm",
        "layernorm",
        "gated squared relu",
        "gated squared relu + rmsnorm + quantize",
        "rmsnorm + quantize + gemv",
    ] {
        assert!(results.cases.iter().any(|case| case.op == op), "{op}");
    }
    // The same seed, the same counts.
    let again = bench(
        Driver::None,
        &["--device", "emulated", "--seed", "1", "--commit", "abc"],
    );
    assert_eq!(
        again,
        Results {
            date: again.date.clone(),
            ..results
        }
    );
}

#[test]
fn every_option_of_the_model_shows() {
    let model = |options: &[&str]| {
        let results = bench(Driver::None, &[&["--device", "emulated"], options].concat());
        assert_eq!(results.models.len(), 1, "{:?}", results.not_run);
        let model = results.models[0].clone();
        assert_eq!(model.mismatches, 0);
        model
    };
    // With a limit that no clock reaches.
    let forever = u64::MAX.to_string();
    let plain = model(&[
        "--hidden-size",
        "128",
        "--num-layers",
        "1",
        "--time-limit",
        &forever,
    ]);
    assert_eq!(
        (plain.num_gpus, plain.batch_size, plain.quantization_bits),
        (1, 1, 2)
    );
    // Three quantizations and four products; 12 h^2 weights at 2 bits; both bounds of one token's outputs.
    assert_eq!(
        (plain.launches, plain.weight_bytes, plain.checked),
        (7, 12 * 128 * 128 / 4, 128)
    );

    let layers = model(&["--hidden-size", "128", "--num-layers", "3"]);
    assert_eq!(
        (layers.num_layers, layers.launches, layers.weight_bytes),
        (3, 21, 3 * plain.weight_bytes)
    );
    let hidden = model(&["--hidden-size", "256", "--num-layers", "1"]);
    assert_eq!(
        (hidden.hidden_size, hidden.weight_bytes),
        (256, 4 * plain.weight_bytes)
    );
    let batch = model(&[
        "--hidden-size",
        "128",
        "--num-layers",
        "1",
        "--batch-size",
        "9",
    ]);
    // Nine tokens are two passes over the weights; the first and the last token are checked.
    assert_eq!(
        (batch.batch_size, batch.launches, batch.checked),
        (9, 3 + 2 * 4, 256)
    );
    let gpus = model(&[
        "--hidden-size",
        "128",
        "--num-layers",
        "1",
        "--num-gpus",
        "2",
    ]);
    assert_eq!((gpus.num_gpus, gpus.checked), (2, 2 * plain.checked));

    for bits in ["8", "16"] {
        let refusal = refusal(
            Driver::None,
            &["bench", "--device", "emulated", "--quantization-bits", bits],
        );
        assert!(refusal.contains("--quantization-bits"), "{refusal}");
    }
    for option in [
        "--num-gpus",
        "--batch-size",
        "--hidden-size",
        "--num-layers",
        "--quantization-bits",
    ] {
        let output = bitnet(Driver::None, &["bench", option, "0"]);
        assert_eq!(output.status.code(), Some(2), "{option}");
    }
    // What would be more weights or tokens than memory is refused before any of it is asked for.
    for (option, value, limit) in [
        ("--hidden-size", "4000000000", "32768"),
        ("--hidden-size", "1000000", "32768"),
        ("--batch-size", "4000000000", "65536"),
    ] {
        let refusal = refusal(Driver::None, &["bench", option, value]);
        let named = [option, value, limit];
        assert!(named.iter().all(|word| refusal.contains(word)), "{refusal}");
    }
}

#[test]
fn a_run_without_time_keeps_a_file_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.json");
    let arguments = [
        "--device",
        "emulated",
        "--time-limit",
        "0",
        "--output",
        path.to_str().unwrap(),
    ];
    let results = bench(Driver::None, &arguments);
    assert!(results.cases.is_empty());
    assert!(
        results
            .not_run
            .iter()
            .all(|part| part.why.contains("time limit"))
    );
    assert!(results.not_run.iter().any(|part| part.what == "model"));
    assert_eq!(
        Results::from_json(&std::fs::read_to_string(&path).unwrap()).unwrap(),
        results
    );
    // Nothing else is left in the folder.
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);

    let refusal = refusal(
        Driver::None,
        &[
            "bench",
            "--device",
            "emulated",
            "--output",
            "no/such/folder/f.json",
        ],
    );
    assert!(refusal.contains("no/such/folder"), "{refusal}");
}

#[cfg(unix)]
#[test]
fn results_replace_a_file_and_nothing_else() {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    use std::os::unix::net::UnixListener;
    let folder = tempfile::tempdir().unwrap();
    let (socket, file) = (folder.path().join("socket"), folder.path().join("file"));
    let _listener = UnixListener::bind(&socket).unwrap();
    for path in [socket.as_path(), folder.path()] {
        let path = path.to_str().unwrap();
        let arguments = ["bench", "--device", "emulated", "--output", path];
        let refusal = refusal(Driver::None, &arguments);
        let named = refusal.contains("--output") && refusal.contains("not a regular file");
        assert!(named, "{refusal}");
    }
    let kind = std::fs::metadata(&socket).unwrap().file_type();
    assert!(kind.is_socket());

    std::fs::write(&file, "old").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let path = file.to_str().unwrap();
    let limit = ["--time-limit", "0", "--output", path];
    let results = bench(
        Driver::None,
        &[&["--device", "emulated"], &limit[..]].concat(),
    );
    let written = std::fs::read_to_string(&file).unwrap();
    assert_eq!(Results::from_json(&written).unwrap(), results);
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
}

#[test]
fn a_gpu_is_measured_cold_and_warm_against_the_ceilings() {
    let results = bench(Driver::Double, &["--device", "cuda", "--smoke"]);
    assert_eq!(results.device.kind, "cuda");
    let ceilings = results
        .ceilings
        .as_ref()
        .expect("the copy was checked and timed");
    assert!(ceilings.copy_bytes_per_second > 0.0 && ceilings.dp4a_operations_per_second > 0.0);
    assert!(ceilings.mma_operations_per_second > Some(0.0));
    assert!(ceilings.allocation_us > 0.0 && ceilings.pool_allocation_us > Some(0.0));
    // The library's choice of each product, and the model, are also measured as programs run them.
    let early = |case: &&Case| case.op == LAUNCHED_EARLY;
    assert_eq!(results.cases.iter().filter(early).count(), 3 * 2);
    let models: Vec<bool> = results
        .models
        .iter()
        .map(|model| model.programmatic)
        .collect();
    assert_eq!(models, [true, false]);
    for case in &results.cases {
        assert_eq!(case.mismatches, 0, "{case:?}");
        assert!(
            case.warm.is_some() && case.bandwidth_fraction.is_some() && case.counts.is_none(),
            "{case:?}"
        );
        assert!(!case.kernels.is_empty());
    }
    let products = products(&results);
    assert_eq!(products.len(), 3 * 2, "{:?}", results.not_run);
    for variants in products {
        assert_eq!(variants.iter().filter(|case| case.best).count(), 1);
        assert_eq!(variants.iter().filter(|case| case.chosen).count(), 1);
        assert!(variants.iter().all(|case| case.cold.is_some()));
    }
    assert!(results.models[0].pass.is_some() && results.models[0].launches == 14);
    // This machine may have cuBLAS, but none that runs on the double.
    assert!(results.pairs.is_empty());
    assert!(
        results
            .not_run
            .iter()
            .all(|part| part.what.contains("cublas")),
        "{:?}",
        results.not_run
    );
}

#[test]
fn clocks_are_those_of_the_gpu_that_is_measured() {
    use std::os::unix::fs::PermissionsExt;
    // Knows one GPU, by its bus: of the double's GPUs, the last has the first bus.
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("nvidia-smi");
    let script = r#"#!/bin/sh
case "$*" in *"--id 0000:00:00.0") echo "1980, 3201, 1980, 34, 580.95.05" ;; *) echo "No devices were found"; exit 6 ;; esac
"#;
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    for (device, expected) in [("cuda:255", Some(1980)), ("cuda:0", None)] {
        let arguments = ["bench", "--device", device, "--time-limit", "0", "--json"];
        let output = command(Driver::Double, &arguments)
            .env("PATH", folder.path())
            .output()
            .unwrap();
        let results = Results::from_json(&String::from_utf8(output.stdout).unwrap()).unwrap();
        let clocks = results.device.clocks.map(|[before, _]| before.sm_mhz);
        assert_eq!(clocks, expected.map(Some), "{device}");
    }
}

#[test]
fn the_double_and_the_emulator_agree() {
    let report: Value = serde_json::from_str(&stdout(Driver::Double, &["compare"])).unwrap();
    assert_eq!(report["differing"], 0);
    let comparisons = report["comparisons"].as_array().unwrap();
    assert!(comparisons.len() > 100);
    assert!(
        comparisons
            .iter()
            .all(|comparison| comparison["bytes"].as_u64().unwrap() > 0)
    );
    // Every kernel of the PTX was launched.
    assert_eq!(report["not_compared"], Value::Array(Vec::new()));
}

#[test]
fn early_launches_can_be_turned_off_from_outside() {
    for (value, expected) in [(None, true), (Some("0"), false), (Some("1"), true)] {
        let mut command = command(Driver::Double, &["info", "--device", "cuda", "--json"]);
        command.env_remove("BITNET_PROGRAMMATIC_LAUNCH");
        if let Some(value) = value {
            command.env("BITNET_PROGRAMMATIC_LAUNCH", value);
        }
        let report: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
        let device = &report["devices"][0];
        assert_eq!(device["kind"], "cuda");
        assert_eq!(device["programmatic_launch"], expected, "{value:?}");
    }
    // Then they are not measured either.
    let mut command = command(
        Driver::Double,
        &["bench", "--device", "cuda", "--smoke", "--json"],
    );
    command.env("BITNET_PROGRAMMATIC_LAUNCH", "0");
    let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let results = Results::from_json(&text).unwrap();
    assert!(results.cases.iter().all(|case| case.op != LAUNCHED_EARLY));
    assert_eq!(results.models.len(), 1);
    assert!(!results.models[0].programmatic);
}

#[test]
fn compare_without_a_gpu_cannot_run() {
    for device in ["auto", "cuda"] {
        let refusal = refusal(Driver::None, &["compare", "--device", device]);
        let named = refusal.contains("needs a GPU") && refusal.contains("no-such-libcuda.so");
        // Which it would refuse in turn.
        assert!(named && !refusal.contains("`emulated`"), "{refusal}");
    }
    let refusal = refusal(Driver::Double, &["compare", "--device", "emulated"]);
    assert!(refusal.contains("--device cuda"), "{refusal}");
}

#[test]
fn a_peer_that_is_none_is_refused() {
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let refused = refusal(
        Driver::Double,
        &["bench", "--device", "cuda", "--smoke", "--peer", text],
    );
    assert!(refused.contains("cannot open"), "{refused}");
    let other = std::env::current_exe()
        .unwrap()
        .with_file_name("libfake_libcuda.so");
    let refused = refusal(
        Driver::Double,
        &[
            "bench",
            "--device",
            "cuda",
            "--smoke",
            "--peer",
            other.to_str().unwrap(),
        ],
    );
    assert!(refused.contains("bitlinear_int8xint2"), "{refused}");
    let refused = refusal(
        Driver::None,
        &["bench", "--device", "emulated", "--peer", text],
    );
    assert!(refused.contains("--peer"), "{refused}");
}

#[test]
fn a_peer_that_computes_nothing_is_not_timed() {
    let folder = tempfile::tempdir().unwrap();
    let library = library(
        folder.path(),
        // As Microsoft's does for a shape that it does not know. JSON alone is on stdout all the same.
        "#[unsafe(no_mangle)] pub extern \"C\" fn bitlinear_int8xint2() { println!(\"no kernel for this shape\"); }",
    );
    let arguments = [
        "--device",
        "cuda",
        "--smoke",
        "--peer",
        library.to_str().unwrap(),
    ];
    let results = bench(Driver::Double, &arguments);
    assert!(results.pairs.is_empty());
    let missed: Vec<_> = results
        .not_run
        .iter()
        .filter(|part| part.what.contains("libpeer.so"))
        .collect();
    assert_eq!(missed.len(), 3 * 2, "{:?}", results.not_run);
    assert!(
        missed
            .iter()
            .all(|part| part.why.contains("does not compute this shape")),
        "{missed:?}"
    );
}

#[test]
fn cublaslt_is_called_as_its_interface_says() {
    let folder = tempfile::tempdir().unwrap();
    let double = library(folder.path(), include_str!("peers/cublaslt.rs"));
    std::fs::rename(double, folder.path().join("libcublasLt.so.13")).unwrap();
    let output = command(
        Driver::Double,
        &["bench", "--device", "cuda", "--smoke", "--json"],
    )
    .env("LD_LIBRARY_PATH", folder.path())
    .output()
    .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let results = Results::from_json(&String::from_utf8(output.stdout).unwrap()).unwrap();
    let shapes: Vec<_> = results
        .pairs
        .iter()
        .map(|pair| {
            (
                pair.peer.as_str(),
                pair.m,
                pair.n,
                pair.k,
                pair.programmatic,
            )
        })
        .collect();
    let int8 = "cublaslt int8";
    assert_eq!(
        shapes,
        [
            (int8, 1, 128, 256, false),
            (int8, 1, 128, 256, true),
            (int8, 8, 128, 256, false),
            (int8, 1, 48, 384, false),
            (int8, 1, 48, 384, true),
            (int8, 8, 48, 384, false)
        ],
        "{:?}",
        results.not_run
    );
    assert!(results.pairs.iter().all(|pair| pair.mismatches == 0));
    // 33 is no multiple of 4: the library has no algorithm for it, and says so.
    let missed: Vec<_> = results
        .not_run
        .iter()
        .filter(|part| part.what.starts_with(int8))
        .collect();
    assert_eq!(missed.len(), 2, "{:?}", results.not_run);
    assert!(missed.iter().all(|part| part.why.contains("NOT_SUPPORTED")));
}

/// Compiles a shared library.
fn library(folder: &Path, source: &str) -> PathBuf {
    let (input, output) = (folder.join("peer.rs"), folder.join("libpeer.so"));
    std::fs::write(&input, source).unwrap();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let status = Command::new(rustc)
        .args(["--edition", "2024", "--crate-type", "cdylib", "-o"])
        .args([&output, &input])
        .status()
        .unwrap();
    assert!(status.success());
    output
}
