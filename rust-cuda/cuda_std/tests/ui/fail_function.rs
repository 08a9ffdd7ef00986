use cuda_std::prelude::*;

#[kernel]
fn safe(n: u32) {}

#[kernel]
unsafe fn generic<T>(x: *const T) {}

#[kernel]
unsafe fn constant<const N: usize>(x: *const f32) {}

#[kernel]
unsafe fn returns(x: *const f32) -> f32 {
    unsafe { *x }
}

#[kernel]
async unsafe fn waits(n: u32) {}

#[kernel]
unsafe extern "C" fn foreign(n: u32) {}

#[kernel]
struct NoFunction;

fn main() {}
