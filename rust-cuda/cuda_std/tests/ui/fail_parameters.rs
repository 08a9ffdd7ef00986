use cuda_std::prelude::*;

struct Shape {
    _n: u32,
}

#[kernel]
unsafe fn reference(x: &f32, y: &mut f32) {}

#[kernel]
unsafe fn slice(x: &[f32], y: &mut [f32], z: *const [f32]) {}

#[kernel]
unsafe fn small(a: bool, b: u8, c: i16, d: usize) {}

#[kernel]
unsafe fn by_value(shape: Shape, pair: (u32, u32), array: [f32; 4]) {}

#[kernel]
unsafe fn text(name: *const str, any: *const dyn Send) {}

#[kernel]
unsafe fn pattern((a, b): u32) {}

#[kernel]
unsafe fn conditional(#[cfg(target_feature = "sm_90")] a: u32, b: u32) {}

fn main() {}
