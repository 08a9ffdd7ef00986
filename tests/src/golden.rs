//! The files of `tests/golden`: NumPy's answers, made by `golden/make_golden.py`.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use safetensors::SafeTensors;

/// The folder of the files. Cargo runs tests in their package's folder, and a bundle has the files where its programs run.
pub fn folder() -> PathBuf {
    PathBuf::from("golden")
}

/// A golden file, which keeps account of the tensors taken from it.
#[derive(Debug)]
pub struct Golden {
    bytes: Vec<u8>,
    taken: RefCell<BTreeSet<String>>,
}

impl Golden {
    /// Reads a file of the folder.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn open(name: &str) -> Self {
        let path = folder().join(name);
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self {
            bytes,
            taken: RefCell::default(),
        }
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap()
    }

    /// A tensor's sizes.
    ///
    /// # Panics
    /// When there is no such tensor.
    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.tensors().tensor(name).unwrap().shape().to_owned()
    }

    /// A tensor of elements of `SIZE` bytes.
    ///
    /// # Panics
    /// When there is no such tensor, or its elements have another size; so do the methods for a type.
    pub fn take<const SIZE: usize, T>(
        &self,
        name: &str,
        from_le: impl Fn([u8; SIZE]) -> T,
    ) -> Vec<T> {
        self.taken.borrow_mut().insert(name.to_owned());
        let tensors = self.tensors();
        let tensor = tensors.tensor(name).unwrap();
        let (elements, rest) = tensor.data().as_chunks::<SIZE>();
        assert_eq!(tensor.dtype().bitsize(), 8 * SIZE, "{name}");
        assert!(rest.is_empty() && !elements.is_empty(), "{name}");
        elements.iter().map(|&bytes| from_le(bytes)).collect()
    }

    /// A tensor of f32.
    pub fn f32(&self, name: &str) -> Vec<f32> {
        self.take(name, f32::from_le_bytes)
    }

    /// A tensor of f32, as f64.
    pub fn f64(&self, name: &str) -> Vec<f64> {
        self.take(name, |bytes| f32::from_le_bytes(bytes).into())
    }

    /// A tensor of i32.
    pub fn i32(&self, name: &str) -> Vec<i32> {
        self.take(name, i32::from_le_bytes)
    }

    /// A tensor of i8.
    pub fn i8(&self, name: &str) -> Vec<i8> {
        self.take(name, i8::from_le_bytes)
    }

    /// A tensor of bytes.
    pub fn u8(&self, name: &str) -> Vec<u8> {
        self.take(name, u8::from_le_bytes)
    }

    /// Fails for a tensor that was never taken.
    ///
    /// # Panics
    /// With their names.
    pub fn finish(self) {
        let all: BTreeSet<_> = self
            .tensors()
            .names()
            .into_iter()
            .map(str::to_owned)
            .collect();
        assert_eq!(
            self.taken.into_inner(),
            all,
            "tensors that no comparison took"
        );
    }
}
