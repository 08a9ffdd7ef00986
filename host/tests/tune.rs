//! `bitnet tune`: what it measures, what it keeps, and what is left when it cannot.

use bitnet_cuda::launch::Gemv;
use bitnet_cuda::layout::Layout;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const SHAPE: [&str; 7] = ["tune", "--n", "64", "--k", "256", "--device", "emulated"];

/// Runs `bitnet` with a cache of its own, where no NVIDIA driver can be found.
fn bitnet(cache: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitnet"));
    command
        .args(arguments)
        .env("CUST_LAZY_LIBCUDA", "no-such-libcuda.so")
        .env("BITNET_CACHE_DIR", cache);
    command
}

fn success(output: Output) -> Vec<u8> {
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

fn json(cache: &Path, arguments: &[&str]) -> Value {
    let output = bitnet(cache, arguments).arg("--json").output().unwrap();
    serde_json::from_slice(&success(output)).unwrap()
}

fn file(cache: &Path) -> Value {
    serde_json::from_slice(&fs::read(cache.join("tuning.json")).unwrap()).unwrap()
}

#[test]
fn a_tuned_shape_is_kept_and_used() {
    let cache = tempfile::tempdir().unwrap();
    let report = json(cache.path(), &SHAPE);
    let variants = report["variants"].as_array().unwrap();
    let cheapest = variants.iter().min_by(|a, b| {
        a["cost"]
            .as_f64()
            .unwrap()
            .total_cmp(&b["cost"].as_f64().unwrap())
    });
    assert_eq!(report["chosen"], cheapest.unwrap()["variant"]);
    assert_eq!(report["unit"], "model_cycles");

    let kept = file(cache.path());
    let entry = &kept["entries"][0];
    assert_eq!(kept["entries"].as_array().unwrap().len(), 1);
    assert_eq!(entry["variant"], report["chosen"]);
    assert_eq!(
        (&entry["n"], &entry["k"], &entry["m"]),
        (&64.into(), &256.into(), &1.into())
    );
    assert_eq!(
        (&entry["op"], &entry["dtype"], &entry["driver"]),
        (&"gemv".into(), &"w2a8".into(), &Value::Null)
    );
    assert_eq!(entry["ptx"].as_str().unwrap().len(), 64);

    // Another variant in the file is taken by a product, and is what a second tuning says was used before.
    let other = variants.last().unwrap()["variant"].as_str().unwrap();
    let text = fs::read_to_string(cache.path().join("tuning.json")).unwrap();
    fs::write(
        cache.path().join("tuning.json"),
        text.replace(report["chosen"].as_str().unwrap(), other),
    )
    .unwrap();
    let gemv = json(
        cache.path(),
        &["gemv", "--n", "64", "--k", "256", "--device", "emulated"],
    );
    assert_eq!(
        (&gemv["variant"], &gemv["mismatches"]),
        (&other.into(), &0.into())
    );
    let again = json(cache.path(), &SHAPE);
    assert_eq!(
        (&again["before"], &again["chosen"]),
        (&other.into(), &report["chosen"])
    );
}

#[test]
fn processes_that_tune_at_once_lose_nothing() {
    let cache = tempfile::tempdir().unwrap();
    let shapes = ["16", "32", "48", "64", "80", "96"];
    let running: Vec<_> = shapes
        .iter()
        .map(|n| {
            bitnet(
                cache.path(),
                &["tune", "--n", n, "--k", "128", "--device", "emulated"],
            )
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
        })
        .collect();
    for child in running {
        success(child.wait_with_output().unwrap());
    }
    let kept = file(cache.path());
    let mut sizes: Vec<u64> = kept["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["n"].as_u64().unwrap())
        .collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [16, 32, 48, 64, 80, 96]);
}

#[test]
fn a_damaged_file_is_a_warning_and_kept_aside() {
    let cache = tempfile::tempdir().unwrap();
    json(cache.path(), &SHAPE);
    let whole = fs::read(cache.path().join("tuning.json")).unwrap();
    fs::write(cache.path().join("tuning.json"), &whole[..whole.len() - 9]).unwrap();
    let output = bitnet(
        cache.path(),
        &["gemv", "--n", "64", "--k", "256", "--device", "emulated"],
    )
    .env("RUST_LOG", "warn")
    .output()
    .unwrap();
    let warning = String::from_utf8_lossy(&output.stderr).into_owned();
    success(output);
    assert!(
        warning.contains("set aside") && warning.contains("tuning.set-aside-0.json"),
        "{warning}"
    );
    assert_eq!(
        fs::read(cache.path().join("tuning.set-aside-0.json")).unwrap(),
        whole[..whole.len() - 9]
    );
}

#[test]
fn a_full_disk_is_an_error_that_leaves_the_old_file() {
    let cache = tempfile::tempdir().unwrap();
    json(cache.path(), &SHAPE);
    let before = fs::read(cache.path().join("tuning.json")).unwrap();
    // A process that may write no byte to a file gets an error from the write, as on a full disk.
    let limited = bitnet(cache.path(), &[]);
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh"])
        .arg(limited.get_program())
        .args([
            "tune", "--n", "48", "--k", "128", "--device", "emulated", "--json",
        ])
        .envs(
            limited
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("tuning.json") && stderr.contains("BITNET_CACHE_DIR"),
        "{stderr}"
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        report["cache_error"]
            .as_str()
            .unwrap()
            .contains("tuning.json")
    );
    assert!(
        !report["variants"].as_array().unwrap().is_empty(),
        "what was measured is shown"
    );
    assert_eq!(fs::read(cache.path().join("tuning.json")).unwrap(), before);
    // Nothing half-written is left beside it.
    let mut names: Vec<_> = fs::read_dir(cache.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["tuning.json", "tuning.lock"]);
}

#[test]
fn no_folder_is_a_refusal_that_names_the_variable() {
    let output = bitnet(Path::new(""), &SHAPE).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("BITNET_CACHE_DIR"));
}

/// On the test double of the driver: its clock says nothing, but events, graphs and rounds are the GPU's.
#[test]
fn a_gpu_is_measured_in_rounds() {
    let cache = tempfile::tempdir().unwrap();
    // Cargo builds the dependency beside the test program.
    let driver = std::env::current_exe()
        .unwrap()
        .with_file_name("libfake_libcuda.so");
    let arguments = [
        "tune", "--n", "16", "--k", "128", "--m", "8", "--rounds", "4", "--device", "cuda:0",
        "--json",
    ];
    let output = bitnet(cache.path(), &arguments)
        .env("CUST_LAZY_LIBCUDA", driver)
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&success(output)).unwrap();
    assert_eq!(report["unit"], "microseconds");
    let variants = report["variants"].as_array().unwrap();
    let fitting = Gemv::all(Layout::Tiled).filter(|variant| variant.fits(8, 128));
    assert_eq!(variants.len(), fitting.count());
    assert_eq!(
        (&variants[0]["rounds"], &variants[0]["dropped"]),
        (&4.into(), &false.into())
    );
    assert!(variants[0]["cost"].as_f64().unwrap() > 0.0);
    let kept = file(cache.path());
    assert!(kept["entries"][0]["driver"].as_u64().unwrap() >= 11_000);
    let device = kept["entries"][0]["device"].as_str().unwrap();
    assert!(
        !device.contains("cuda:"),
        "equal GPUs share a choice: {device}"
    );
}
