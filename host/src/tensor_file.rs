//! Tensors in safetensors files: reading weights and activations, writing results.
//!
//! Float weights become a layer with [`BitLinear::from_weights`]. Weights packed at 2 bits by transformers, with a separate
//! scale, are used directly:
//!
//! ```no_run
//! use bitnet_cuda::device::Device;
//! use bitnet_cuda::layout::Layout;
//! use bitnet_cuda::ops::BitLinear;
//! use bitnet_cuda::ops::RowScales;
//! use bitnet_cuda::tensor_file::TensorFile;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let file = TensorFile::open("model.safetensors")?;
//! let weights = file.packed_weights("model.layers.0.mlp.down_proj.weight", Layout::Tiled)?;
//! let scale = file.scalar("model.layers.0.mlp.down_proj.weight_scale")?;
//! let scales = RowScales::per_tensor(weights.n(), scale)?;
//! let layer = BitLinear::from_packed(&Device::auto()?, &weights, &scales)?;
//! # Ok(())
//! # }
//! ```
//!
//! The class `AutoBitLinear` of transformers multiplies by `weight_scale`, as this library does. Its class `BitLinear`
//! (`"linear_class": "bitlinear"` in the model's `config.json`, which is also the default) divides by it; for such a model, pass
//! the reciprocal.
//!
//! Q, K and V, or gate and up, are joined into one layer with [`PackedWeights::concat`].
//!
//! [`BitLinear::from_weights`]: crate::ops::BitLinear::from_weights

mod header;

use std::path::{Path, PathBuf};
use std::{fmt, io};

use half::{bf16, f16};
use safetensors::tensor::{TensorView, serialize};
use safetensors::{SafeTensorError, SafeTensors};

pub use safetensors::Dtype;

use crate::layout::{Layout, LayoutError, PackedWeights};
use crate::reference::Element;
use crate::whole_file;

/// The one key of a file's header that is no tensor.
const METADATA: &str = "__metadata__";

/// A safetensors file, read and validated.
pub struct TensorFile {
    path: PathBuf,
    bytes: Vec<u8>,
}

/// A matrix from a file, as f32.
#[derive(Clone, PartialEq)]
pub struct Matrix {
    /// Size of the first dimension.
    pub rows: usize,
    /// Size of the second dimension.
    pub cols: usize,
    /// The elements in row-major order; f16 and bf16 are converted exactly.
    pub data: Vec<f32>,
    /// The type in the file: F32, F16 or BF16.
    pub dtype: Dtype,
}

