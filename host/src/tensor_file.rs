//! Tensors in safetensors files: reading weights and activations, writing results.
//!
//! Float weights become a layer by [`BitLinear::from_weights`]. Weights that transformers has packed at 2 bits, with a scale beside
//! them, are a layer as they are:
//!
//! ```no_run
//! use bitnet_cuda::device::Device;
//! use bitnet_cuda::layout::Layout;
//! use bitnet_cuda::ops::BitLinear;
//! use bitnet_cuda::reference::RowScales;
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
//! The class `AutoBitLinear` of transformers multiplies with `weight_scale`, as this library does. Its class `BitLinear`
//! (`"linear_class": "bitlinear"` in the model's `config.json`, and where it says nothing) divides by it: take the reciprocal there.
//!
//! Q, K and V, or gate and up, become one layer by [`PackedWeights::concat`].
//!
//! [`BitLinear::from_weights`]: crate::ops::BitLinear::from_weights

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use half::{bf16, f16};
use safetensors::tensor::{TensorView, serialize};
use safetensors::{SafeTensorError, SafeTensors};

pub use safetensors::Dtype;

use crate::layout::{Layout, LayoutError, PackedWeights};
use crate::new_file;
use crate::reference::Element;

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
    /// The type that the file holds: F32, F16 or BF16.
    pub dtype: Dtype,
}

/// A file that cannot be read or written, or does not hold what was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorFileError {
    /// The operating system refused.
    #[error("cannot {action} {}: {error}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        error: io::Error,
    },
    /// The bytes are no complete safetensors file.
    #[error(
        "{} ({len} bytes) is not a complete safetensors file: {error}; \
         it may be truncated, fetch or convert it again",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
        /// What is wrong with it.
        error: SafeTensorError,
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
    /// The tensor's elements are of another type than is read.
    #[error("tensor {name:?} in {} is {dtype:?}: {expected} is needed", path.display())]
    WrongDtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        dtype: Dtype,
        /// The types that are read.
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
    /// The tensor's bytes are no packed weights.
    #[error("tensor {name:?} in {}: {error}", path.display())]
    NotWeights {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong with them.
        error: LayoutError,
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
    /// Reads a file whole, and checks that it is complete.
    ///
    /// # Errors
    /// When it cannot be read, is truncated or is not in the safetensors format.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, TensorFileError> {
        let path = path.as_ref();
        match fs::read(path) {
            Ok(bytes) => Self::from_bytes(path, bytes),
            Err(error) => Err(TensorFileError::Io {
                action: "read",
                path: path.to_owned(),
                error,
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
        PackedWeights::from_transformers(layout, rows, k, tensor.data()).map_err(|error| {
            TensorFileError::NotWeights {
                path: self.path.clone(),
                name: name.to_owned(),
                error,
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
        SafeTensors::deserialize(&self.bytes).map_err(|error| TensorFileError::Malformed {
            path: self.path.clone(),
            len: self.bytes.len(),
            error,
        })
    }
}

/// Writes a matrix as the only tensor of a new file, or in place of an old one, in one step: no reader sees half a file.
///
/// # Errors
/// When `data.len() != rows * cols`, the file cannot be written, or something that is no file has its name. An old file
/// is then as it was.
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
    serialize([(name, view)], None)
        .map_err(io::Error::other)
        .and_then(|file| new_file::write(path, &file))
        .map_err(|error| TensorFileError::Io {
            action: "write",
            path: path.to_owned(),
            error,
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
    fn names_are_sorted_whatever_the_files_order_is() {
        let view = |dtype, bytes| TensorView::new(dtype, vec![1], bytes).unwrap();
        // The file has wide elements first.
        let tensors = [
            ("a", view(Dtype::U8, &[1])),
            ("c", view(Dtype::F32, &[1, 2, 3, 4])),
            ("b", view(Dtype::F16, &[1, 2])),
        ];
        let bytes = serialize(tensors, None).unwrap();
        let file = TensorFile::from_bytes("w.safetensors", bytes).unwrap();
        assert_eq!(file.names().0, ["a", "b", "c"]);
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
        fs::write(&path, serialize([("q", integers)], None).unwrap()).unwrap();
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
    fn packed_weights_and_their_scale_come_out_of_a_file() {
        // [12, 5] by transformers' rule, stated the other way round: the weight that a bit pair is of.
        let (n, k) = (12, 5);
        let weights: Vec<i8> = (0..n * k).map(|i| (i * i % 11 % 3) as i8 - 1).collect();
        let mut packed = vec![0_u8; n / 4 * k];
        for (row, weights) in weights.chunks(k).enumerate() {
            for (column, weight) in weights.iter().enumerate() {
                packed[row % (n / 4) * k + column] |= ((weight + 1) as u8) << (row / (n / 4) * 2);
            }
        }
        let scale = bf16::from_f32(1.25).to_le_bytes();
        let mut damaged = packed.clone();
        damaged[7] |= 0b11_00;
        let tensors = |bytes| TensorView::new(Dtype::U8, vec![n / 4, k], bytes).unwrap();
        let file = serialize(
            [
                ("w", tensors(&packed)),
                ("damaged", tensors(&damaged)),
                (
                    "scale",
                    TensorView::new(Dtype::BF16, vec![1], &scale).unwrap(),
                ),
                (
                    "empty",
                    TensorView::new(Dtype::U8, vec![0, 5], &[]).unwrap(),
                ),
            ],
            None,
        )
        .unwrap();
        let file = TensorFile::from_bytes("model", file).unwrap();
        for layout in Layout::ALL {
            let read = file.packed_weights("w", layout).unwrap();
            assert_eq!((read.n(), read.k(), read.layout()), (n, k, layout));
            assert_eq!(read.unpack(), weights);
        }
        assert_eq!(file.scalar("scale").unwrap(), 1.25);
        assert_eq!(file.dtype("scale").unwrap(), Dtype::BF16);

        let packed = |name| {
            let error = file.packed_weights(name, Layout::Tiled).unwrap_err();
            error.to_string()
        };
        // Byte 7 is row 1, column 2; its second pair is the second quarter's, three rows on.
        assert!(packed("damaged").contains("weight 2 at row 4, column 2"));
        assert!(packed("scale").contains("is BF16: U8 is needed"));
        assert!(packed("empty").contains("at least 1"));
        assert!(packed("none").contains("damaged, empty, scale, w"));
        let error = file.scalar("w").unwrap_err().to_string();
        assert!(error.contains("is U8: F32, F16 or BF16"), "{error}");
        let (_folder, path) = written(2, 3, &[1.0_f32; 6]);
        let error = TensorFile::open(&path).unwrap().scalar("w").unwrap_err();
        assert!(error.to_string().contains("shape [2, 3]"), "{error}");
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
        let odd = TensorNames(vec!["a\n\u{1b}[31m".to_owned(), "ü".to_owned()]);
        assert_eq!(odd.to_string(), "a\\n\\u{1b}[31m, ü");
        assert!(names(21).ends_with("18, 19 and 1 more"));
    }
}
