//! Procedural macros of [`cuda_std`](https://github.com/Rust-GPU/Rust-CUDA)'s interface: `#[kernel]`,
//! `#[gpu_only]` and the name generator behind `shared_array!`. Use them through `cuda_std`, which
//! re-exports them.

mod gpu_only;
mod kernel;
mod shared;

use proc_macro::TokenStream;

/// Marks a function as a kernel, an entry point that the host can launch.
///
/// ```ignore
/// #[kernel(launch_bounds(256, 4))]
/// pub unsafe fn scale(x: *const f32, y: *mut f32, n: u32, factor: f32) { /* ... */ }
/// ```
///
/// `launch_bounds(max_threads)` and `launch_bounds(max_threads, min_blocks)` are CUDA's
/// `__launch_bounds__`: the largest block that the kernel is launched with, and how many such blocks
/// should fit on a multiprocessor at once. Both are constant expressions of type `u32`.
///
/// # What it expands to
///
/// For `nvptx64-nvidia-cuda`: `#[unsafe(no_mangle)] pub unsafe extern "ptx-kernel" fn`, and a comment
/// line in the PTX from which `cuda_builder` makes `.maxntid` and `.minnctapersm`.
///
/// For every other target: the function as it stands, so that it is type-checked (a caller would reach
/// `cuda_std`'s panicking host versions), and `pub enum NAME {}`, a type of the same name that
/// implements `cuda_std::kernel::Kernel`. Its `Params` is the tuple of the parameter types; a launcher
/// that takes `Params` cannot be called with the wrong types.
///
/// # What a kernel may take
///
/// Raw pointers to sized types, and `u32`, `i32`, `u64`, `i64`, `f32`, `f64` by value. Anything else is
/// a compile error that names the parameter. A kernel is an `unsafe fn` without generics and without
/// a return type.
#[proc_macro_attribute]
pub fn kernel(args: TokenStream, item: TokenStream) -> TokenStream {
    kernel::expand(args.into(), item.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Keeps a function's body for `nvptx64` only. On every other target the function has the same
/// signature and panics with a message that names it.
#[proc_macro_attribute]
pub fn gpu_only(args: TokenStream, item: TokenStream) -> TokenStream {
    gpu_only::expand(args.into(), item.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// `shared_array![T; LEN]`: declares an array in the block's shared memory, 16-byte aligned or more if `T` is, and
/// returns the `cuda_std::shared::SharedPtr<T>` to its first element. Its contents are initially undefined, and its size is not 0.
///
/// Each use declares one array, however often the code around it runs or is inlined. `T` and `LEN` must be visible in the
/// module (not local to the function, nor its generic parameters), because that is where the array is declared.
#[proc_macro]
pub fn shared_array(input: TokenStream) -> TokenStream {
    shared::expand(input.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
