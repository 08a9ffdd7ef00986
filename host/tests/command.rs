//! The command `bitnet`: what it prints, and how it exits.

use bitnet_cuda::tensor_file::{TensorFile, write_matrix};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// Runs `bitnet` where no NVIDIA driver can be found.
fn bitnet(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bitnet"))
        .args(arguments)
        .env("CUST_LAZY_LIBCUDA", "no-such-libcuda.so")
        .output()
        .unwrap()
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
    let report = json(&[
        "linear",
        "--weights",
        &weights,
        "--tensor",
        "w",
        "--input",
        &input,
        "--input-tensor",
        "x",
        "--output",
        result.to_str().unwrap(),
        "--device",
        "emulated",
    ]);
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

#[test]
fn what_cannot_be_run_is_one_line_and_exit_2() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, input) = matrices(folder.path());
    let linear = |weights: &str, tensor: &str| {
        refusal(&[
            "linear",
            "--weights",
            weights,
            "--tensor",
            tensor,
            "--input",
            &input,
            "--input-tensor",
            "x",
            "--device",
            "emulated",
        ])
    };
    assert!(refusal(&["demo", "--device", "cuda"]).contains("no-such-libcuda.so"));
    assert!(refusal(&["demo", "--device", "tpu"]).contains("`tpu`"));
    assert!(refusal(&["gemv", "--n", "0", "--k", "4"]).contains('0'));
    assert!(refusal(&["gemv", "--n", "4", "--k", "4", "--m", "0"]).contains("m = 0"));
    assert!(refusal(&["gemv", "--n", "4", "--k", "16777216"]).contains("16777215"));
    assert!(
        refusal(&["gemv", "--n", "4", "--k", "4", "--variant", "fast"]).contains("gemv_m1_t1_w2")
    );
    assert!(linear("none.safetensors", "w").contains("none.safetensors"));
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
