//! BitNet kernels for NVIDIA GPUs, written in Rust from the kernel up, and the same PTX on a machine that has no GPU.
//!
//! BitNet models (b1.58) have ternary weights, kept at 2 bits, and int8 activations. A layer of that kind is a
//! [`BitLinear`](ops::BitLinear); it runs on a [`Device`](device::Device), which is a GPU or the emulator:
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
//! A checkpoint's weights, float or packed at 2 bits, come from [`tensor_file`]. What is launched again and again is captured once,
//! as a [`Graph`](device::Graph). [`Device::profile`](device::Device::profile) counts what the emulator did. Sizes are in elements unless a name
//! says bytes; [`ops`] says what `m`, `n` and `k` are.
//!
//! | module | what is there |
//! |---|---|
//! | [`ops`] | the operations that users call |
//! | [`backend`] | a device with its pool, streams and options in one object |
//! | [`device`] | devices, buffers, streams, events, graphs |
//! | [`layout`] | weight layouts and conversions between them |
//! | [`reference`](mod@reference) | plain CPU versions of every operation |
//! | [`tensor_file`] | matrices from and to safetensors files |
//! | [`launch`] | typed launches of single kernels, their variants, and the autotuner |
//!
//! The feature `cli`, on by default, is the command `bitnet`; a library does without it.

pub mod backend;
pub mod device;
pub mod launch;
pub mod layout;
mod new_file;
pub mod ops;
pub mod reference;
pub mod tensor_file;

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
