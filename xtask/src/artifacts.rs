//! What cargo builds, and where it puts it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{process, workspace};

const BUILD: Duration = Duration::from_secs(3600);

/// What a file that cargo has built is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Program,
    Example,
    Test,
    SharedLibrary,
}

/// A file that cargo has built.
pub struct Artifact {
    pub kind: Kind,
    pub name: String,
    pub file: PathBuf,
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

/// The file of that kind and name among them.
pub fn file<'a>(artifacts: &'a [Artifact], kind: Kind, name: &str) -> Result<&'a Path> {
    let is_it = |a: &&Artifact| a.kind == kind && a.name == name;
    let found = artifacts.iter().find(is_it);
    let found = found.with_context(|| format!("cargo built no {kind:?} named `{name}`"))?;
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
        // A procedural macro is a shared library too, but the compiler's alone.
        let crate_types = message["target"]["crate_types"].as_array();
        let is_shared = crate_types.is_some_and(|types| types.contains(&json!("cdylib")));
        let files = message["filenames"].as_array().into_iter().flatten();
        let library = files
            .filter_map(Value::as_str)
            .find(|file| is_shared && file.ends_with(".so"));
        let (kind, file) = match (message["executable"].as_str(), library) {
            (Some(file), _) if message["profile"]["test"] == true => (Kind::Test, file),
            (Some(file), _) if message["target"]["kind"] == json!(["example"]) => {
                (Kind::Example, file)
            }
            (Some(file), _) => (Kind::Program, file),
            (None, Some(file)) => (Kind::SharedLibrary, file),
            (None, None) => continue,
        };
        artifacts.push(Artifact {
            kind,
            name: name.to_owned(),
            file: file.into(),
        });
    }
    Ok(artifacts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_shared_libraries_are_found_in_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"half"},"profile":{"test":false},"executable":null,"filenames":["/t/libhalf.rlib"]}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"crate_types":["proc-macro"],"name":"macros"},"profile":{"test":false},"executable":null,"filenames":["/t/libmacros.so"]}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"crate_types":["cdylib","rlib"],"name":"fake_libcuda"},"profile":{"test":false},"executable":null,"filenames":["/t/libfake_libcuda.so","/t/libfake_libcuda.rlib"]}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"gemv"},"profile":{"test":true},"executable":"/t/gemv-1","filenames":["/t/gemv-1"]}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["example"],"name":"graphs"},"profile":{"test":false},"executable":"/t/graphs","filenames":["/t/graphs"]}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"gemv"},"profile":{"test":false},"executable":"/t/gemv","filenames":["/t/gemv"]}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        let artifacts = artifacts(messages).expect("well-formed");
        let found: Vec<_> = artifacts
            .iter()
            .map(|a| (a.kind, a.name.as_str(), a.file.to_str()))
            .collect();
        assert_eq!(
            found,
            [
                (
                    Kind::SharedLibrary,
                    "fake_libcuda",
                    Some("/t/libfake_libcuda.so")
                ),
                (Kind::Test, "gemv", Some("/t/gemv-1")),
                (Kind::Example, "graphs", Some("/t/graphs")),
                (Kind::Program, "gemv", Some("/t/gemv")),
            ]
        );
        let gemv = file(&artifacts, Kind::Program, "gemv").expect("it is there");
        assert_eq!(gemv, Path::new("/t/gemv"));
        let error = file(&artifacts, Kind::Example, "gemv").expect_err("it is none");
        assert_eq!(error.to_string(), "cargo built no Example named `gemv`");
        assert!(super::artifacts("not json").is_err());
    }
}
