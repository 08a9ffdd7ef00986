use cuda_std::prelude::*;

type Bytes = [u8];

#[kernel]
unsafe fn aliased(_n: u32, _x: *const Bytes) {}

fn main() {}
