//! What cargo builds, and where it puts it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{process, workspace};

const BUILD: Duration = Duration::from_secs(3600);

/// A file that cargo has built.
pub struct Artifact {
    pub name: String,
    pub file: PathBuf,
    pub is_example: bool,
    pub is_test: bool,
}

/// Runs cargo; what it built.
pub fn built(arguments: &[&str]) -> Result<Vec<Artifact>> {
    let mut command = workspace::cargo();
    command
        .args(arguments)
        .arg("--message-format=json-render-diagnostics");
    artifacts(&process::capture(&mut command, BUILD)?.stdout)
}

/// Builds all programs and examples, in the profile of the tests; what they are. `cargo test --workspace` builds the same files. A
/// package alone would be built once more, because the features of its dependencies are others than those of the whole workspace.
pub fn of_workspace() -> Result<Vec<Artifact>> {
    built(&["build", "--workspace", "--bins", "--examples"])
}

/// The program of that name among them.
pub fn program<'a>(artifacts: &'a [Artifact], name: &str) -> Result<&'a Path> {
    let is_it = |a: &&Artifact| a.name == name && !a.is_example && !a.is_test;
    let found = artifacts.iter().find(is_it);
    let found = found.with_context(|| format!("cargo built no program `{name}`"))?;
    Ok(&found.file)
}

/// Programs and shared libraries in cargo's messages.
fn artifacts(messages: &str) -> Result<Vec<Artifact>> {
    let mut artifacts = Vec::new();
    for line in messages.lines() {
        let message: Value =
            serde_json::from_str(line).with_context(|| format!("cargo said `{line}`"))?;
        if message["reason"] != "compiler-artifact" {
            continue;
        }
        let name = message["target"]["name"]
            .as_str()
            .context("an artifact without a name")?;
        let is_example = message["target"]["kind"] == json!(["example"]);
        let is_test = message["profile"]["test"] == true;
        let executable = message["executable"].as_str();
        let files = message["filenames"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        let library = files
            .into_iter()
            .find(|file| name == "fake_libcuda" && file.ends_with(".so"));
        if let Some(file) = executable.or(library) {
            artifacts.push(Artifact {
                name: name.to_owned(),
                file: file.into(),
                is_example,
                is_test,
            });
        }
    }
    Ok(artifacts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_the_driver_double_are_found_in_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"half"},"profile":{"test":false},"executable":null,"filenames":["/t/libhalf.rlib"]}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"fake_libcuda"},"profile":{"test":false},"executable":null,"filenames":["/t/libfake_libcuda.so","/t/libfake_libcuda.rlib"]}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"gemv"},"profile":{"test":true},"executable":"/t/gemv-1","filenames":["/t/gemv-1"]}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["example"],"name":"graphs"},"profile":{"test":false},"executable":"/t/graphs","filenames":["/t/graphs"]}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        let artifacts = artifacts(messages).expect("well-formed");
        let found: Vec<_> = artifacts
            .iter()
            .map(|a| (a.name.as_str(), a.file.to_str(), a.is_example, a.is_test))
            .collect();
        assert_eq!(
            found,
            [
                ("fake_libcuda", Some("/t/libfake_libcuda.so"), false, false),
                ("gemv", Some("/t/gemv-1"), false, true),
                ("graphs", Some("/t/graphs"), true, false)
            ]
        );
        assert!(super::artifacts("not json").is_err());
    }
}
