//! A library of cuBLAS, opened where the loader finds it.

use crate::bench::peers::PeerError;
use bitnet_cuda::device::ForeignError;
use libloading::Library;
use std::ffi::c_int;
use std::path::PathBuf;

/// Opens the first of these names that the loader finds.
pub fn open(names: [&'static str; 4]) -> Result<Symbols, PeerError> {
    let mut last = None;
    for name in names {
        // SAFETY: cuBLAS's initializers ask for nothing.
        match unsafe { Library::new(name) } {
            Ok(library) => return Ok(Symbols { name, library }),
            // The first error is about the newest version, and as good as the others.
            Err(error) => last = Some(last.unwrap_or(error)),
        }
    }
    let last = last.expect("there is a name to try");
    Err(PeerError::NotFound {
        tried: names.join(", "),
        last,
    })
}

/// An open library.
pub struct Symbols {
    name: &'static str,
    library: Library,
}

impl Symbols {
    /// A function of the library, which has to stay open while it is called.
    ///
    /// # Safety
    /// `T` is the function's type.
    pub unsafe fn function<T: Copy>(&self, symbol: &'static str) -> Result<T, PeerError> {
        // SAFETY: of this type, says the caller.
        unsafe { self.library.get::<T>(symbol) }
            .map(|function| *function)
            .map_err(|reason| PeerError::NoSymbol {
                path: PathBuf::from(self.name),
                symbol,
                reason,
            })
    }
}

/// A version such as `12.4.5`, from how the libraries have encoded it since 11: `major * 10000 + minor * 100 + patch`.
pub fn version(encoded: usize) -> String {
    let (major, rest) = (encoded / 10_000, encoded % 10_000);
    format!("{major}.{}.{}", rest / 100, rest % 100)
}

/// What a function returned, a `cublasStatus_t`, as an error that names it.
pub fn check(call: &'static str, status: c_int) -> Result<(), ForeignError> {
    let name = match status {
        0 => return Ok(()),
        1 => "CUBLAS_STATUS_NOT_INITIALIZED",
        3 => "CUBLAS_STATUS_ALLOC_FAILED",
        7 => "CUBLAS_STATUS_INVALID_VALUE",
        8 => "CUBLAS_STATUS_ARCH_MISMATCH",
        13 => "CUBLAS_STATUS_EXECUTION_FAILED",
        14 => "CUBLAS_STATUS_INTERNAL_ERROR",
        15 => "CUBLAS_STATUS_NOT_SUPPORTED",
        _ => "a cublasStatus_t",
    };
    Err(ForeignError {
        call,
        name: name.to_owned(),
        code: status,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_version_has_three_parts() {
        assert_eq!(super::version(120_405), "12.4.5");
    }
}
