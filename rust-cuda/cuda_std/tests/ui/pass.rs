use cuda_std::prelude::*;

#[kernel(launch_bounds(64,))]
unsafe fn parenthesized(_x: *const (*mut u8)) {}

#[kernel]
unsafe fn pointer_to_array(_x: *const [u32; 4], _y: *mut core::ffi::c_void) {}

fn main() {}
