//! A hash of everything that the kernels are compiled from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// Folders whose manifest and `src` decide what the PTX is.
const CRATES: [&str; 3] = [
    "kernels-gpu",
    "rust-cuda/cuda_std",
    "rust-cuda/cuda_std_macros",
];

/// SHA-256 over the path, length and content of each manifest and source file, in the order of their paths.
pub fn hash(root: &Path) -> Result<String> {
    let mut files = Vec::new();
    for folder in CRATES {
        files.push(PathBuf::from(folder).join("Cargo.toml"));
        list(root, &PathBuf::from(folder).join("src"), &mut files)?;
    }
    files.sort();
    let mut hasher = Sha256::new();
    for file in files {
        let content = fs::read(root.join(&file))
            .with_context(|| format!("cannot read {}", file.display()))?;
        hasher.update(file.to_string_lossy().as_bytes());
        hasher.update([0]);
        hasher.update((content.len() as u64).to_le_bytes());
        hasher.update(&content);
    }
    Ok(super::manifest::hex(&hasher.finalize()))
}

fn list(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(root.join(folder))
        .with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(root, &path, files)?;
        } else if is_source(&path) {
            files.push(path);
        }
    }
    Ok(())
}

/// Editors put files of their own beside the sources.
fn is_source(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy());
    name.is_some_and(|name| name.ends_with(".rs") && !name.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary folder");
        for folder in CRATES {
            fs::create_dir_all(root.path().join(folder).join("src")).expect("folders");
            fs::write(root.path().join(folder).join("Cargo.toml"), "").expect("a file");
        }
        for (path, content) in files {
            fs::write(root.path().join(path), content).expect("a file");
        }
        root
    }

    #[test]
    fn names_contents_and_their_borders_count() {
        let base = tree(&[("kernels-gpu/src/a.rs", "x"), ("kernels-gpu/src/b.rs", "y")]);
        let same = tree(&[("kernels-gpu/src/b.rs", "y"), ("kernels-gpu/src/a.rs", "x")]);
        let reference = hash(base.path()).expect("readable");
        assert_eq!(reference, hash(same.path()).expect("readable"));
        assert_eq!(reference.len(), 64);
        for name in [".a.rs.swp", ".#a.rs", "a.rs~"] {
            fs::write(base.path().join("kernels-gpu/src").join(name), "").expect("a file");
        }
        assert_eq!(reference, hash(base.path()).expect("readable"));
        let others = [
            tree(&[("kernels-gpu/src/a.rs", "x"), ("kernels-gpu/src/b.rs", "z")]),
            tree(&[("kernels-gpu/src/a.rs", "x"), ("kernels-gpu/src/c.rs", "y")]),
            tree(&[("kernels-gpu/src/a.rs", "xy"), ("kernels-gpu/src/b.rs", "")]),
            tree(&[
                ("kernels-gpu/src/a.rs", "x"),
                ("rust-cuda/cuda_std/src/b.rs", "y"),
            ]),
        ];
        for other in others {
            assert_ne!(reference, hash(other.path()).expect("readable"));
        }
    }
}
