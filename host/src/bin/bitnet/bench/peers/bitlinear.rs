//! Any library with the function `bitlinear_int8xint2`, the W2A8 product of Microsoft's BitNet repository.

use super::{Expected, Peer, PeerError, PeerWeights};
use crate::operations::{Check, Operation, ProductData};
use anyhow::Result;
use bitnet_cuda::device::{Buffer, Device, Stream};
use bitnet_cuda::layout::Layout;
use half::bf16;
use libloading::Library;
use std::ffi::{c_int, c_void};
use std::path::Path;
use std::rc::Rc;

const SYMBOL: &str = "bitlinear_int8xint2";

/// `(activations [m, k], weights in Ladder layout, output [m, n], s [m], ws, m, n, k, stream)`; the output is
/// `sum / s[m] * ws`, and `ws` has one element for each group of rows with a scale of its own, six
/// at most in Microsoft's library. That one knows ten shapes, all of one token; for others it prints a line to stdout and computes nothing.
type Function = unsafe extern "C" fn(
    *const i8,
    *const i8,
    *mut bf16,
    *const bf16,
    *const bf16,
    c_int,
    c_int,
    c_int,
    *mut c_void,
);

/// Elements given for `s` and `ws`, whatever the library reads of them.
const SCALES: usize = 64;

/// A library with that function.
pub struct Bitlinear {
    name: String,
    /// Before the library, which it must not outlive.
    function: Function,
    library: Rc<Library>,
}

impl Bitlinear {
    /// Opens a library, which runs its initializers: only name a file that you trust.
    pub fn open(path: &Path) -> Result<Self, PeerError> {
        // SAFETY: the caller asks for this file to be loaded as code, as with any program that is started.
        let library = unsafe { Library::new(path) }.map_err(|reason| PeerError::Open {
            path: path.to_owned(),
            reason,
        })?;
        // SAFETY: a function of that name has this type in the one interface that the name stands for; a library can give
        // another function that name, which no caller can tell.
        let function = unsafe { library.get::<Function>(SYMBOL) }
            .map(|function| *function)
            .map_err(|reason| PeerError::NoSymbol {
                path: path.to_owned(),
                symbol: SYMBOL,
                reason,
            })?;
        let name = path.file_name().unwrap_or(path.as_os_str());
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            function,
            library: Rc::new(library),
        })
    }
}

impl Peer for Bitlinear {
    fn name(&self) -> &str {
        &self.name
    }

    fn weight_bytes(&self, n: usize, k: usize) -> usize {
        Layout::Ladder.packed_len(n, k).unwrap_or(usize::MAX)
    }

    fn weights(
        &self,
        device: &Device,
        data: &ProductData,
        copies: usize,
    ) -> Result<Box<dyn PeerWeights>> {
        let ladder = data.packed.convert(Layout::Ladder)?;
        let copy = |_| Ok(Rc::new(Buffer::from_slice(device, ladder.bytes())?));
        Ok(Box::new(Weights {
            function: self.function,
            library: Rc::clone(&self.library),
            copies: (0..copies).map(copy).collect::<Result<_>>()?,
        }))
    }
}

struct Weights {
    function: Function,
    library: Rc<Library>,
    copies: Vec<Rc<Buffer<u8>>>,
}

impl PeerWeights for Weights {
    fn products(&self, data: &ProductData, m: usize) -> Result<Vec<Box<dyn Operation>>> {
        let mut token_scales = [bf16::ONE; SCALES];
        for (scale, &of_token) in token_scales.iter_mut().zip(&data.token_scales[..m]) {
            *scale = bf16::from_f32(of_token);
        }
        let weight_scales = [bf16::from_f32(data.weight_scale); SCALES];
        let expected = data.expected::<bf16>(m)?.into_iter().map(bf16::to_f32);
        let expected = Rc::new(Expected::new(expected.collect()));
        let product = |weights: &Rc<Buffer<u8>>| -> Result<Box<dyn Operation>> {
            let device = weights.device();
            let mut output = Buffer::uninit(device, m * data.n)?;
            // NaN: a library that does not know the shape leaves it so.
            output.fill_bytes(0xff)?;
            Ok(Box::new(Product {
                function: self.function,
                _library: Rc::clone(&self.library),
                weights: Rc::clone(weights),
                input: Buffer::from_slice(device, &data.values[..m * data.k])?,
                token_scales: Buffer::from_slice(device, &token_scales)?,
                weight_scales: Buffer::from_slice(device, &weight_scales)?,
                output,
                shape: [m, data.n, data.k],
                expected: Rc::clone(&expected),
            }))
        };
        self.copies.iter().map(product).collect()
    }
}

struct Product {
    function: Function,
    _library: Rc<Library>,
    weights: Rc<Buffer<u8>>,
    input: Buffer<i8>,
    token_scales: Buffer<bf16>,
    weight_scales: Buffer<bf16>,
    output: Buffer<bf16>,
    shape: [usize; 3],
    expected: Rc<Expected>,
}

impl Operation for Product {
    fn launch(&mut self, stream: &Stream) -> Result<()> {
        let uses = [
            self.weights.foreign_use(),
            self.input.foreign_use(),
            self.token_scales.foreign_use(),
            self.weight_scales.foreign_use(),
            self.output.foreign_use(),
        ];
        let pointer = |address: u64| address as *mut c_void;
        let [m, n, k] = self.shape.map(|size| size as c_int);
        let submit = |stream: *mut c_void| {
            // SAFETY: device pointers to operands of the sizes and types that the interface states, for this shape, and the
            // stream that they are used on.
            unsafe {
                (self.function)(
                    pointer(self.input.device_ptr()).cast(),
                    pointer(self.weights.device_ptr()).cast(),
                    pointer(self.output.device_ptr()).cast(),
                    pointer(self.token_scales.device_ptr()).cast(),
                    pointer(self.weight_scales.device_ptr()).cast(),
                    m,
                    n,
                    k,
                    stream,
                );
            }
            Ok(())
        };
        // SAFETY: the interface's function launches on the stream it is given and accesses its operands, all of which are
        // named; the output is held mutably.
        Ok(unsafe { stream.submit_foreign(SYMBOL, &uses, submit) }?)
    }

    fn outputs(&self) -> Result<Vec<u8>> {
        Ok(bytemuck::cast_slice(&self.output.to_vec()?).to_vec())
    }

    fn check(&self) -> Result<Check> {
        let found: Vec<f32> = self
            .output
            .to_vec()?
            .into_iter()
            .map(bf16::to_f32)
            .collect();
        Ok(self.expected.check(&found))
    }

    fn bytes(&self) -> usize {
        self.weights.size_bytes() + self.input.size_bytes() + self.output.size_bytes()
    }

    fn operations(&self) -> usize {
        2 * self.shape.iter().product::<usize>()
    }
}
