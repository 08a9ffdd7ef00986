//! `host/ptx/manifest.json`: what the committed PTX is, and what it was made of and by.

use std::path::Path;

use anyhow::{Context, Result, bail};
use cuda_builder::{NvvmArch, RustcVersion};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::workspace;

const FILE: &str = "manifest.json";

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// rustc's release, `1.96.0`.
    pub rustc: String,
    /// The commit that rustc was built from.
    pub commit: String,
    /// LLVM's version.
    pub llvm: String,
    /// Hash of the kernels' sources.
    pub sources: String,
    pub files: Vec<PtxFile>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct PtxFile {
    pub arch: String,
    /// Path below `host/ptx`.
    pub file: String,
    pub flags: Vec<String>,
    pub sha256: String,
    pub bytes: u64,
    pub entries: Vec<String>,
}

impl PtxFile {
    pub fn of(arch: NvvmArch, text: &str, entries: Vec<String>, flags: Vec<String>) -> Self {
        Self {
            arch: arch.target_cpu().to_owned(),
            file: file_name(arch),
            flags,
            sha256: hex(&Sha256::digest(text)),
            bytes: text.len() as u64,
            entries,
        }
    }
}

/// Path of an architecture's PTX below `host/ptx`.
pub fn file_name(arch: NvvmArch) -> String {
    format!("{arch}/bitnet.ptx")
}

impl Manifest {
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!(
                "cannot read {}: `cargo xtask build-ptx` writes it",
                path.display()
            )
        })?;
        serde_json::from_str(&text).with_context(|| {
            format!(
                "{} is not a manifest: `cargo xtask build-ptx` writes it anew",
                path.display()
            )
        })
    }

    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        workspace::write(&path, &text)
    }

    /// Whether this very compiler made it.
    pub fn is_by(&self, version: &RustcVersion) -> bool {
        self.rustc == version.release && self.commit == version.commit && self.llvm == version.llvm
    }

    pub fn compiler(&self) -> RustcVersion {
        RustcVersion {
            release: self.rustc.clone(),
            commit: self.commit.clone(),
            llvm: self.llvm.clone(),
        }
    }

    /// Fails where a file is missing or is not the one that was written.
    pub fn check_files(&self, folder: &Path) -> Result<()> {
        for arch in NvvmArch::ALL {
            if !self.files.iter().any(|file| file.file == file_name(arch)) {
                bail!("the manifest has no {arch}: run `cargo xtask build-ptx`");
            }
        }
        for file in &self.files {
            let path = folder.join(&file.file);
            let content =
                std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let sha256 = hex(&Sha256::digest(&content));
            if sha256 != file.sha256 || content.len() as u64 != file.bytes {
                bail!(
                    "{} was changed by hand: its SHA-256 is {sha256} ({} bytes), the manifest's {} ({} bytes); run `cargo \
                     xtask build-ptx`",
                    file.file,
                    content.len(),
                    file.sha256,
                    file.bytes
                );
            }
        }
        Ok(())
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> (tempfile::TempDir, Manifest) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut files = Vec::new();
        for arch in NvvmArch::ALL {
            let text = format!(".target {arch}\n");
            std::fs::create_dir(folder.path().join(arch.target_cpu())).expect("a folder");
            std::fs::write(folder.path().join(file_name(arch)), &text).expect("a file");
            files.push(PtxFile::of(
                arch,
                &text,
                vec!["gemv".to_owned()],
                Vec::new(),
            ));
        }
        let manifest = Manifest {
            rustc: "1.96.0".to_owned(),
            commit: "ac68faa20".to_owned(),
            llvm: "22.1.2".to_owned(),
            sources: String::new(),
            files,
        };
        manifest.write(folder.path()).expect("writable");
        (folder, manifest)
    }

    #[test]
    fn what_is_written_is_read_and_fits() {
        let (folder, manifest) = written();
        assert_eq!(Manifest::read(folder.path()).expect("readable"), manifest);
        manifest.check_files(folder.path()).expect("untouched");
        // SHA-256 of `.target sm_75\n`, by coreutils.
        assert_eq!(
            manifest.files[0].sha256,
            "e2b36e8c92ff3cbae2afec20058705ebdaaad32f39cd47abe05e1250a5a6cab4"
        );
    }

    #[test]
    fn a_changed_file_is_named() {
        let (folder, manifest) = written();
        std::fs::write(folder.path().join("sm_80/bitnet.ptx"), ".target sm_81\n").expect("a file");
        let error = manifest
            .check_files(folder.path())
            .expect_err("changed")
            .to_string();
        assert!(error.contains("sm_80/bitnet.ptx"), "{error}");
    }

    #[test]
    fn a_missing_file_and_a_missing_architecture_are_named() {
        let (folder, mut manifest) = written();
        std::fs::remove_file(folder.path().join("sm_90/bitnet.ptx")).expect("there");
        let error = format!(
            "{:#}",
            manifest.check_files(folder.path()).expect_err("missing")
        );
        assert!(error.contains("sm_90"), "{error}");
        manifest.files.remove(0);
        let error = format!(
            "{:#}",
            manifest.check_files(folder.path()).expect_err("missing")
        );
        assert!(error.contains("sm_75"), "{error}");
    }

    #[test]
    fn a_broken_manifest_says_how_to_mend_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let error = format!("{:#}", Manifest::read(folder.path()).expect_err("absent"));
        assert!(error.contains("cargo xtask build-ptx"), "{error}");
        std::fs::write(folder.path().join(FILE), "{\"rustc\":").expect("a file");
        let error = format!("{:#}", Manifest::read(folder.path()).expect_err("cut off"));
        assert!(error.contains("manifest.json"), "{error}");
    }

    #[test]
    fn another_llvm_is_another_compiler() {
        let (_folder, manifest) = written();
        let mut version = manifest.compiler();
        assert!(manifest.is_by(&version));
        version.llvm = "22.1.8".to_owned();
        assert!(!manifest.is_by(&version));
    }
}
