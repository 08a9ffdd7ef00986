//! A kernel for each device function of `cuda_std`, of the same name, which does nothing but call it.

#![no_std]
#![cfg_attr(target_arch = "nvptx64", feature(abi_ptx, asm_experimental_arch))]
#![allow(clippy::missing_safety_doc, missing_docs)]

#[cfg(target_feature = "sm_80")]
use cuda_std::async_copy;
use cuda_std::atomic as at;
#[cfg(target_feature = "sm_90")]
use cuda_std::grid;
use cuda_std::intrinsics as int;
use cuda_std::mma;
use cuda_std::ptr::{self, U32x2, U32x4};
use cuda_std::shared::{self, SharedPtr};
use cuda_std::{GpuFloat, float, kernel, shared_array, thread, warp};

/// One kernel a line: its name and parameters, and the expression that it stores.
macro_rules! stores {
    ($($(#[$attr:meta])* fn $name:ident($($param:ident: $ty:ty),*) -> $out:ty = $value:expr;)*) => {$(
        $(#[$attr])*
        #[kernel]
        pub unsafe fn $name(out: *mut $out, $($param: $ty),*) {
            unsafe { *out = $value }
        }
    )*};
}

/// One kernel a line, for functions without a result.
macro_rules! calls {
    ($($(#[$attr:meta])* fn $name:ident($($param:ident: $ty:ty),*) = $call:expr;)*) => {$(
        $(#[$attr])*
        #[kernel]
        #[allow(unused_unsafe)]
        pub unsafe fn $name($($param: $ty),*) {
            unsafe { $call }
        }
    )*};
}

stores! {
    fn thread_idx_x() -> u32 = thread::thread_idx_x();
    fn thread_idx_y() -> u32 = thread::thread_idx_y();
    fn thread_idx_z() -> u32 = thread::thread_idx_z();
    fn block_idx_x() -> u32 = thread::block_idx_x();
    fn block_idx_y() -> u32 = thread::block_idx_y();
    fn block_idx_z() -> u32 = thread::block_idx_z();
    fn block_dim_x() -> u32 = thread::block_dim_x();
    fn block_dim_y() -> u32 = thread::block_dim_y();
    fn block_dim_z() -> u32 = thread::block_dim_z();
    fn grid_dim_x() -> u32 = thread::grid_dim_x();
    fn grid_dim_y() -> u32 = thread::grid_dim_y();
    fn grid_dim_z() -> u32 = thread::grid_dim_z();
    fn index_1d() -> u32 = thread::index_1d();
    fn sync_threads_and(p: u32) -> u32 = thread::sync_threads_and(p == 7) as u32;
    fn sync_threads_or(p: u32) -> u32 = thread::sync_threads_or(p == 7) as u32;
    fn sync_threads_count(p: u32) -> u32 = thread::sync_threads_count(p == 7);
}

calls! {
    fn sync_threads() = thread::sync_threads();
    fn named_barrier_sync() = thread::named_barrier_sync(1, 64);
    fn block_fence() = thread::block_fence();
    fn device_fence() = thread::device_fence();
    fn system_fence() = thread::system_fence();
    fn nanosleep(n: u32) = thread::nanosleep(n);
}

stores! {
    fn lane_id() -> u32 = warp::lane_id();
    fn lane_mask_lt() -> u32 = warp::lane_mask_lt();
    fn activemask() -> u32 = warp::activemask();
    fn warp_shuffle_xor(v: f32) -> f32 = warp::warp_shuffle_xor(warp::FULL_MASK, v, 16, 32);
    fn warp_shuffle_down(v: u32) -> u32 = warp::warp_shuffle_down(warp::FULL_MASK, v, 16, 32);
    fn warp_shuffle_up(v: i32) -> i32 = warp::warp_shuffle_up(warp::FULL_MASK, v, 1, 16);
    fn warp_shuffle_idx(v: u32) -> u32 = warp::warp_shuffle_idx(warp::FULL_MASK, v, 0, 8);
    fn warp_vote_all(p: u32) -> u32 = warp::warp_vote_all(warp::FULL_MASK, p == 7) as u32;
    fn warp_vote_any(p: u32) -> u32 = warp::warp_vote_any(warp::FULL_MASK, p == 7) as u32;
    fn warp_vote_ballot(p: u32) -> u32 = warp::warp_vote_ballot(warp::FULL_MASK, p == 7);
    fn warp_match_any(v: u32) -> u32 = warp::warp_match_any(warp::FULL_MASK, v);
}

calls! {
    fn sync_warp(mask: u32) = warp::sync_warp(mask);
}

#[cfg(target_feature = "sm_80")]
stores! {
    fn warp_reduce_add_u32(v: u32) -> u32 = warp::warp_reduce_add_u32(warp::FULL_MASK, v);
    fn warp_reduce_add_i32(v: i32) -> i32 = warp::warp_reduce_add_i32(warp::FULL_MASK, v);
    fn warp_reduce_min_u32(v: u32) -> u32 = warp::warp_reduce_min_u32(warp::FULL_MASK, v);
    fn warp_reduce_min_i32(v: i32) -> i32 = warp::warp_reduce_min_i32(warp::FULL_MASK, v);
    fn warp_reduce_max_u32(v: u32) -> u32 = warp::warp_reduce_max_u32(warp::FULL_MASK, v);
    fn warp_reduce_max_i32(v: i32) -> i32 = warp::warp_reduce_max_i32(warp::FULL_MASK, v);
    fn warp_reduce_and(v: u32) -> u32 = warp::warp_reduce_and(warp::FULL_MASK, v);
    fn warp_reduce_or(v: u32) -> u32 = warp::warp_reduce_or(warp::FULL_MASK, v);
    fn warp_reduce_xor(v: u32) -> u32 = warp::warp_reduce_xor(warp::FULL_MASK, v);
}

stores! {
    fn dp4a(a: i32, b: i32, c: i32) -> i32 = int::dp4a(a, b, c);
    fn dp4a_s8u8(a: i32, b: u32, c: i32) -> i32 = int::dp4a_s8u8(a, b, c);
    fn dp4a_u8s8(a: u32, b: i32, c: i32) -> i32 = int::dp4a_u8s8(a, b, c);
    fn dp4a_u8u8(a: u32, b: u32, c: u32) -> u32 = int::dp4a_u8u8(a, b, c);
    fn lop3(a: u32, b: u32, c: u32) -> u32 = int::lop3::<0xea>(a, b, c);
    fn byte_perm(a: u32, b: u32, s: u32) -> u32 = int::byte_perm(a, b, s);
    fn bfe_u32(a: u32, b: u32, c: u32) -> u32 = int::bfe_u32(a, b, c);
    fn bfe_i32(a: i32, b: u32, c: u32) -> i32 = int::bfe_i32(a, b, c);
    fn float_to_int_rn(x: f32) -> i32 = int::float_to_int_rn(x);
    fn float_to_i8_rn_sat(x: f32) -> i32 = int::float_to_i8_rn_sat(x);
    fn pack_sat_i8(a: i32, b: i32, c: u32) -> u32 = int::pack_sat_i8(a, b, c);
}

stores! {
    fn mul_add(a: f32, b: f32, c: f32) -> f32 = GpuFloat::mul_add(a, b, c);
    fn sqrt(x: f32) -> f32 = GpuFloat::sqrt(x);
    fn rint(x: f32) -> f32 = GpuFloat::rint(x);
    fn floor(x: f32) -> f32 = GpuFloat::floor(x);
    fn ceil(x: f32) -> f32 = GpuFloat::ceil(x);
    fn trunc(x: f32) -> f32 = GpuFloat::trunc(x);
    fn recip_rn(x: f32) -> f32 = GpuFloat::recip_rn(x);
    fn recip_approx(x: f32) -> f32 = GpuFloat::recip_approx(x);
    fn rsqrt_approx(x: f32) -> f32 = GpuFloat::rsqrt_approx(x);
    fn exp2_approx(x: f32) -> f32 = GpuFloat::exp2_approx(x);
    fn log2_approx(x: f32) -> f32 = GpuFloat::log2_approx(x);
    fn tanh_approx(x: f32) -> f32 = GpuFloat::tanh_approx(x);
    fn f16_to_f32(bits: u32) -> f32 = float::f16_to_f32(bits as u16);
    fn f32_to_f16(x: f32) -> u16 = float::f32_to_f16(x);
    fn bf16_to_f32(bits: u32) -> f32 = float::bf16_to_f32(bits as u16);
    fn f32_to_bf16(x: f32) -> u16 = float::f32_to_bf16(x);
    fn f32_to_f16x2(x: f32, y: f32) -> u32 = float::f32_to_f16x2(x, y);
    fn f32_to_bf16x2(x: f32, y: f32) -> u32 = float::f32_to_bf16x2(x, y);
}

stores! {
    fn load_nc_v4(p: *const U32x4) -> U32x4 = ptr::load_nc_v4(p);
    fn load_nc_streaming_v4(p: *const U32x4) -> U32x4 = ptr::load_nc_streaming_v4(p);
    fn load_nc_streaming_v4_if(p: *const U32x4, c: u32) -> U32x4 = ptr::load_nc_streaming_v4_if(p, c != 0);
    fn load_nc_streaming_l2_128b_v4(p: *const U32x4) -> U32x4 = ptr::load_nc_streaming_l2_128b_v4(p);
    fn load_v4(p: *const U32x4) -> U32x4 = ptr::load_v4(p);
    fn plain_read_v4(p: *const U32x4) -> u32 = p.read().0.iter().sum();
    fn load_nc_v2(p: *const U32x2) -> U32x2 = ptr::load_nc_v2(p);
    fn load_nc(p: *const u32) -> u32 = ptr::load_nc(p);
}

calls! {
    fn prefetch_l2(p: *const f32) = ptr::prefetch_l2(p);
    fn store_streaming_v4(p: *mut U32x4, a: u32) = ptr::store_streaming_v4(p, U32x4([a; 4]));
    fn store_v4(p: *mut U32x4, a: u32) = ptr::store_v4(p, U32x4([a; 4]));
    fn store_v2(p: *mut U32x2, a: u32) = ptr::store_v2(p, U32x2([a; 2]));
}

stores! {
    fn dynamic_shared_mem() -> u32 = shared::dynamic_shared_mem::<f32>().address();
    fn dynamic_smem_size() -> u32 = shared::dynamic_smem_size();
    fn as_mut_ptr(a: u32) -> *mut f32 = SharedPtr::from_address(a).as_mut_ptr();
    fn read(a: u32) -> u32 = SharedPtr::<u32>::from_address(a).read();
    fn read_u8(a: u32) -> u8 = SharedPtr::<u8>::from_address(a).read();
    fn read_i8(a: u32) -> i8 = SharedPtr::<i8>::from_address(a).read();
    fn read_u16(a: u32) -> u16 = SharedPtr::<u16>::from_address(a).read();
    fn read_i16(a: u32) -> i16 = SharedPtr::<i16>::from_address(a).read();
    fn read_i32(a: u32) -> i32 = SharedPtr::<i32>::from_address(a).read();
    fn read_f32(a: u32) -> f32 = SharedPtr::<f32>::from_address(a).read();
    fn read_u64(a: u32) -> u64 = SharedPtr::<u64>::from_address(a).read();
    fn read_v2(a: u32) -> U32x2 = SharedPtr::<U32x2>::from_address(a).read();
    fn read_v4(a: u32) -> U32x4 = SharedPtr::<U32x4>::from_address(a).read();
}

calls! {
    fn write(a: u32, v: u32) = SharedPtr::from_address(a).write(v);
    fn write_u8(a: u32, v: u32) = SharedPtr::from_address(a).write(v as u8);
    fn write_i8(a: u32, v: u32) = SharedPtr::from_address(a).write(v as i8);
    fn write_u16(a: u32, v: u32) = SharedPtr::from_address(a).write(v as u16);
    fn write_i16(a: u32, v: u32) = SharedPtr::from_address(a).write(v as i16);
    fn write_i32(a: u32, v: i32) = SharedPtr::from_address(a).write(v);
    fn write_f32(a: u32, v: f32) = SharedPtr::from_address(a).write(v);
    fn write_u64(a: u32, v: u64) = SharedPtr::from_address(a).write(v);
    fn write_v2(a: u32, v: u32) = SharedPtr::from_address(a).write(U32x2([v; 2]));
    fn write_v4(a: u32, v: u32) = SharedPtr::from_address(a).write(U32x4([v; 4]));
}

#[repr(C, align(32))]
struct Wide([u8; 32]);

const LEN: usize = 5;
const ALIGN: usize = 6;

stores! {
    fn array_of_bytes() -> u32 = shared_array![u8; 3].address();
    fn array_of_wide() -> u32 = shared_array![Wide; 2 + 1].address();
    fn array_of_len() -> u32 = shared_array![u8; LEN].address();
    fn array_of_align() -> u32 = shared_array![u8; ALIGN].address();
}

stores! {
    fn atomic_fetch_add_relaxed_u32_device(p: *mut u32, v: u32) -> u32 = at::atomic_fetch_add_relaxed_u32_device(p, v);
    fn atomic_fetch_add_relaxed_i32_device(p: *mut i32, v: i32) -> i32 = at::atomic_fetch_add_relaxed_i32_device(p, v);
    fn atomic_fetch_add_relaxed_f32_device(p: *mut f32, v: f32) -> f32 = at::atomic_fetch_add_relaxed_f32_device(p, v);
    fn atomic_fetch_min_relaxed_u32_device(p: *mut u32, v: u32) -> u32 = at::atomic_fetch_min_relaxed_u32_device(p, v);
    fn atomic_fetch_max_relaxed_u32_device(p: *mut u32, v: u32) -> u32 = at::atomic_fetch_max_relaxed_u32_device(p, v);
    fn atomic_fetch_add_acqrel_u32_device(p: *mut u32, v: u32) -> u32 = at::atomic_fetch_add_acqrel_u32_device(p, v);
    fn atomic_fetch_inc_acqrel_u32_device(p: *mut u32, v: u32) -> u32 = at::atomic_fetch_inc_acqrel_u32_device(p, v);
    fn mma_m8n8k16_u8_s8(a: u32, b: u32, c: i32, d: i32) -> [i32; 2] = mma::mma_m8n8k16_u8_s8(a, b, [c, d]);
    fn atomic_load_acquire_u32_device(p: *const u32) -> u32 = at::atomic_load_acquire_u32_device(p);
}

calls! {
    fn atomic_red_add_relaxed_u32_device(p: *mut u32, v: u32) = at::atomic_red_add_relaxed_u32_device(p, v);
    fn atomic_red_add_relaxed_i32_device(p: *mut i32, v: i32) = at::atomic_red_add_relaxed_i32_device(p, v);
    fn atomic_red_add_relaxed_f32_device(p: *mut f32, v: f32) = at::atomic_red_add_relaxed_f32_device(p, v);
    fn atomic_add(a: u32, v: i32) = SharedPtr::from_address(a).atomic_add(v);
    fn atomic_store_release_u32_device(p: *mut u32, v: u32) = at::atomic_store_release_u32_device(p, v);
}

#[cfg(target_feature = "sm_80")]
stores! {
    fn mma_m16n8k32_u8_s8(a: u32, b: u32, c: i32) -> [i32; 4] = mma::mma_m16n8k32_u8_s8([a; 4], [b; 2], [c; 4]);
}

#[cfg(target_feature = "sm_80")]
calls! {
    fn copy_async_4(a: u32, p: *const u32) = async_copy::copy_async_4(SharedPtr::from_address(a), p);
    fn copy_async_8(a: u32, p: *const U32x2) = async_copy::copy_async_8(SharedPtr::from_address(a), p);
    fn copy_async_16(a: u32, p: *const U32x4) = async_copy::copy_async_16(SharedPtr::from_address(a), p);
    fn copy_async_16_zero_fill(a: u32, p: *const U32x4, n: u32) =
        async_copy::copy_async_16_zero_fill(SharedPtr::from_address(a), p, n);
    fn commit_group() = async_copy::commit_group();
    fn wait_group() = async_copy::wait_group::<2>();
    fn wait_all() = async_copy::wait_all();
}

#[cfg(target_feature = "sm_90")]
calls! {
    fn prefetch_l2_bulk(p: *const f32, n: u32) = ptr::prefetch_l2_bulk(p, n);
    fn grid_dependency_synchronize() = grid::grid_dependency_synchronize();
    fn trigger_programmatic_launch_completion() = grid::trigger_programmatic_launch_completion();
}

/// A vote on one side of a branch, which LLVM must leave on that side.
#[kernel(launch_bounds(64 * 2))]
pub unsafe fn vote_in_a_branch(out: *mut u32, p: u32) {
    let lane = warp::lane_id();
    let mut votes = 0;
    if lane < 16 {
        votes = unsafe { warp::warp_vote_ballot(0xffff, lane > p) };
    }
    unsafe { *out.add(lane as usize) = votes };
}

/// A barrier and a vote, each between two branches on one condition, which no compiler may copy into both sides of the first.
#[kernel]
pub unsafe fn between_branches(out: *mut u32, x: *const u32, n: u32) {
    let shared = shared_array![u32; 64];
    let (thread, i) = (thread::thread_idx_x(), thread::index_1d());
    unsafe {
        if i < n {
            shared.add(thread).write(*x.add(i as usize));
        }
        thread::sync_threads();
        if i < n {
            *out.add(i as usize) = shared.read() + shared.add(thread).read();
        }
        let large = *x.add(thread as usize) > 5;
        if large {
            *out = 1;
        }
        let votes = warp::warp_vote_ballot(warp::FULL_MASK, *x.add(i as usize) & 1 == 0);
        *out.add(thread as usize) += if large { votes } else { votes * 3 };
    }
}

/// A bounds check: it panics, and a panic is a trap.
#[kernel(launch_bounds(256, 2))]
pub unsafe fn checked_index(out: *mut f32, x: *const f32, n: u32) {
    let x = unsafe { core::slice::from_raw_parts(x, n as usize) };
    unsafe { *out = x[thread::index_1d() as usize] };
}

#[kernel]
pub unsafe fn compute_capability(out: *mut u32) {
    unsafe { *out = cuda_std::cfg::compute_capability() };
}
