//! Compiles a kernel crate to PTX with rustc's own `nvptx64-nvidia-cuda` target, behind Rust-CUDA's
//! `CudaBuilder`.
//!
//! ```no_run
//! use cuda_builder::{CudaBuilder, NvvmArch};
//!
//! let output = CudaBuilder::new("kernels-gpu")
//!     .arch(NvvmArch::Compute90)
//!     .copy_to("target/kernels.ptx")
//!     .build()?;
//! println!("{} kernels by {}", output.entries.len(), output.compiler.version);
//! # Ok::<(), cuda_builder::CudaBuilderError>(())
//! ```
//!
//! The same sources, compiler and architecture give the same bytes, whatever the location of the sources. [`KernelCompiler`]
//! documents which compilers are searched for, and in what order.

mod arch;
mod cargo;
mod compiler;
mod error;
mod ptx;

use std::path::{Path, PathBuf};

pub use arch::NvvmArch;
pub use compiler::{CompilerOrigin, KernelCompiler, RustcVersion, TOOLCHAIN_DIR};
pub use error::CudaBuilderError;

/// Compiles one kernel crate for one architecture.
#[derive(Clone, Debug)]
pub struct CudaBuilder {
    path_to_crate: PathBuf,
    arch: NvvmArch,
    copy_to: Option<PathBuf>,
    compiler: Option<KernelCompiler>,
    target_dir: Option<PathBuf>,
}

/// The result of [`CudaBuilder::build`].
#[derive(Clone, Debug)]
pub struct CompileOutput {
    /// The PTX file: the path given to [`CudaBuilder::copy_to`], else a file in cargo's target folder.
    pub ptx: PathBuf,
    /// Names of the kernels, in the order of the file.
    pub entries: Vec<String>,
    /// The compiler that was used.
    pub compiler: KernelCompiler,
    /// The flags and profile settings that, with the sources and the compiler, determine the PTX.
    pub flags: Vec<String>,
    /// The files that it was compiled from, but for those of packages from a registry: when one changes, so may the PTX.
    pub sources: Vec<PathBuf>,
    /// rustc's warnings about the kernel crate and its path dependencies, as rustc renders them.
    pub warnings: Vec<String>,
}

impl CudaBuilder {
    /// A builder for the crate in the folder `path_to_crate`, for [`NvvmArch::Compute75`] unless [`Self::arch`] says
    /// otherwise.
    pub fn new(path_to_crate: impl AsRef<Path>) -> Self {
        Self {
            path_to_crate: path_to_crate.as_ref().to_owned(),
            arch: NvvmArch::default(),
            copy_to: None,
            compiler: None,
            target_dir: None,
        }
    }

    /// Compiles for `arch`. A GPU of that compute capability or any newer one can load the PTX.
    pub fn arch(mut self, arch: NvvmArch) -> Self {
        self.arch = arch;
        self
    }

    /// Also writes the PTX to `path`, creating its folder if needed.
    pub fn copy_to(mut self, path: impl AsRef<Path>) -> Self {
        self.copy_to = Some(path.as_ref().to_owned());
        self
    }

    /// Uses this compiler, instead of the first that [`KernelCompiler::find`] finds.
    pub fn compiler(mut self, compiler: KernelCompiler) -> Self {
        self.compiler = Some(compiler);
        self
    }

    /// Lets cargo keep what it builds below this folder, instead of in `ptx/` of the crate's own target folder.
    pub fn target_dir(mut self, folder: impl AsRef<Path>) -> Self {
        self.target_dir = Some(folder.as_ref().to_owned());
        self
    }

    /// Compiles the crate.
    ///
    /// In a build script (where `OUT_DIR` is set) it also tells cargo to run the script again when one of
    /// [`CompileOutput::sources`] or `CUDA_BUILDER_RUSTC` changes. Cargo then watches nothing else, so the script has to name
    /// its other files itself (`cargo::rerun-if-changed`).
    ///
    /// # Errors
    /// Where there is no kernel compiler, the crate does not compile or calls a function that nothing defines, or a file
    /// cannot be read or written. The message says which, and what to do.
    pub fn build(self) -> Result<CompileOutput, CudaBuilderError> {
        let project = cargo::Project::at(&self.path_to_crate)?;
        let compiler = match self.compiler {
            Some(compiler) => compiler,
            None => KernelCompiler::find(&project.workspace_root)?,
        };
        let target_dir = match self.target_dir {
            Some(folder) => folder,
            None => project.target_directory.join("ptx"),
        };
        // rustc runs in another folder than this process.
        let target_dir =
            std::path::absolute(&target_dir).map_err(|source| CudaBuilderError::File {
                action: "find",
                path: target_dir,
                source,
            })?;
        let compiled = cargo::compile(&project, &compiler, self.arch, &target_dir)?;
        let asm = read(&compiled.asm)?;
        let text = ptx::finish(&asm)?;
        let entries = ptx::entries(&text);
        let ptx = self
            .copy_to
            .unwrap_or_else(|| compiled.asm.with_extension("ptx"));
        write(&ptx, &text)?;
        if std::env::var_os("OUT_DIR").is_some() {
            println!("cargo::rerun-if-env-changed=CUDA_BUILDER_RUSTC");
            for file in &compiled.sources {
                println!("cargo::rerun-if-changed={}", file.display());
            }
        }
        Ok(CompileOutput {
            ptx,
            entries,
            flags: cargo::flags(self.arch),
            compiler,
            sources: compiled.sources,
            warnings: compiled.warnings,
        })
    }
}

fn read(path: &Path) -> Result<String, CudaBuilderError> {
    std::fs::read_to_string(path).map_err(|source| CudaBuilderError::File {
        action: "read",
        path: path.to_owned(),
        source,
    })
}

fn write(path: &Path, text: &str) -> Result<(), CudaBuilderError> {
    let write = || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, text)
    };
    write().map_err(|source| CudaBuilderError::File {
        action: "write",
        path: path.to_owned(),
        source,
    })
}
