use cuda_std::prelude::*;

#[kernel(max_threads(128))]
unsafe fn unknown(n: u32) {}

#[kernel(launch_bounds())]
unsafe fn none(n: u32) {}

#[kernel(launch_bounds(1, 2, 3))]
unsafe fn three(n: u32) {}

#[kernel(launch_bounds(128) launch_bounds(64))]
unsafe fn twice(n: u32) {}

#[gpu_only(now)]
fn arguments() {}

fn main() {
    let _ = shared_array![f32];
    let _ = shared_array![f32; 4; 5];
}
