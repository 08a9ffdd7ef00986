//! A test double of the NVIDIA driver's `libcuda.so.1`, on top of `ptx-emulator`.
//!
//! **This is not a CUDA driver.** It exists so that the code which calls the driver can be tested on machines without
//! one: set `CUST_LAZY_LIBCUDA` to the built library. It implements the entry points that this
//! project calls, written down from NVIDIA's driver API reference, not from the bindings under test.
//!
//! It is stricter than a driver where that finds mistakes:
//!
//! - Work submitted to a stream runs only when something waits for it. Reading a result, or freeing memory,
//!   without waiting goes wrong every time.
//! - Every handle is looked up; a destroyed or foreign one is `CUDA_ERROR_INVALID_HANDLE`.
//! - A call without a current context is `CUDA_ERROR_INVALID_CONTEXT`, and each thread starts without one.
//! - Memory of `cuMemAllocAsync` is there when its stream has come to the allocation, and gone when it has come to the free.
//! - A memory pool gives what it does not use back at each wait, down to its release threshold.
//! - PTX of a newer version than a driver of CUDA 12.4 knows is refused.
//! - Calls that a capture forbids, by its mode, are refused and spoil it.
//! - A graph or a module that is destroyed while work with it is pending takes the context with it.
//!
//! There are [`DEVICES`](driver::DEVICES) equal GPUs, so that each test can have its own. Tests inject errors with
//! [`fake_cuda_inject`](inject::fake_cuda_inject), hold calls back with [`fake_cuda_hold`](inject::fake_cuda_hold), count calls,
//! what is alive and how often memory pools grew with `fake_cuda_calls`, `fake_cuda_alive` and `fake_cuda_pool_growths`, and change
//! what a GPU says of itself and of memory with `fake_cuda_attribute` and `fake_cuda_place`.

mod context;
pub mod driver;
pub mod inject;
mod memory;
mod modules;
mod pools;
mod status;
mod streams;
