//! Lets `cust` link without libcuda and run without an NVIDIA driver.
//!
//! `cust_raw` declares the functions of the CUDA driver and asks the linker for `-lcuda`. This crate
//! satisfies the linker with an empty archive and defines those functions itself: each jumps to wherever
//! its entry in a table points. At first every entry points to a function that returns `CUDA_ERROR_NO_DEVICE`;
//! [`load`] opens the driver with `dlopen` and points the entries at the real functions. So one binary runs on
//! machines with and without a driver, and none of them needs the CUDA toolkit to build it.
//!
//! ```
//! match cust_lazy::load() {
//!     Ok(driver) => println!("CUDA {}", driver.version()),
//!     Err(error) => println!("no GPU: {error}"),
//! }
//! ```
//!
//! Call [`load`] before the first call into `cust`. Without it, and where it fails, for whatever reason, `cust::quick_init()` is an
//! ordinary `Err(NoDevice)`. A function that the driver is too old to have returns `CUDA_ERROR_NOT_FOUND`.
//!
//! # Building
//!
//! The build scripts of `cust` and `cust_raw` stop unless they find a folder named `lib64` in a CUDA toolkit
//! or in `$CUDA_LIBRARY_PATH`. Nothing needs to be in it; this crate's folder `cuda` has one. Set the variable in
//! `.cargo/config.toml`, in the section `[env]`.
//!
//! # Newer drivers
//!
//! `cust_raw` 0.11 is made for CUDA 11.4 and returns `CUresult` as a Rust enum of the codes known then, so a newer
//! code would be undefined behaviour. [`ffi`] declares the functions whose results depend on the device's
//! state with a plain integer instead, and functions that are newer than `cust_raw`.

#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
compile_error!("cust_lazy supports Linux on x86-64 and aarch64");

pub mod ffi;
mod load;
mod names;
mod trampolines;

pub use load::{Driver, LIBRARY_VARIABLE, LoadError, error_name, load, load_from};