/// A file that cannot be read or written, or does not contain what was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorFileError {
    /// The operating system returned an error.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The bytes are not a complete safetensors file.
    #[error(
        "{} ({len} bytes) is not a complete safetensors file; it may be truncated, fetch or convert it again",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
        /// What is wrong with it.
        source: FormatError,
    },
    /// There is no tensor of that name.
    #[error("{} has no tensor {name:?}; it has {available}", path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The name asked for.
        name: String,
        /// The names in the file.
        available: TensorNames,
    },
    /// The type of the tensor's elements is not accepted here.
    #[error("tensor {name:?} in {} is {dtype:?}: {expected} is needed", path.display())]
    WrongDtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        dtype: Dtype,
        /// The accepted types.
        expected: &'static str,
    },
    /// The tensor has not exactly one element.
    #[error("tensor {name:?} in {} has shape {shape:?}: a single element is needed", path.display())]
    NotScalar {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// The tensor's bytes are not packed weights.
    #[error("tensor {name:?} in {} is not packed weights", path.display())]
    NotWeights {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong with them.
        source: LayoutError,
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
    /// The name is not one that a tensor can have.
    #[error(
        "a tensor cannot be named {name:?}, which is where the format has its metadata: nothing was written"
    )]
    ReservedName {
        /// The name.
        name: String,
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

/// What is wrong with a file's format, in one line: safetensors' own message may quote the file, control characters included.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.to_string().escape_debug())]
pub struct FormatError(pub SafeTensorError);

/// Names of tensors, sorted; printed as a list that ends early where there are many, without line breaks or other control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorNames(pub Vec<String>);

impl fmt::Debug for TensorFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TensorFile")
            .field("path", &self.path)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matrix")
            .field("rows", &self.rows)
            .field("cols", &self.cols)
            .field("dtype", &self.dtype)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for TensorNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 20;
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, name) in self.0.iter().take(SHOWN).enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{}", name.escape_debug())?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl TensorFile {
    /// Reads a whole file and checks that it is complete.
    ///
    /// # Errors
    /// When it cannot be read, is truncated, is not in the safetensors format, or names a tensor twice.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, TensorFileError> {
        let path = path.as_ref();
        match whole_file::read(path) {
            Ok(bytes) => Self::from_bytes(path, bytes),
            Err(source) => Err(TensorFileError::Io {
                action: "read",
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Parses the bytes of a file; errors refer to it as `path`.
    ///
    /// # Errors
    /// When they are truncated, not in the safetensors format, or name a tensor twice.
    pub fn from_bytes(path: impl AsRef<Path>, bytes: Vec<u8>) -> Result<Self, TensorFileError> {
        let file = Self {
            path: path.as_ref().to_owned(),
            bytes,
        };
        file.parse()?;
        header::require_distinct_names(&file.bytes).map_err(|error| file.malformed(error))?;
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

    /// The type of a tensor's elements.
    ///
    /// # Errors
    /// When there is no tensor of that name.
    pub fn dtype(&self, name: &str) -> Result<Dtype, TensorFileError> {
        Ok(self.tensor(&self.parse()?, name)?.dtype())
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

    /// The only element of a tensor of any rank, as f32.
    ///
    /// # Errors
    /// When there is none of that name, it has more elements or none, or is not F32, F16 or BF16.
    pub fn scalar(&self, name: &str) -> Result<f32, TensorFileError> {
        let tensors = self.parse()?;
        let tensor = self.tensor(&tensors, name)?;
        match self.floats(name, &tensor)?[..] {
            [value] => Ok(value),
            _ => Err(TensorFileError::NotScalar {
                path: self.path.clone(),
                name: name.to_owned(),
                shape: tensor.shape().to_owned(),
            }),
        }
    }

    /// Ternary weights `[n, k]` in a U8 tensor `[n / 4, k]`, as Hugging Face's transformers packs them, in `layout`.
    ///
    /// # Errors
    /// When there is none of that name, it has another rank or type, or as [`PackedWeights::from_transformers`].
    pub fn packed_weights(
        &self,
        name: &str,
        layout: Layout,
    ) -> Result<PackedWeights, TensorFileError> {
        let tensors = self.parse()?;
        let tensor = self.tensor(&tensors, name)?;
        if tensor.dtype() != Dtype::U8 {
            return Err(self.wrong_dtype(name, &tensor, "U8"));
        }
        let &[rows, k] = tensor.shape() else {
            return Err(self.wrong_rank(name, &tensor, 2));
        };
        PackedWeights::from_transformers(layout, tensor.data(), rows, k).map_err(|source| {
            TensorFileError::NotWeights {
                path: self.path.clone(),
                name: name.to_owned(),
                source,
            }
        })
    }

    fn read(
        &self,
        name: &str,
        rank: usize,
    ) -> Result<(Vec<usize>, Vec<f32>, Dtype), TensorFileError> {
        let tensors = self.parse()?;
        let tensor = self.tensor(&tensors, name)?;
        if tensor.shape().len() != rank {
            return Err(self.wrong_rank(name, &tensor, rank));
        }
        let data = self.floats(name, &tensor)?;
        Ok((tensor.shape().to_owned(), data, tensor.dtype()))
    }

    fn tensor<'a>(
        &self,
        tensors: &SafeTensors<'a>,
        name: &str,
    ) -> Result<TensorView<'a>, TensorFileError> {
        tensors
            .tensor(name)
            .map_err(|_| TensorFileError::MissingTensor {
                path: self.path.clone(),
                name: name.to_owned(),
                available: self.names(),
            })
    }

    fn floats(&self, name: &str, tensor: &TensorView<'_>) -> Result<Vec<f32>, TensorFileError> {
        let (twos, _) = tensor.data().as_chunks::<2>();
        let (fours, _) = tensor.data().as_chunks::<4>();
        match tensor.dtype() {
            Dtype::F32 => Ok(fours.iter().map(|&b| f32::from_le_bytes(b)).collect()),
            Dtype::F16 => Ok(twos
                .iter()
                .map(|&b| f16::from_le_bytes(b).to_f32())
                .collect()),
            Dtype::BF16 => Ok(twos
                .iter()
                .map(|&b| bf16::from_le_bytes(b).to_f32())
                .collect()),
            _ => Err(self.wrong_dtype(name, tensor, "F32, F16 or BF16")),
        }
    }

    fn wrong_dtype(
        &self,
        name: &str,
        tensor: &TensorView<'_>,
        expected: &'static str,
    ) -> TensorFileError {
        TensorFileError::WrongDtype {
            path: self.path.clone(),
            name: name.to_owned(),
            dtype: tensor.dtype(),
            expected,
        }
    }

    fn wrong_rank(&self, name: &str, tensor: &TensorView<'_>, expected: usize) -> TensorFileError {
        TensorFileError::WrongRank {
            path: self.path.clone(),
            name: name.to_owned(),
            shape: tensor.shape().to_owned(),
            expected,
        }
    }

    fn parse(&self) -> Result<SafeTensors<'_>, TensorFileError> {
        SafeTensors::deserialize(&self.bytes).map_err(|error| self.malformed(error))
    }

    fn malformed(&self, error: SafeTensorError) -> TensorFileError {
        TensorFileError::Malformed {
            path: self.path.clone(),
            len: self.bytes.len(),
            source: FormatError(error),
        }
    }
}

/// Writes a matrix as the only tensor of a new file, or in place of an old one, in one step: no reader sees half a file.
///
/// # Errors
/// When `data.len() != rows * cols`, the name is `__metadata__`, the file cannot be written, or the path names something other than a file.
/// An old file is unchanged in that case.
pub fn write_matrix<T: Element>(
    path: impl AsRef<Path>,
    name: &str,
    rows: usize,
    cols: usize,
    data: &[T],
) -> Result<(), TensorFileError> {
    let path = path.as_ref();
    if name == METADATA {
        return Err(TensorFileError::ReservedName {
            name: name.to_owned(),
        });
    }
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
    serialize([(name, view)], None)
        .map_err(io::Error::other)
        .and_then(|file| whole_file::write(path, &file))
        .map_err(|source| TensorFileError::Io {
            action: "write",
            path: path.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests;
