//! The command `bitnet`: what it prints, and how it exits.

use bitnet_cuda::tensor_file::{TensorFile, write_matrix};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// `bitnet` where no NVIDIA driver can be found.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitnet"));
    command
        .args(arguments)
        .env("CUST_LAZY_LIBCUDA", "no-such-libcuda.so");
    command
}

fn bitnet(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

/// The one JSON object on stdout of a run that has to succeed.
fn json(arguments: &[&str]) -> Value {
    let output = bitnet(&[arguments, &["--json"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {stderr}");
    assert_eq!(stderr, "", "{arguments:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The one line on stderr of a run that cannot be done as asked.
fn refusal(arguments: &[&str]) -> String {
    let output = bitnet(arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    stderr
}

#[test]
fn demo_finds_no_mismatch_in_the_real_layer() {
    let report = json(&["demo", "--device", "emulated"]);
    assert!(report["device"].as_str().unwrap().starts_with("emulated"));
    for (step, k, worst) in [
        ("norm", 384, Some(1e-5)),
        ("quantize", 384, None),
        ("activation", 1536, Some(1e-5)),
    ] {
        let step = &report[step];
        assert_eq!(step["mismatches"], 0);
        assert_eq!((&step["m"], &step["k"]), (&18.into(), &k.into()));
        let found = step["max_abs_err"].as_f64();
        assert_eq!(found.is_some(), worst.is_some(), "{step}");
        assert!(found <= worst, "{step}");
    }
    let layers = report["layers"].as_array().unwrap();
    let shapes: Vec<_> = layers
        .iter()
        .map(|l| {
            (
                l["name"].as_str().unwrap(),
                l["n"].as_u64(),
                l["k"].as_u64(),
                l["m"].as_u64(),
            )
        })
        .collect();
    assert_eq!(
        shapes,
        [
            ("query", Some(384), Some(384), Some(18)),
            ("intermediate", Some(1536), Some(384), Some(18))
        ]
    );
    for layer in layers {
        assert_eq!(layer["mismatches"], 0);
        assert!(layer["max_abs_err"].as_f64().unwrap() < 1e-5);
        // 2 bits for 32: K is a multiple of 128 and N of 16.
        assert_eq!(
            layer["weight_bytes_f32"].as_u64().unwrap(),
            16 * layer["weight_bytes_packed"].as_u64().unwrap()
        );
    }
    let text = bitnet(&["demo", "--device", "emulated"]);
    assert_eq!(text.status.code(), Some(0));
    assert_eq!(String::from_utf8(text.stdout).unwrap().lines().count(), 6);
}

#[test]
fn info_lists_the_emulator_and_says_why_there_is_no_gpu() {
    let report = json(&["info"]);
    assert_eq!(report["devices"].as_array().unwrap().len(), 1);
    assert_eq!(report["devices"][0]["kind"], "emulated");
    assert_eq!(report["devices"][0]["ptx"], "sm_90");
    assert!(
        report["no_gpu"]
            .as_str()
            .unwrap()
            .contains("no-such-libcuda.so")
    );
    assert!(report["auto"].as_str().unwrap().starts_with("emulated"));
    assert_eq!(report["devices"][0]["programmatic_launch"], true);
    for (value, expected) in [("0", false), ("1", true)] {
        let output = command(&["info", "--json"])
            .env("BITNET_PROGRAMMATIC_LAUNCH", value)
            .output()
            .unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["devices"][0]["programmatic_launch"], expected);
    }
}

#[test]
fn a_driver_that_does_not_start_is_reported_with_what_helps() {
    // Cargo builds the test double of the driver beside the test program.
    let double = std::env::current_exe()
        .unwrap()
        .with_file_name("libfake_libcuda.so");
    for (code, remedy) in [
        (100, "--gpus all"),
        (803, "the same version"),
        (34, "stub"),
        (999, "find out"),
    ] {
        let run = |arguments: &[&str]| {
            let mut command = command(arguments);
            command.env("CUST_LAZY_LIBCUDA", &double);
            command
                .env("FAKE_CUDA_INIT", code.to_string())
                .output()
                .unwrap()
        };
        let refused = run(&["demo", "--device", "cuda"]);
        let stderr = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(2), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        let named = stderr.contains(&format!("({code})"));
        assert!(named && stderr.contains(remedy), "{stderr}");
        // Without being asked for a GPU, the command does its work on the emulator.
        let done = run(&["gemv", "--n", "16", "--k", "16", "--json"]);
        assert_eq!(done.status.code(), Some(0));
        let report: Value = serde_json::from_slice(&done.stdout).unwrap();
        assert!(
            report["device"].to_string().contains("emulated"),
            "{report}"
        );
    }
}

#[test]
fn gemv_checks_published_and_odd_shapes() {
    for (n, k) in [
        ("2560", "2560"),
        ("2560", "6912"),
        ("1", "1"),
        ("7", "33"),
        ("100", "100"),
        ("2561", "2559"),
    ] {
        let report = json(&["gemv", "--n", n, "--k", k, "--device", "emulated"]);
        assert_eq!(report["n"].as_u64().unwrap().to_string(), n);
        assert_eq!(report["k"].as_u64().unwrap().to_string(), k);
        assert_eq!(report["m"], 1);
        assert_eq!(report["mismatches"], 0, "{n} x {k}");
        assert_eq!(
            report["checked"].as_u64().unwrap(),
            2 * n.parse::<u64>().unwrap()
        );
        // Every weight word meets 4 dp4a of 4 weights each, padding included.
        let (n, k): (u64, u64) = (n.parse().unwrap(), k.parse().unwrap());
        let padded = n.next_multiple_of(16) * k.next_multiple_of(128);
        assert!(report["counters"]["lane"]["dp4a"].as_u64().unwrap() >= padded / 4);
    }
}

#[test]
fn gemv_repeats_a_seed_and_takes_tokens_and_a_variant() {
    let arguments = [
        "gemv",
        "--n",
        "40",
        "--k",
        "200",
        "--m",
        "3",
        "--seed",
        "5",
        "--variant",
        "gemv_m8_t2_w4",
        "--device",
        "emulated",
    ];
    let first = json(&arguments);
    assert_eq!(
        (&first["variant"], &first["m"], &first["seed"]),
        (&"gemv_m8_t2_w4".into(), &3.into(), &5.into())
    );
    assert_eq!(first, json(&arguments));
}

/// Writes weights `[3, 5]` and input `[2, 5]`; returns the paths.
fn matrices(folder: &Path) -> (String, String) {
    let (weights, input) = (
        folder.join("weights.safetensors"),
        folder.join("input.safetensors"),
    );
    let values = |len: usize| -> Vec<half::bf16> {
        (0..len)
            .map(|i| half::bf16::from_f32((i % 7) as f32 - 3.0))
            .collect()
    };
    write_matrix(&weights, "w", 3, 5, &values(15)).unwrap();
    write_matrix(&input, "x", 2, 5, &values(10)).unwrap();
    (
        weights.to_str().unwrap().to_owned(),
        input.to_str().unwrap().to_owned(),
    )
}

#[test]
fn linear_writes_what_the_reference_computes() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, input) = matrices(folder.path());
    let result = folder.path().join("y.safetensors");
    let output = ["--output", result.to_str().unwrap()];
    let report = json(&[&linear(&weights, "w", &input), &output[..]].concat());
    assert_eq!(
        (&report["m"], &report["n"], &report["k"]),
        (&2.into(), &3.into(), &5.into())
    );
    assert_eq!(
        (&report["checked"], &report["mismatches"]),
        (&6.into(), &0.into())
    );
    let y = TensorFile::open(&result).unwrap().matrix("output").unwrap();
    assert_eq!((y.rows, y.cols), (2, 3));
    // Weights -3 -2 -1 0 1 | 2 3 -3 -2 -1 | 0 1 2 3 -3: mean |w| 1.8, ternary -1 -1 -1 0 1 | 1 1 -1 -1 -1 | 0 1 1 1 -1.
    // Input -3 -2 -1 0 1 | 2 3 -3 -2 -1: s = 127/3, so q = -127 -85 -42 0 42 | 85 127 -127 -85 -42.
    let sums = [296.0, -212.0, -169.0, -127.0, 466.0, -43.0];
    for (y, sum) in y.data.iter().zip(sums) {
        let expected = sum * 3.0 / 127.0 * 1.8;
        assert!(
            (y - expected).abs() < 1e-5 * expected.abs(),
            "{y} and {expected}"
        );
    }
}

/// Arguments of `bitnet linear` with these weights, on `x` of the file `input`.
fn linear<'a>(weights: &'a str, tensor: &'a str, input: &'a str) -> Vec<&'a str> {
    let mut arguments = vec!["linear", "--weights", weights, "--tensor", tensor];
    arguments.extend([
        "--input",
        input,
        "--input-tensor",
        "x",
        "--device",
        "emulated",
    ]);
    arguments
}

#[test]
fn linear_takes_packed_weights_with_their_scale() {
    let folder = tempfile::tempdir().unwrap();
    let (_, input) = matrices(folder.path());
    // Weights [4, 5] in a tensor [1, 5]: the columns (1 -1 0 1), (0 0 0 -1), (-1 1 1 1), (1 1 1 1), (0 0 0 0).
    let bytes = [
        0b10_01_00_10,
        0b00_01_01_01,
        0b10_10_10_00,
        0b10_10_10_10,
        0b01_01_01_01,
    ];
    let scale = |value: f32| half::bf16::from_f32(value).to_le_bytes();
    let (half, nan, zero) = (scale(0.5), scale(f32::NAN), scale(0.0));
    let mut damaged = bytes;
    // Code 3 in the third row of the tensor's first column.
    damaged[0] |= 0b11 << 4;
    let scalar = |bytes| TensorView::new(Dtype::BF16, vec![1], bytes).unwrap();
    let file = safetensors::serialize(
        [
            ("w", TensorView::new(Dtype::U8, vec![1, 5], &bytes).unwrap()),
            ("w_scale", scalar(&half)),
            ("nan", scalar(&nan)),
            ("zero", scalar(&zero)),
            (
                "damaged",
                TensorView::new(Dtype::U8, vec![1, 5], &damaged).unwrap(),
            ),
        ],
        None,
    );
    let model = folder.path().join("model.safetensors");
    std::fs::write(&model, file.unwrap()).unwrap();
    let model = model.to_str().unwrap();
    let result = folder.path().join("y.safetensors");
    let output = ["--output", result.to_str().unwrap()];
    // Input -3 -2 -1 0 1 | 2 3 -3 -2 -1: s = 127/3, so q = -127 -85 -42 0 42 | 85 127 -127 -85 -42.
    let sums = [-85.0, 85.0, -42.0, -84.0, 127.0, -297.0, -212.0, -254.0];
    for (more, scale) in [(&[][..], 0.5), (&["--scale-divides"], 2.0)] {
        let report = json(&[&linear(model, "w", &input), &output[..], more].concat());
        assert_eq!(
            (&report["n"], &report["mismatches"]),
            (&4.into(), &0.into())
        );
        assert_eq!(report["weight_scale"].as_f64(), Some(scale));
        let y = TensorFile::open(&result).unwrap().matrix("output").unwrap();
        for (y, sum) in y.data.iter().zip(sums) {
            let expected = sum * 3.0 / 127.0 * scale;
            let error = (f64::from(*y) - expected).abs();
            assert!(error < 1e-5 * expected.abs(), "{y} and {expected}");
        }
    }

    let refused = |more: &[&str]| refusal(&[&linear(model, "w", &input), more].concat());
    assert!(refused(&["--scale-tensor", "nan"]).contains("scale `nan`"));
    assert!(refused(&["--scale-tensor", "none"]).contains("it has damaged, nan, w, w_scale, zero"));
    let error = refused(&["--scale-tensor", "zero", "--scale-divides"]);
    assert!(error.contains("`zero` is 0"), "{error}");
    let error = refusal(&linear(model, "damaged", &input));
    assert!(error.contains("code 3 at row 2, column 0"), "{error}");
    let (floats, _) = matrices(folder.path());
    let floats = linear(&floats, "w", &input);
    assert!(
        refusal(&[&floats[..], &["--scale-divides"]].concat()).contains("leave out --scale-tensor")
    );
}

#[test]
fn nothing_that_is_read_or_is_no_file_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, input) = matrices(folder.path());
    let before = std::fs::read(&weights).unwrap();
    for output in [&weights, &input, folder.path().to_str().unwrap()] {
        let error = refusal(&[&linear(&weights, "w", &input)[..], &["--output", output]].concat());
        assert!(
            error.contains(output) && error.contains("name another"),
            "{error}"
        );
    }
    assert_eq!(std::fs::read(&weights).unwrap(), before);
    let nowhere = folder.path().join("none/y").to_str().unwrap().to_owned();
    // Before anything is read.
    let error = refusal(&[&linear("none", "w", "none")[..], &["--output", &nowhere]].concat());
    assert!(error.contains("none; create it first"), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_result_that_cannot_be_written_is_shown_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, input) = matrices(folder.path());
    let arguments = linear(&weights, "w", &input);
    // A folder in which nobody can make a file.
    let output = bitnet(&[&arguments[..], &["--output", "/proc/y", "--json"]].concat());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("cannot write /proc/y"), "{stderr}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["checked"], 6);
    let error = report["output_error"].as_str().unwrap();
    assert!(stderr.contains(error), "{error}");
}

