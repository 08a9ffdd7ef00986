//! Finding a rustc that compiles kernels.

use std::cmp::Reverse;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::CudaBuilderError;

/// Where `cargo xtask setup` unpacks a compiler, below the workspace's root.
pub const TOOLCHAIN_DIR: &str = "target/kernel-toolchain";

const TARGET: &str = "nvptx64-nvidia-cuda";

/// The oldest release whose NVPTX backend is known to do everything that `cuda_std` asks of it.
const MINIMUM: (u32, u32) = (1, 96);

/// A rustc that can compile for `nvptx64-nvidia-cuda`: one whose sysroot has that target, or the sources of
/// `core` to build it from.
///
/// They are looked for in this order:
///
/// 1. the environment variable `CUDA_BUILDER_RUSTC`, the path of a rustc. Where it is set (and not empty) it is used, or is an
///    error;
/// 2. rustup's toolchains, releases before nightlies and newer before older;
/// 3. [`TOOLCHAIN_DIR`] in the workspace.
#[derive(Clone, Debug)]
pub struct KernelCompiler {
    /// The compiler.
    pub rustc: PathBuf,
    /// Where it was found.
    pub origin: CompilerOrigin,
    /// What it says of itself.
    pub version: RustcVersion,
    sysroot: PathBuf,
    build_std: bool,
}

/// Where a compiler was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompilerOrigin {
    /// `CUDA_BUILDER_RUSTC`.
    Environment,
    /// A rustup toolchain.
    Rustup,
    /// [`TOOLCHAIN_DIR`].
    Unpacked,
}

/// `rustc --version --verbose`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RustcVersion {
    /// `1.96.0`, `1.97.0-nightly`.
    pub release: String,
    /// The commit it was built from, or `unknown`.
    pub commit: String,
    /// LLVM's version: `22.1.8`. Distributions may build the same rustc with another LLVM.
    pub llvm: String,
}

impl fmt::Display for RustcVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let commit = self.commit.get(..9).unwrap_or(&self.commit);
        write!(f, "rustc {} ({commit}, LLVM {})", self.release, self.llvm)
    }
}

impl RustcVersion {
    fn parse(verbose: &str) -> Option<Self> {
        let field = |name: &str| {
            verbose
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .map(str::to_owned)
        };
        Some(Self {
            release: field("release")?,
            commit: field("commit-hash").unwrap_or_else(|| "unknown".to_owned()),
            llvm: field("LLVM version")?,
        })
    }

    /// Major, minor and patch version, and whether it is a release rather than a beta or nightly.
    fn key(&self) -> (bool, u32, u32, u32) {
        let (numbers, suffix) = match self.release.split_once('-') {
            Some((numbers, _)) => (numbers, true),
            None => (self.release.as_str(), false),
        };
        let mut parts = numbers.split('.').map(|part| part.parse().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        (!suffix, next(), next(), next())
    }
}

impl KernelCompiler {
    /// The first compiler in the documented order.
    ///
    /// # Errors
    /// [`CudaBuilderError::NoCompiler`] with a line for each place that was tried;
    /// [`CudaBuilderError::UnfitCompiler`] where `CUDA_BUILDER_RUSTC` is set and cannot be used.
    pub fn find(workspace_root: &Path) -> Result<Self, CudaBuilderError> {
        let mut all = Self::candidates(workspace_root)?;
        Ok(all.remove(0))
    }

    /// Every compiler that could be used, in the documented order; never empty. With `CUDA_BUILDER_RUSTC` set, only
    /// that one.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn candidates(workspace_root: &Path) -> Result<Vec<Self>, CudaBuilderError> {
        let places = Places {
            environment: std::env::var_os("CUDA_BUILDER_RUSTC")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            rustup_home: std::env::var_os("RUSTUP_HOME")
                .map(PathBuf::from)
                .or_else(|| Some(std::env::home_dir()?.join(".rustup"))),
            unpacked: workspace_root.join(TOOLCHAIN_DIR),
        };
        places.candidates()
    }

