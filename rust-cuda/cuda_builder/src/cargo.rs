//! Driving cargo.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::{CudaBuilderError, KernelCompiler, NvvmArch};

/// The kernel crate as cargo sees it.
pub struct Project {
    pub manifest: PathBuf,
    pub crate_name: String,
    /// Its library's name, which need not be the crate's.
    library: String,
    pub workspace_root: PathBuf,
    pub target_directory: PathBuf,
}

#[derive(Deserialize)]
struct Metadata {
    workspace_root: PathBuf,
    target_directory: PathBuf,
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Project {
    pub fn at(folder: &Path) -> Result<Self, CudaBuilderError> {
        let no_crate = |why: String| CudaBuilderError::NoCrate {
            path: folder.to_owned(),
            why,
        };
        let manifest = folder
            .join("Cargo.toml")
            .canonicalize()
            .map_err(|error| no_crate(format!("Cargo.toml: {error}")))?;
        let program = cargo_program();
        let output = Command::new(&program)
            .args([
                "metadata",
                "--no-deps",
                "--format-version",
                "1",
                "--manifest-path",
            ])
            .arg(&manifest)
            .output()
            .map_err(|source| CudaBuilderError::Run {
                program: program.clone(),
                source,
            })?;
        if !output.status.success() {
            return Err(no_crate(
                String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            ));
        }
        let metadata: Metadata =
            serde_json::from_slice(&output.stdout).map_err(|error| no_crate(error.to_string()))?;
        let package = metadata
            .packages
            .into_iter()
            .find(|package| package.manifest_path == manifest)
            .ok_or_else(|| no_crate("it is a workspace without a package of its own".to_owned()))?;
        let is_library = |target: &Target| target.kind.iter().any(|kind| kind.ends_with("lib"));
        let library = package
            .targets
            .into_iter()
            .find(is_library)
            .ok_or_else(|| no_crate("the package has no library".to_owned()))?;
        Ok(Self {
            manifest,
            crate_name: package.name,
            library: library.name,
            workspace_root: metadata.workspace_root,
            target_directory: metadata.target_directory,
        })
    }
}

/// The release profile for kernels, whatever the workspace's own says. One module for LLVM, so that every function can be
/// inlined into the kernels: a call in PTX goes through memory.
const PROFILE: [(&str, &str); 7] = [
    ("OPT_LEVEL", "3"),
    ("LTO", "fat"),
    ("CODEGEN_UNITS", "1"),
    ("PANIC", "abort"),
    ("DEBUG", "false"),
    ("DEBUG_ASSERTIONS", "false"),
    ("OVERFLOW_CHECKS", "false"),
];

/// The flags for what a workspace can set for single packages too, where it would take precedence over the environment. cargo
/// puts RUSTFLAGS after a package's own flags, and rustc takes the last.
const PACKAGE_FLAGS: [&str; 5] = [
    "-Copt-level=3",
    "-Ccodegen-units=1",
    "-Cdebuginfo=0",
    "-Cdebug-assertions=false",
    "-Coverflow-checks=false",
];

/// Everything but the sources and the compiler that decides what the PTX is.
pub fn flags(arch: NvvmArch) -> Vec<String> {
    let profile = PROFILE.map(|(name, value)| {
        let name = name.to_lowercase().replace('_', "-");
        format!("profile.release.{name}={value}")
    });
    compiler_flags(arch).into_iter().chain(profile).collect()
}

/// Of the kernels and of what they depend on.
fn compiler_flags(arch: NvvmArch) -> [String; 3] {
    [
        format!("-Ctarget-cpu={}", arch.target_cpu()),
        format!("-Ctarget-feature=+{}", arch.ptx_feature()),
        // This pass of rustc copies what stands between two branches on one condition into both sides of the first, also a barrier or
        // shuffle, which all threads then no longer execute together (docs/toolchain.md).
        "-Zmir-enable-passes=-JumpThreading".to_owned(),
    ]
}

/// What cargo left.
pub struct Compiled {
    pub asm: PathBuf,
    pub sources: Vec<PathBuf>,
    pub warnings: Vec<String>,
}

pub fn compile(
    project: &Project,
    compiler: &KernelCompiler,
    arch: NvvmArch,
    target_dir: &Path,
) -> Result<Compiled, CudaBuilderError> {
    // A folder for each architecture: in one they would build `core` anew in turns.
    let target_dir = target_dir.join(arch.target_cpu());
    let asm = target_dir.join(&project.crate_name).with_extension("s");
    let program = cargo_program();
    let mut command = Command::new(&program);
    command
        .args([
            "rustc",
            "--release",
            "--lib",
            "--target",
            "nvptx64-nvidia-cuda",
        ])
        .args(["--message-format", "json", "--crate-type", "cdylib"])
        .arg("--manifest-path")
        .arg(&project.manifest)
        .arg("--target-dir")
        .arg(&target_dir);
    // No path of this machine may reach the PTX. (`--remap-path-prefix` in RUSTFLAGS would do, and compile `core` anew for
    // every workspace.)
    command
        .arg("-Ztrim-paths")
        .env("CARGO_PROFILE_RELEASE_TRIM_PATHS", "object");
    if compiler.builds_core() {
        command.arg("-Zbuild-std=core");
    }
    let mut emit = OsString::from("--emit=asm=");
    emit.push(&asm);
    command.arg("--").arg(emit);

    // Settings of the caller's own build that would change the kernels'.
    for name in ["RUSTFLAGS", "CARGO_BUILD_TARGET", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    // Unlike removing them this also overrides cargo's configuration files.
    command
        .env("RUSTC_WRAPPER", "")
        .env("RUSTC_WORKSPACE_WRAPPER", "")
        .env("CARGO_INCREMENTAL", "0")
        .env("RUSTC", &compiler.rustc)
        // -Zbuild-std, and the features that the target's intrinsics are behind.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(arch));
    for (name, value) in PROFILE {
        command.env(format!("CARGO_PROFILE_RELEASE_{name}"), value);
    }
    if let Some(libraries) = compiler.library_path() {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    let output = command.output().map_err(|source| CudaBuilderError::Run {
        program: program.clone(),
        source,
    })?;

    let messages = compiler_messages(&output.stdout);
    if !output.status.success() {
        let mut text: String = messages
            .into_iter()
            .map(|message| message.rendered)
            .collect();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        return Err(CudaBuilderError::Compile {
            crate_name: project.crate_name.clone(),
            arch,
            compiler: compiler.version.to_string(),
            messages: text,
        });
    }
    let warnings = messages
        .into_iter()
        .filter(|message| message.level == "warning" && !is_about_the_flags(message))
        .map(|message| message.rendered)
        .collect();
    Ok(Compiled {
        asm,
        sources: sources(project, &target_dir)?,
        warnings,
    })
}

/// The cargo that runs this, or the one on the path. Any cargo drives any rustc.
fn cargo_program() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

fn rustflags(arch: NvvmArch) -> String {
    // The PTX is the assembly file; nothing is linked.
    let others = ["-Clinker=/bin/true"].into_iter().chain(PACKAGE_FLAGS);
    let flags = compiler_flags(arch)
        .into_iter()
        .chain(others.map(str::to_owned));
    flags.collect::<Vec<_>>().join("\x1f")
}

#[derive(Deserialize)]
struct Line {
    reason: String,
    message: Option<Diagnostic>,
}

#[derive(Deserialize)]
struct Diagnostic {
    message: String,
    level: String,
    rendered: String,
}

fn compiler_messages(stdout: &[u8]) -> Vec<Diagnostic> {
    stdout
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Line>(line).ok())
        .filter(|line| line.reason == "compiler-message")
        .filter_map(|line| line.message)
        .collect()
}

/// The manifest, the lock file, and what cargo lists for make: the sources of the crate and of its path dependencies.
fn sources(project: &Project, target_dir: &Path) -> Result<Vec<PathBuf>, CudaBuilderError> {
    let list = target_dir
        .join("nvptx64-nvidia-cuda/release")
        .join(project.library.replace('-', "_"))
        .with_extension("d");
    let mut sources = vec![
        project.manifest.clone(),
        project.workspace_root.join("Cargo.lock"),
    ];
    sources.extend(dependencies(&crate::read(&list)?));
    Ok(sources)
}

/// The files after the colon in `target: file file`, the format of make: a space in a name has a backslash in front.
fn dependencies(dep_info: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in dep_info.lines() {
        let Some((_, list)) = line.split_once(": ") else {
            continue;
        };
        let list = list.replace("\\ ", "\0");
        let names = list.split(' ').filter(|name| !name.is_empty());
        files.extend(names.map(|name| PathBuf::from(name.replace('\0', " "))));
    }
    files
}

/// rustc warns of every `ptxNN` feature that it may change its mind about it, and closes with a count.
fn is_about_the_flags(message: &Diagnostic) -> bool {
    message
        .message
        .starts_with("unstable feature specified for `-Ctarget-feature`")
        || (message.message.contains("warning") && message.message.ends_with("emitted"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_in_a_name_is_not_one_between_names() {
        let files = dependencies("/t/my\\ kernels.ptx: /my\\ k/lib.rs /k/a.rs\n");
        assert_eq!(files, ["/my k/lib.rs", "/k/a.rs"].map(PathBuf::from));
        assert!(dependencies("/t/kernels.ptx:\n").is_empty());
    }
}
