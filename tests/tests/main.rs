//! One file per promise. `cargo test -p integration-tests gemv::` runs one file's tests.

mod activation;
mod bad_input;
mod counts;
mod gemv;
mod gemv_activation;
mod golden_reference;
mod int8xint2;
mod norm;
mod norm_gemv;
mod norm_quantize;
mod quantize_activations;
mod quantize_tensor;
mod quantize_weights;
mod schedules;
mod slices;
mod ternary_weights;
mod test_kernels;