// macOS has no such names.
#[cfg(target_os = "linux")]
#[test]
fn a_path_that_is_no_utf_8_is_printed_as_far_as_it_can_be() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let (weights, input) = matrices(folder.path());
    let odd = folder.path().join(OsStr::from_bytes(b"y\xff"));
    let report = |command: &mut Command| -> Value {
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let written = report(
        command(&linear(&weights, "w", &input))
            .args(["--json", "--output"])
            .arg(&odd),
    );
    assert!(odd.is_file());
    assert!(written["output"].as_str().unwrap().ends_with("y\u{fffd}"));
    std::fs::remove_file(&odd).unwrap();

    let tune = ["tune", "--n", "16", "--k", "16", "--json"];
    let tuned = report(
        command(&tune)
            .args(["--device", "emulated"])
            .env("BITNET_CACHE_DIR", &odd),
    );
    let cache = tuned["cache"].as_str().unwrap();
    assert!(cache.contains("y\u{fffd}"), "{cache}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_mistake() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command(&["info"]).stdout(writer).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), &*stderr), (Some(0), ""));
    #[cfg(target_os = "linux")]
    {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let output = command(&["info"]).stdout(full.unwrap()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr.contains("cannot write to stdout"), "{stderr}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_exit_status_does_not_depend_on_stderr() {
    let folder = tempfile::tempdir().unwrap();
    let gemv = ["gemv", "--n", "16", "--k", "128", "--device", "emulated"];
    for (arguments, expected) in [
        (&["demo", "--device", "tpu"][..], 2),
        (&["gemm"], 2),
        // With a warning.
        (&gemv, 0),
    ] {
        let (reader, closed) = std::io::pipe().unwrap();
        drop(reader);
        let full = std::fs::File::options().write(true).open("/dev/full");
        for stderr in [std::process::Stdio::from(full.unwrap()), closed.into()] {
            // Set aside by the run before.
            std::fs::write(folder.path().join("tuning.json"), "no JSON").unwrap();
            let output = command(arguments)
                .env("BITNET_CACHE_DIR", folder.path())
                .env_remove("RUST_LOG")
                .stderr(stderr)
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(expected), "{arguments:?}");
        }
    }
    // The warning was tried.
    assert!(folder.path().join("tuning.set-aside-1.json").exists());
}

#[test]
fn warnings_are_seen_without_asking_for_them() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tuning.json"), "no JSON").unwrap();
    let output = command(&["gemv", "--n", "16", "--k", "128", "--device", "emulated"])
        .env("BITNET_CACHE_DIR", folder.path())
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("tuning.set-aside-0.json"), "{stderr}");
    // For a terminal alone.
    assert!(!stderr.contains('\u{1b}'), "{stderr:?}");
}

