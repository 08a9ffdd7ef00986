//! BitNet kernels for NVIDIA GPUs, written in Rust, which also run on machines without a GPU.
//!
//! BitNet b1.58 models have ternary weights, stored at 2 bits, and int8 activations (W2A8). A linear layer of that kind is a
//! [`BitLinear`](ops::BitLinear). It runs on a [`Device`](device::Device), which is a GPU or an emulator that runs the same PTX
//! on the CPU:
//!
//! ```
//! use bitnet_cuda::device::{Buffer, Device};
//! use bitnet_cuda::ops::BitLinear;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # fn weights() -> Vec<f32> { (0..64 * 256).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect() }
//! let device = Device::auto()?; // the first usable GPU, else the emulator
//! let layer = BitLinear::from_weights(&device, &weights(), 64, 256)?; // [n, k], quantized to ternary
//!
//! let x = Buffer::from_slice(&device, &[0.5_f32; 256])?; // one token
//! let mut y = Buffer::<f32>::uninit(&device, 64)?;
//! layer.forward(&device.default_stream(), &x, &mut y)?;
//! println!("{:?}", y.to_vec()?);
//! # Ok(())
//! # }
//! ```
//!
//! [`tensor_file`] reads the weights of a checkpoint, float or packed at 2 bits. A sequence of launches that repeats is best
//! captured as a [`Graph`](device::Graph). [`Device::profile`](device::Device::profile) returns what the emulator counted. Sizes
//! are in elements unless the name says bytes; `m` is the number of tokens, `n` of output features, `k` of input features.
//!
//! | module | contents |
//! |---|---|
//! | [`ops`] | linear layers, norms, activation functions and quantization on device buffers: start here |
//! | [`backend`] | a device with its memory pool, streams and options in one object, profiling, layers split over devices |
//! | [`device`] | devices, buffers, streams, events, graphs, memory pools |
//! | [`layout`] | weight layouts and conversions between them |
//! | [`reference`](mod@reference) | plain CPU versions of every operation |
//! | [`tensor_file`] | safetensors files: weights and activations in, results out |
//! | [`launch`] | typed launches of single kernels, kernel variants, the autotuner |
//!
//! Fallible calls return typed errors ([`OpError`](ops::OpError), [`DeviceError`](device::DeviceError) and others) whose message
//! names the offending value and what to change. The feature `cli`, on by default, builds the command `bitnet`; libraries can
//! turn it off.

pub mod backend;
pub mod device;
pub mod launch;
pub mod layout;
pub mod ops;
pub mod reference;
pub mod tensor_file;
/// Shared with the command; not a part of the interface.
#[doc(hidden)]
pub mod whole_file;

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
