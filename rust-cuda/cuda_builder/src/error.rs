//! Errors of the build.

use std::path::PathBuf;

/// Why there is no PTX.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CudaBuilderError {
    /// No compiler for kernels was found.
    #[error(
        "no compiler for kernels found.\n{}\nDo one of these:\n  \
         - `cargo xtask setup`, which gets one into target/\n  \
         - `rustup toolchain install 1.96.0 --component rust-src`\n  \
         - set CUDA_BUILDER_RUSTC to a rustc 1.96 or newer that has rust-src or the nvptx64-nvidia-cuda target",
        tried.iter().map(|line| format!("  tried {line}")).collect::<Vec<_>>().join("\n")
    )]
    NoCompiler {
        /// A line for each place that was searched: what it is, and why it is not usable.
        tried: Vec<String>,
    },
    /// `CUDA_BUILDER_RUSTC` names something that cannot compile kernels.
    #[error("CUDA_BUILDER_RUSTC={}: {why}. Unset it to let another compiler be found", path.display())]
    UnfitCompiler {
        /// The value of the variable.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A program could not be started.
    #[error("cannot run `{}`: {source}", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The folder given to the builder holds no crate that cargo can read.
    #[error("`{}` is not a cargo package: {why}", path.display())]
    NoCrate {
        /// The folder.
        path: PathBuf,
        /// What cargo said.
        why: String,
    },
    /// rustc refused the kernel crate.
    #[error("{crate_name} does not compile for {arch} with {compiler}:\n{messages}")]
    Compile {
        /// The kernel crate.
        crate_name: String,
        /// The architecture.
        arch: crate::NvvmArch,
        /// The compiler's version.
        compiler: String,
        /// rustc's and cargo's messages.
        messages: String,
    },
    /// The compiler's output is not as expected.
    #[error("line {line} of the compiler's output: {what}")]
    Ptx {
        /// Line number in the file that rustc wrote, from 1.
        line: usize,
        /// What is wrong there.
        what: String,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// `read`, `write` or `find`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}
