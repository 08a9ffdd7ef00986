//! Tensors in safetensors files: reading weights and activations, writing results.

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use half::{bf16, f16};
use safetensors::tensor::{TensorView, serialize_to_file};
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use crate::reference::Element;

/// A safetensors file, read and validated.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    bytes: Vec<u8>,
}

/// A matrix from a file, as f32.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Size of the first dimension.
    pub rows: usize,
    /// Size of the second dimension.
    pub cols: usize,
    /// The elements in row-major order; f16 and bf16 are converted exactly.
    pub data: Vec<f32>,
    /// The type that the file holds: F32, F16 or BF16.
    pub dtype: Dtype,
}

/// A file that cannot be read or written, or does not hold what was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorFileError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The bytes are no complete safetensors file.
    #[error(
        "{} ({len} bytes) is not a complete safetensors file: {source}; \
         it may be truncated, fetch or convert it again",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
        /// What is wrong with it.
        source: SafeTensorError,
    },
    /// There is no tensor of that name.
    #[error("{} has no tensor {name:?}; it has {available}", path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The name asked for.
        name: String,
        /// The names that there are.
        available: TensorNames,
    },
    /// The tensor's elements are not of a floating-point type that is supported.
    #[error("tensor {name:?} in {} is {dtype:?}: convert it to F32, F16 or BF16", path.display())]
    WrongDtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        dtype: Dtype,
    },
    /// The tensor has another number of dimensions.
    #[error(
        "tensor {name:?} in {} has shape {shape:?}: one of {expected} dimension(s) is needed",
        path.display()
    )]
    WrongRank {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Dimensions asked for.
        expected: usize,
    },
    /// The data to be written does not fill the shape.
    #[error(
        "{actual} elements given for a tensor {name:?} of {rows} x {cols}: nothing was written"
    )]
    WrongLength {
        /// The tensor.
        name: String,
        /// Its rows.
        rows: usize,
        /// Its columns.
        cols: usize,
        /// Elements given.
        actual: usize,
    },
}

/// Names of tensors, sorted; printed as a list that ends early where there are many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorNames(pub Vec<String>);

