use cuda_std::prelude::*;

const NONE: usize = 0;

fn main() {
    let _ = shared_array![f32; NONE];
    let _ = shared_array![(); 4];
}
