//! `bitnet profile`: every operation, its counts, and what it refuses.

use serde_json::Value;
use std::process::{Command, Output};

fn profile(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bitnet"))
        .arg("profile")
        .args(arguments)
        .env("CUST_LAZY_LIBCUDA", "no-such-libcuda.so")
        .output()
        .unwrap()
}

fn json(arguments: &[&str]) -> Value {
    let output = profile(&[arguments, &["--json"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refusal(arguments: &[&str]) -> String {
    let output = profile(arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    stderr
}

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[test]
fn every_operation_is_right_and_counted() {
    let list = json(&["list"]);
    let operations = list["operations"].as_array().unwrap();
    assert!(operations.len() > 40);
    for operation in operations {
        let (name, options) = (
            operation["operation"].as_str().unwrap(),
            operation["options"].as_str().unwrap(),
        );
        let mut arguments = vec![name, "--k", "300"];
        if options.contains("--n") {
            arguments.extend(["--n", "33"]);
        }
        let report = json(&arguments);
        assert_eq!(report["operation"], name);
        assert_eq!(report["mismatches"], 0, "{report}");
        assert!(report["checked"].as_u64().unwrap() > 0, "{name}");
        assert!(
            report["launches"]
                .as_array()
                .unwrap()
                .iter()
                .any(|launch| launch["kernel"] == report["variant"]),
            "{name}"
        );
        let counters = &report["counters"];
        let instructions = &counters["instructions"];
        let classes = [
            "integer",
            "float",
            "dp4a",
            "load_global",
            "store_global",
            "shared",
            "branch",
            "other",
        ];
        let sum: u64 = classes
            .iter()
            .map(|class| instructions[class].as_u64().unwrap())
            .sum();
        assert_eq!(instructions["total"].as_u64(), Some(sum), "{name}");
        assert!(sum > 0, "{name}");
        let global = &counters["global"];
        for count in ["requests", "sectors", "bytes_read", "bytes_written"] {
            assert!(global[count].as_u64().unwrap() > 0, "{name}: {count}");
        }
        for ratio in ["load_efficiency", "store_efficiency"] {
            let ratio = global[ratio].as_f64().unwrap();
            assert!(ratio > 0.0 && ratio <= 1.0, "{name}: {ratio}");
        }
        assert_eq!(keys(&counters["shared"]), ["bank_conflicts"], "{name}");
        assert!(counters["divergent_branches"].is_u64(), "{name}");
    }
}

#[test]
fn a_product_reads_each_weight_byte_once_for_one_token_and_for_eight() {
    let (n, k) = (160, 1280);
    for m in [1, 8] {
        let tokens = m.to_string();
        let report = json(&["gemv", "--m", &tokens, "--n", "160", "--k", "1280"]);
        let global = &report["counters"]["global"];
        assert_eq!(global["weight_bytes_read"], n * k / 4, "m {m}");
        // Eight tokens go through tensor cores.
        let dp4a = if m == 1 { n * k / 4 } else { 0 };
        assert_eq!(report["counters"]["instructions"]["dp4a"], dp4a, "m {m}");
    }
}

#[test]
fn two_launches_are_added() {
    let report = json(&[
        "rmsnorm-quantize-then-gemv",
        "--m",
        "3",
        "--n",
        "40",
        "--k",
        "700",
    ]);
    let launches = report["launches"].as_array().unwrap();
    assert!(launches.len() > 1, "{report}");
    for path in [
        "/instructions/total",
        "/global/bytes_read",
        "/global/sectors",
    ] {
        let sum: u64 = launches
            .iter()
            .map(|launch| launch["counters"].pointer(path).unwrap().as_u64().unwrap())
            .sum();
        assert_eq!(
            report["counters"].pointer(path).unwrap().as_u64(),
            Some(sum)
        );
    }
}

#[test]
fn the_hottest_lines_are_those_of_the_ptx() {
    let report = json(&["gemv", "--n", "32", "--k", "256", "--lines", "5"]);
    let lines = report["launches"][0]["lines"].as_array().unwrap();
    assert_eq!(lines.len(), 5);
    let issued: Vec<u64> = lines
        .iter()
        .map(|line| line["warp_instructions"].as_u64().unwrap())
        .collect();
    assert!(issued.is_sorted_by(|a, b| a >= b) && issued[4] > 0);
    let ptx: Vec<&str> = bitnet_cuda::launch::ptx_for((9, 0))
        .unwrap()
        .1
        .lines()
        .collect();
    for line in lines {
        let number = line["line"].as_u64().unwrap() as usize;
        let text = line["instruction"].as_str().unwrap().trim();
        assert!(ptx[number - 1].contains(text), "{line}");
    }
}

#[test]
fn what_cannot_be_profiled_is_refused() {
    let cases: [(&[&str], &str); 9] = [
        (&["gemvv", "--n", "8", "--k", "8"], "profile list"),
        (&["gemv", "--k", "8"], "needs --n"),
        (&["gemv", "--n", "8"], "needs --k"),
        (&["gemv", "--n", "0", "--k", "8"], "--n 0"),
        (&["gemv", "--n", "8", "--k", "8", "--m", "9"], "at most 8"),
        (&["silu", "--n", "8", "--k", "8"], "no such size"),
        (
            &["pack-tiled", "--m", "2", "--n", "8", "--k", "8"],
            "no such size",
        ),
        (
            &["gemv", "--n", "4000000000", "--k", "4000000000"],
            "1073741824",
        ),
        (
            &["gemv", "--n", "8", "--k", "8", "--device", "cuda"],
            "no CUDA device",
        ),
    ];
    for (arguments, expected) in cases {
        let refused = refusal(arguments);
        assert!(refused.contains(expected), "{arguments:?}: {refused}");
    }
}