impl fmt::Display for TensorNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 20;
        if self.0.is_empty() {
            return f.write_str("none");
        }
        f.write_str(&self.0[..self.0.len().min(SHOWN)].join(", "))?;
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl TensorFile {
    /// Reads a file whole, and checks that it is complete.
    ///
    /// # Errors
    /// When it cannot be read, is truncated or is not in the safetensors format.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, TensorFileError> {
        let path = path.as_ref();
        match fs::read(path) {
            Ok(bytes) => Self::from_bytes(path, bytes),
            Err(source) => Err(TensorFileError::Io {
                action: "read",
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Takes the bytes of a file, which errors call `path`.
    ///
    /// # Errors
    /// When they are truncated or not in the safetensors format.
    pub fn from_bytes(path: impl AsRef<Path>, bytes: Vec<u8>) -> Result<Self, TensorFileError> {
        let file = Self {
            path: path.as_ref().to_owned(),
            bytes,
        };
        file.parse()?;
        Ok(file)
    }

    /// The names of the tensors, sorted.
    pub fn names(&self) -> TensorNames {
        // `from_bytes` has parsed the same bytes.
        let mut names: Vec<_> = self
            .parse()
            .map(|tensors| tensors.names().into_iter().map(str::to_owned).collect())
            .unwrap_or_default();
        names.sort_unstable();
        TensorNames(names)
    }

    /// A tensor of two dimensions.
    ///
    /// # Errors
    /// When there is none of that name, it has another rank, or is not F32, F16 or BF16.
    pub fn matrix(&self, name: &str) -> Result<Matrix, TensorFileError> {
        let (shape, data, dtype) = self.read(name, 2)?;
        Ok(Matrix {
            rows: shape[0],
            cols: shape[1],
            data,
            dtype,
        })
    }

    /// A tensor of one dimension, as f32.
    ///
    /// # Errors
    /// As [`TensorFile::matrix`].
    pub fn vector(&self, name: &str) -> Result<Vec<f32>, TensorFileError> {
        self.read(name, 1).map(|(_, data, _)| data)
    }

    fn read(
        &self,
        name: &str,
        rank: usize,
    ) -> Result<(Vec<usize>, Vec<f32>, Dtype), TensorFileError> {
        let tensors = self.parse()?;
        let Ok(tensor) = tensors.tensor(name) else {
            return Err(TensorFileError::MissingTensor {
                path: self.path.clone(),
                name: name.to_owned(),
                available: self.names(),
            });
        };
        if tensor.shape().len() != rank {
            return Err(TensorFileError::WrongRank {
                path: self.path.clone(),
                name: name.to_owned(),
                shape: tensor.shape().to_owned(),
                expected: rank,
            });
        }
        let (twos, _) = tensor.data().as_chunks::<2>();
        let (fours, _) = tensor.data().as_chunks::<4>();
        let data = match tensor.dtype() {
            Dtype::F32 => fours.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Dtype::F16 => twos
                .iter()
                .map(|&b| f16::from_le_bytes(b).to_f32())
                .collect(),
            Dtype::BF16 => twos
                .iter()
                .map(|&b| bf16::from_le_bytes(b).to_f32())
                .collect(),
            dtype => {
                return Err(TensorFileError::WrongDtype {
                    path: self.path.clone(),
                    name: name.to_owned(),
                    dtype,
                });
            }
        };
        Ok((tensor.shape().to_owned(), data, tensor.dtype()))
    }

    fn parse(&self) -> Result<SafeTensors<'_>, TensorFileError> {
        SafeTensors::deserialize(&self.bytes).map_err(|source| TensorFileError::Malformed {
            path: self.path.clone(),
            len: self.bytes.len(),
            source,
        })
    }
}

/// Writes a matrix as the only tensor of a new file, or in place of an old one.
///
/// # Errors
/// When `data.len() != rows * cols`, or the file cannot be written.
pub fn write_matrix<T: Element>(
    path: impl AsRef<Path>,
    name: &str,
    rows: usize,
    cols: usize,
    data: &[T],
) -> Result<(), TensorFileError> {
    let path = path.as_ref();
    let wrong_length = || TensorFileError::WrongLength {
        name: name.to_owned(),
        rows,
        cols,
        actual: data.len(),
    };
    if rows.checked_mul(cols) != Some(data.len()) {
        return Err(wrong_length());
    }
    let bytes = T::to_le_bytes(data);
    let view = TensorView::new(T::DTYPE, vec![rows, cols], &bytes).map_err(|_| wrong_length())?;
    serialize_to_file([(name, view)], None, path).map_err(|error| {
        let source = match error {
            SafeTensorError::IoError(error) => error,
            other => io::Error::other(other),
        };
        TensorFileError::Io {
            action: "write",
            path: path.to_owned(),
            source,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written<T: Element>(rows: usize, cols: usize, values: &[T]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        write_matrix(&path, "w", rows, cols, values).unwrap();
        (folder, path)
    }

    #[test]
    fn every_dtype_comes_back_as_it_was_written() {
        let values = [0.0, -0.0, 1.5, f32::NAN, f32::INFINITY, -65504.0];
        fn check<T: Element>(values: [f32; 6]) {
            let (_folder, path) = written(2, 3, &values.map(T::from_f32));
            let matrix = TensorFile::open(&path).unwrap().matrix("w").unwrap();
            assert_eq!((matrix.rows, matrix.cols, matrix.dtype), (2, 3, T::DTYPE));
            let expected = values.map(|value| T::from_f32(value).to_f32().to_bits());
            assert_eq!(
                matrix.data.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
                expected
            );
        }
        check::<f32>(values);
        check::<f16>(values);
        check::<bf16>(values);
    }

    #[test]
    fn a_file_cut_anywhere_is_malformed() {
        let (_folder, path) = written(2, 3, &[1.0_f32; 6]);
        let bytes = fs::read(&path).unwrap();
        for len in 0..bytes.len() {
            fs::write(&path, &bytes[..len]).unwrap();
            let error = TensorFile::open(&path).unwrap_err();
            assert!(matches!(error, TensorFileError::Malformed { len: l, .. } if l == len));
            assert!(
                error.to_string().contains(&format!("({len} bytes)")),
                "{error}"
            );
        }
        fs::write(&path, [bytes.as_slice(), &[0]].concat()).unwrap();
        assert!(matches!(
            TensorFile::open(&path),
            Err(TensorFileError::Malformed { .. })
        ));
    }

    #[test]
    fn what_is_not_in_the_file_is_named() {
        let (folder, path) = written(2, 3, &[1.0_f32; 6]);
        let file = TensorFile::open(&path).unwrap();
        let error = file.matrix("v").unwrap_err().to_string();
        assert!(error.ends_with("has no tensor \"v\"; it has w"), "{error}");
        let error = file.vector("w").unwrap_err();
        assert!(
            matches!(&error, TensorFileError::WrongRank { shape, expected: 1, .. } if *shape == [2, 3]),
            "{error}"
        );
        let missing = TensorFile::open(folder.path().join("none")).unwrap_err();
        assert!(
            matches!(missing, TensorFileError::Io { action: "read", .. }),
            "{missing}"
        );

        let integers = TensorView::new(Dtype::I8, vec![1, 2], &[1, 2]).unwrap();
        serialize_to_file([("q", integers)], None, &path).unwrap();
        let error = TensorFile::open(&path).unwrap().matrix("q").unwrap_err();
        assert!(
            matches!(
                &error,
                TensorFileError::WrongDtype {
                    dtype: Dtype::I8,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn a_wrong_length_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let error = write_matrix(&path, "w", 2, 3, &[1.0_f32; 5]).unwrap_err();
        assert!(
            matches!(error, TensorFileError::WrongLength { actual: 5, .. }),
            "{error}"
        );
        assert!(!path.exists());
        let unwritable = write_matrix(folder.path(), "w", 1, 1, &[1.0_f32]).unwrap_err();
        assert!(
            matches!(
                unwritable,
                TensorFileError::Io {
                    action: "write",
                    ..
                }
            ),
            "{unwritable}"
        );
    }

    #[test]
    fn long_lists_of_names_end_early() {
        let names = |n: usize| TensorNames((0..n).map(|i| i.to_string()).collect()).to_string();
        assert_eq!(names(0), "none");
        assert_eq!(names(3), "0, 1, 2");
        assert!(names(21).ends_with("18, 19 and 1 more"));
    }
}
