//! What `#[kernel]` gives the host, and what it refuses.

use cuda_std::kernel::Kernel;
use cuda_std::{intrinsics, kernel, shared_array, thread, warp};
use half::{bf16, f16};

/// Scales a row.
#[kernel(launch_bounds(128, 4))]
pub unsafe fn scale(x: *const f32, mut y: *mut bf16, n: u32, factor: f32) {
    // SAFETY: the caller's promise that `x` and `y` hold what the grid reads and writes.
    unsafe {
        y = y.add(thread::index_1d() as usize);
        if n > 0 {
            *y = bf16::from_f32(*x * factor);
        }
    }
}

#[inline(always)]
unsafe fn copy<const WARPS: u32, T: Copy>(from: *const T, to: *mut T) {
    if thread::thread_idx_x() < WARPS * warp::WARP_SIZE {
        // SAFETY: the caller's promise that both pointers are to one value.
        unsafe { *to = *from }
    }
}

/// As the lists of variants are written: name, parameter types, constants and body all come out of a macro.
macro_rules! copies {
    ($($name:ident: $ty:ty, $pointer:ty, $warps:literal, $blocks:expr;)*) => {$(
        #[doc = concat!("Copies one `", stringify!($ty), "`.")]
        #[kernel(launch_bounds($warps * 32, $blocks))]
        pub unsafe fn $name(from: $pointer, to: *mut $ty, _count: u64) {
            // SAFETY: the same promise, passed on.
            unsafe { copy::<$warps, $ty>(from, to) }
        }
    )*};
}

copies! {
    copy_f16_w2: f16, *const f16, 2, 16;
    copy_i8_w4: i8, *const i8, 4, 1 + 1;
}

#[kernel(launch_bounds(256))]
unsafe fn without_parameters() {}

#[kernel]
unsafe fn scalars(_a: u32, _b: i32, _c: u64, _d: i64, _e: f32, _f: f64) {
    let _array = shared_array![f32; 2 * 32];
}

#[kernel]
unsafe fn r#match(r#in: u32) {
    let _ = r#in;
}

/// Compiles only where `K`'s parameters are exactly `P`.
fn has_params<K: Kernel<Params = P>, P>() {}

#[test]
fn the_parameters_are_a_tuple_of_the_types_as_written() {
    has_params::<scale, (*const f32, *mut bf16, u32, f32)>();
    has_params::<copy_f16_w2, (*const f16, *mut f16, u64)>();
    has_params::<copy_i8_w4, (*const i8, *mut i8, u64)>();
    has_params::<without_parameters, ()>();
    has_params::<scalars, (u32, i32, u64, i64, f32, f64)>();
}

#[test]
fn names_and_launch_bounds_are_constants() {
    assert_eq!(scale::NAME, "scale");
    assert_eq!(scale::PARAM_NAMES, ["x", "y", "n", "factor"]);
    assert_eq!(
        (scale::MAX_THREADS, scale::MIN_BLOCKS),
        (Some(128), Some(4))
    );
    assert_eq!(r#match::NAME, "match");
    assert_eq!(r#match::PARAM_NAMES, ["in"]);
    assert_eq!(copy_i8_w4::NAME, "copy_i8_w4");
    assert_eq!(copy_i8_w4::PARAM_NAMES, ["from", "to", "_count"]);
    assert_eq!(
        (copy_i8_w4::MAX_THREADS, copy_i8_w4::MIN_BLOCKS),
        (Some(128), Some(2))
    );
    assert_eq!(
        (
            without_parameters::MAX_THREADS,
            without_parameters::MIN_BLOCKS
        ),
        (Some(256), None)
    );
    assert_eq!((scalars::MAX_THREADS, scalars::MIN_BLOCKS), (None, None));
}

#[test]
#[should_panic(expected = "`cuda_std::intrinsics::dp4a_u8s8` runs on the GPU only")]
fn a_device_function_on_the_host_says_where_it_belongs() {
    intrinsics::dp4a_u8s8(1, 2, 3);
}

#[test]
#[should_panic(expected = "runs on the GPU only")]
fn a_kernel_called_on_the_host_stops_at_its_first_device_function() {
    let mut y = bf16::ZERO;
    // SAFETY: both pointers are to one readable or writable value.
    unsafe { scale(&1.0, &mut y, 1, 2.0) };
}

#[test]
fn what_a_kernel_cannot_be_is_a_compile_error() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass.rs");
    cases.compile_fail("tests/ui/fail_*.rs");
}