    /// Checks the compiler at `rustc`. The error is what is wrong with it.
    fn probe(rustc: &Path, origin: CompilerOrigin) -> Result<Self, String> {
        if !rustc.is_file() {
            return Err("there is no such file".to_owned());
        }
        // cargo starts it in another folder. Links stay: rustup's `rustc` is one to a program that looks at its own name.
        let rustc = &std::path::absolute(rustc).map_err(|error| error.to_string())?;
        let run = |args: &[&str]| {
            let mut command = Command::new(rustc);
            command.args(args);
            command.env_remove("RUSTUP_TOOLCHAIN");
            if let Some(libraries) = own_libraries(rustc) {
                command.env("LD_LIBRARY_PATH", libraries);
            }
            match command.output() {
                Ok(output) if output.status.success() => {
                    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
                }
                Ok(output) => Err(format!(
                    "`{} {}` failed: {}",
                    rustc.display(),
                    args.join(" "),
                    String::from_utf8_lossy(&output.stderr).trim()
                )),
                Err(error) => Err(format!("it does not start: {error}")),
            }
        };
        let version = RustcVersion::parse(&run(&["--version", "--verbose"])?)
            .ok_or("`--version --verbose` names no release or no LLVM version")?;
        let (_, major, minor, _) = version.key();
        if (major, minor) < MINIMUM {
            return Err(format!(
                "it is rustc {}, and kernels need {}.{} or newer",
                version.release, MINIMUM.0, MINIMUM.1
            ));
        }
        let sysroot = PathBuf::from(run(&["--print", "sysroot"])?.trim());
        let rustlib = sysroot.join("lib/rustlib");
        let has_target = rustlib.join(TARGET).join("lib").is_dir();
        let has_source = rustlib.join("src/rust/library/core").is_dir();
        if !has_target && !has_source {
            return Err(format!(
                "rustc {} has neither the {TARGET} target nor rust-src",
                version.release
            ));
        }
        Ok(Self {
            rustc: rustc.clone(),
            origin,
            version,
            sysroot,
            build_std: has_source,
        })
    }

    /// The folder that `rustc --print sysroot` names.
    pub fn sysroot(&self) -> &Path {
        &self.sysroot
    }

    /// Whether `core` is compiled from source. It is wherever its source is there: then it is compiled for the very
    /// architecture, not for the target's default.
    pub fn builds_core(&self) -> bool {
        self.build_std
    }

    /// The value for `LD_LIBRARY_PATH` with which it starts; `None` where it needs none.
    pub(crate) fn library_path(&self) -> Option<OsString> {
        own_libraries(&self.rustc)
    }
}

/// Debian's compiler keeps its libraries where the system's loader looks for them, which is not where it was unpacked.
fn own_libraries(rustc: &Path) -> Option<OsString> {
    let usr = rustc.parent()?.parent()?;
    let libraries = usr.join("lib/x86_64-linux-gnu");
    let libraries = if libraries.is_dir() {
        libraries
    } else {
        usr.join("lib/aarch64-linux-gnu")
    };
    if usr == Path::new("/usr") || !libraries.is_dir() {
        return None;
    }
    let mut paths = vec![libraries];
    if let Some(inherited) = std::env::var_os("LD_LIBRARY_PATH") {
        paths.extend(std::env::split_paths(&inherited));
    }
    std::env::join_paths(paths).ok()
}

/// Where to look.
struct Places {
    environment: Option<PathBuf>,
    rustup_home: Option<PathBuf>,
    unpacked: PathBuf,
}

impl Places {
    fn candidates(&self) -> Result<Vec<KernelCompiler>, CudaBuilderError> {
        if let Some(rustc) = &self.environment {
            return match KernelCompiler::probe(rustc, CompilerOrigin::Environment) {
                Ok(compiler) => Ok(vec![compiler]),
                Err(why) => Err(CudaBuilderError::UnfitCompiler {
                    path: rustc.clone(),
                    why,
                }),
            };
        }
        let mut tried = vec!["CUDA_BUILDER_RUSTC: not set".to_owned()];
        let mut found = self.rustup(&mut tried);
        let unpacked = self.unpacked.join("usr/bin/rustc");
        match KernelCompiler::probe(&unpacked, CompilerOrigin::Unpacked) {
            Ok(compiler) => found.push(compiler),
            Err(why) => tried.push(format!("{}: {why}", unpacked.display())),
        }
        if found.is_empty() {
            return Err(CudaBuilderError::NoCompiler { tried });
        }
        Ok(found)
    }