#[test]
fn what_cannot_be_run_is_one_line_and_exit_2() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, input) = matrices(folder.path());
    let linear = |weights: &str, tensor: &str| refusal(&linear(weights, tensor, &input));
    assert!(refusal(&["demo", "--device", "cuda"]).contains("no-such-libcuda.so"));
    assert!(refusal(&["demo", "--device", "tpu"]).contains("`tpu`"));
    assert!(refusal(&["gemv", "--n", "0", "--k", "4"]).contains('0'));
    assert!(refusal(&["gemv", "--n", "4", "--k", "4", "--m", "0"]).contains("m = 0"));
    assert!(refusal(&["gemv", "--n", "4", "--k", "16777216"]).contains("16777215"));
    assert!(
        refusal(&["gemv", "--n", "4", "--k", "4", "--variant", "fast"]).contains("gemv_m1_t1_w2")
    );
    // What is padded to more than any memory, and refused before that is asked for.
    let huge = ["--n", "2000000000", "--k", "1"];
    for command in [&["gemv"][..], &["profile", "gemv"]] {
        let error = refusal(&[command, &huge].concat());
        assert!(
            error.contains("n 2000000000 k 1") && error.contains("padded"),
            "{error}"
        );
    }
    // Wrong usage, which clap explains in several lines.
    for (arguments, words) in [
        (&["gemv", "--n", "4"][..], "--k <K>"),
        (&["gemv", "--n", "4", "--k", "x"], "invalid value 'x'"),
        (&["gemv", "--k", "4", "--n", "-5"], "'-5'"),
        (&["profile", "gemv", "--variant", "w"], "'--variant'"),
        (&["bench", "--batch-size", "0"], "'0'"),
        (&["gemm"], "'gemm'"),
    ] {
        let error = refusal(arguments);
        assert!(
            error.starts_with("bitnet: ") && error.contains(words),
            "{error}"
        );
        assert!(!error.contains("Usage:"), "{error}");
    }
    assert!(linear("none.safetensors", "w").contains("none.safetensors"));
    #[cfg(unix)]
    assert!(linear("/dev/zero", "w").contains("cannot read /dev/zero: it is not a file"));
    assert!(linear(&weights, "v").contains("it has w"));

    let bytes = std::fs::read(&weights).unwrap();
    let cut = folder.path().join("cut.safetensors");
    std::fs::write(&cut, &bytes[..bytes.len() - 4]).unwrap();
    assert!(linear(cut.to_str().unwrap(), "w").contains("cut.safetensors"));

    let wide = folder.path().join("wide.safetensors");
    write_matrix(&wide, "w", 3, 6, &[1.0_f32; 18]).unwrap();
    let error = linear(wide.to_str().unwrap(), "w");
    assert!(error.contains('5') && error.contains('6'), "{error}");
}