    fn rustup(&self, tried: &mut Vec<String>) -> Vec<KernelCompiler> {
        let Some(home) = &self.rustup_home else {
            tried.push("rustup: neither RUSTUP_HOME nor a home folder is known".to_owned());
            return Vec::new();
        };
        let toolchains = home.join("toolchains");
        let folders = match std::fs::read_dir(&toolchains) {
            Ok(folders) => folders,
            Err(error) => {
                tried.push(format!("rustup's {}: {error}", toolchains.display()));
                return Vec::new();
            }
        };
        let mut folders: Vec<_> = folders.flatten().map(|entry| entry.path()).collect();
        folders.sort();
        let mut found = Vec::new();
        for folder in folders {
            match KernelCompiler::probe(&folder.join("bin/rustc"), CompilerOrigin::Rustup) {
                Ok(compiler) => found.push(compiler),
                Err(why) => tried.push(format!("rustup's {}: {why}", folder.display())),
            }
        }
        found.sort_by_key(|compiler| Reverse(compiler.version.key()));
        found
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A shell script that answers as a rustc with this release would, its sysroot beside it.
    fn fake(folder: &Path, release: &str, part: Option<&str>) -> PathBuf {
        let sysroot = folder.display();
        let script = format!(
            "#!/bin/sh\ncase \"$1\" in\n--version) printf 'rustc {release}\\ncommit-hash: abc\\nrelease: {release}\\nLLVM \
             version: 22.1.2\\n';;\n--print) echo '{sysroot}';;\nesac\n"
        );
        let rustc = folder.join("bin/rustc");
        fs::create_dir_all(folder.join("bin")).expect("writable");
        fs::write(&rustc, script).expect("writable");
        fs::set_permissions(&rustc, fs::Permissions::from_mode(0o755)).expect("writable");
        if let Some(part) = part {
            fs::create_dir_all(folder.join("lib/rustlib").join(part)).expect("writable");
        }
        rustc
    }

    const SOURCE: Option<&str> = Some("src/rust/library/core");

    fn places(root: &Path) -> Places {
        Places {
            environment: None,
            rustup_home: Some(root.join("rustup")),
            unpacked: root.join("unpacked"),
        }
    }

    #[test]
    fn rustups_newest_release_comes_first_and_the_unpacked_one_last() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let toolchain = |name| root.path().join("rustup/toolchains").join(name);
        fake(&toolchain("a"), "1.96.0", SOURCE);
        fake(&toolchain("b"), "1.101.0-nightly", SOURCE);
        fake(&toolchain("c"), "1.99.1", Some("nvptx64-nvidia-cuda/lib"));
        fake(&toolchain("old"), "1.95.0", SOURCE);
        fake(&toolchain("bare"), "1.98.0", None);
        fake(&root.path().join("unpacked/usr"), "1.97.0", SOURCE);
        let found = places(root.path()).candidates().expect("four that do");
        let seen: Vec<_> = found
            .iter()
            .map(|compiler| {
                (
                    compiler.version.release.as_str(),
                    compiler.origin,
                    compiler.builds_core(),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("1.99.1", CompilerOrigin::Rustup, false),
                ("1.96.0", CompilerOrigin::Rustup, true),
                ("1.101.0-nightly", CompilerOrigin::Rustup, true),
                ("1.97.0", CompilerOrigin::Unpacked, true),
            ]
        );
    }

    #[test]
    fn where_nothing_does_each_place_and_its_fault_is_named() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let toolchain = |name| root.path().join("rustup/toolchains").join(name);
        fake(&toolchain("old"), "1.95.0", SOURCE);
        fake(&toolchain("bare"), "1.98.0", None);
        let error = places(root.path())
            .candidates()
            .expect_err("none that does")
            .to_string();
        for part in [
            "CUDA_BUILDER_RUSTC: not set",
            "old: it is rustc 1.95.0, and kernels need 1.96 or newer",
            "bare: rustc 1.98.0 has neither",
            "unpacked/usr/bin/rustc: there is no such file",
            "cargo xtask setup",
            "rustup toolchain install",
        ] {
            assert!(error.contains(part), "`{part}` is not in:\n{error}");
        }
    }

    #[test]
    fn the_environment_decides_alone() {
        let root = tempfile::tempdir().expect("a temporary folder");
        fake(&root.path().join("unpacked/usr"), "1.97.0", SOURCE);
        let mut places = places(root.path());
        places.environment = Some(fake(&root.path().join("mine"), "1.98.0", SOURCE));
        let found = places.candidates().expect("it does");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].origin, CompilerOrigin::Environment);

        // A relative path does, too, and is the same compiler in any folder.
        let rustc = found[0].rustc.clone();
        let here = std::env::current_dir().expect("there is one");
        let mut relative: PathBuf = here.components().skip(1).map(|_| "..").collect();
        relative.extend(rustc.components().skip(1));
        places.environment = Some(relative);
        let found = places.candidates().expect("it does");
        assert!(found[0].rustc.is_absolute());
        assert_eq!(
            found[0].rustc.canonicalize().expect("there"),
            rustc.canonicalize().expect("there")
        );

        places.environment = Some(root.path().join("absent"));
        let error = places.candidates().expect_err("no such file");
        assert!(
            matches!(error, CudaBuilderError::UnfitCompiler { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("Unset it"), "{error}");
    }

    #[test]
    fn a_program_that_is_no_rustc_is_refused() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let mut places = places(root.path());
        places.environment = Some("/bin/true".into());
        let error = places.candidates().expect_err("not a rustc").to_string();
        assert!(error.contains("names no release"), "{error}");
    }
}
