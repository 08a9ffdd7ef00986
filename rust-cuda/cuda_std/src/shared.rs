//! Shared memory, which the threads of a block have in common.
//!
//! A Rust pointer is a generic address, and neither LLVM nor ptxas can infer that one points to shared memory
//! (Rust has no syntax for PTX's state spaces). [`SharedPtr`] holds the 32-bit shared address instead, and its
//! accesses are `ld.shared` and `st.shared`. Rust-CUDA returns `*mut T` in these places; [`SharedPtr::as_mut_ptr`]
//! gives that pointer.

use core::marker::PhantomData;

use crate::gpu_only;
use crate::ptr::{U32x2, U32x4};
#[cfg(target_arch = "nvptx64")]
use core::arch::asm;

// One extern array for the whole module: PTX places all of them at the same address.
#[cfg(target_arch = "nvptx64")]
core::arch::global_asm!(".extern .shared .align 16 .b8 cuda_std_dynamic_shared[];");

/// The block's dynamic shared memory, 16-byte aligned. Its size is given at launch, and its contents are initially
/// undefined. PTX: `mov.u32` of a `.extern .shared` array; any architecture.
#[gpu_only]
pub fn dynamic_shared_mem<T>() -> SharedPtr<T> {
    let address: u32;
    // SAFETY: reads the address of the array declared above.
    unsafe {
        asm!("mov.u32 {}, cuda_std_dynamic_shared;", out(reg32) address, options(pure, nomem, nostack, preserves_flags));
    }
    SharedPtr::from_address(address)
}

/// Size of the block's dynamic shared memory, in bytes. PTX: `mov.u32 %dynamic_smem_size`; any architecture.
#[gpu_only]
pub fn dynamic_smem_size() -> u32 {
    let size: u32;
    // SAFETY: reads a register.
    unsafe {
        asm!("mov.u32 {}, %dynamic_smem_size;", out(reg32) size, options(pure, nomem, nostack, preserves_flags));
    }
    size
}

/// A pointer to a `T` in the block's shared memory: a 32-bit address in PTX's shared state space.
///
/// Like a raw pointer it may dangle, and whoever reads or writes through it is responsible for bounds, alignment and
/// the barriers between one thread's write and another's read.
#[derive(Debug)]
#[repr(transparent)]
pub struct SharedPtr<T> {
    address: u32,
    target: PhantomData<*mut T>,
}

impl<T> Clone for SharedPtr<T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SharedPtr<T> {}

impl<T> SharedPtr<T> {
    /// The pointer with this shared address, in bytes.
    #[inline(always)]
    pub const fn from_address(address: u32) -> Self {
        Self {
            address,
            target: PhantomData,
        }
    }

    /// The shared address, in bytes.
    #[inline(always)]
    pub const fn address(self) -> u32 {
        self.address
    }

    /// The pointer `count` elements further on (modulo 2^32 bytes).
    #[inline(always)]
    #[allow(clippy::should_implement_trait)] // Named like the raw pointers' method.
    pub const fn add(self, count: u32) -> Self {
        Self::from_address(
            self.address
                .wrapping_add(count.wrapping_mul(size_of::<T>() as u32)),
        )
    }

    /// The same address as a pointer to another type.
    #[inline(always)]
    pub const fn cast<U>(self) -> SharedPtr<U> {
        SharedPtr::from_address(self.address)
    }

    /// The generic pointer to the same address; accesses through it are generic `ld` and `st`, which first have to
    /// determine its state space. PTX: `cvta.shared.u64`; any architecture.
    #[gpu_only]
    pub fn as_mut_ptr(self) -> *mut T {
        let ptr: *mut T;
        // SAFETY: address arithmetic.
        unsafe {
            asm!("cvta.shared.u64 {}, {};", out(reg64) ptr, in(reg64) u64::from(self.address),
                options(pure, nomem, nostack, preserves_flags));
        }
        ptr
    }
}

impl<T: SharedValue> SharedPtr<T> {
    /// Reads the value. PTX: `ld.shared`; any architecture.
    ///
    /// # Safety
    /// The address is in the block's shared memory, aligned to `T`'s size, initialised, and no other thread writes there
    /// without a barrier in between.
    #[inline(always)]
    pub unsafe fn read(self) -> T {
        // SAFETY: the caller's promise.
        unsafe { T::load_shared(self.address) }
    }

    /// Writes the value. PTX: `st.shared`; any architecture.
    ///
    /// # Safety
    /// The address is in the block's shared memory, aligned to `T`'s size, and no other thread reads or writes there
    /// without a barrier in between.
    #[inline(always)]
    pub unsafe fn write(self, value: T) {
        // SAFETY: the caller's promise.
        unsafe { T::store_shared(self.address, value) }
    }
}

impl SharedPtr<i32> {
    /// Adds to the value, modulo 2^32, in one indivisible step; it does not order other accesses. PTX: `red.relaxed.cta.shared.add.s32`; sm_70.
    ///
    /// # Safety
    /// The address is in the block's shared memory, aligned to 4 bytes and initialised; without a barrier in between, other threads access it
    /// only with this function.
    #[gpu_only]
    pub unsafe fn atomic_add(self, value: i32) {
        // SAFETY: the caller's promise.
        unsafe {
            asm!("red.relaxed.cta.shared.add.s32 [{}], {};", in(reg32) self.address, in(reg32) value,
                options(nostack, preserves_flags));
        }
    }
}

/// Values that a single `ld.shared` or `st.shared` transfers.
pub trait SharedValue: Copy + sealed::Sealed {
    /// Loads from a shared address.
    ///
    /// # Safety
    /// As [`SharedPtr::read`].
    unsafe fn load_shared(address: u32) -> Self;
    /// Stores to a shared address.
    ///
    /// # Safety
    /// As [`SharedPtr::write`].
    unsafe fn store_shared(address: u32, value: Self);
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! shared_values {
    ($($ty:ty, $class:ident, $suffix:literal;)*) => {$(
        impl sealed::Sealed for $ty {}
        impl SharedValue for $ty {
            #[gpu_only]
            unsafe fn load_shared(address: u32) -> Self {
                let value: $ty;
                // SAFETY: the caller's promise. `readonly`, not `nomem`: the load is not moved across barriers and stores.
                unsafe {
                    asm!(concat!("ld.shared.", $suffix, " {}, [{}];"), out($class) value, in(reg32) address,
                        options(pure, readonly, nostack, preserves_flags));
                }
                value
            }
            #[gpu_only]
            unsafe fn store_shared(address: u32, value: Self) {
                // SAFETY: the caller's promise.
                unsafe {
                    asm!(concat!("st.shared.", $suffix, " [{}], {};"), in(reg32) address, in($class) value,
                        options(nostack, preserves_flags));
                }
            }
        }
    )*};
}

shared_values! {
    u8, reg16, "u8";
    i8, reg16, "s8";
    u16, reg16, "u16";
    i16, reg16, "s16";
    u32, reg32, "u32";
    i32, reg32, "s32";
    f32, reg32, "f32";
    u64, reg64, "u64";
}

impl sealed::Sealed for U32x2 {}
impl SharedValue for U32x2 {
    #[gpu_only]
    unsafe fn load_shared(address: u32) -> Self {
        let (a, b): (u32, u32);
        // SAFETY: as for the scalars.
        unsafe {
            asm!("ld.shared.v2.u32 {{{}, {}}}, [{}];", out(reg32) a, out(reg32) b, in(reg32) address,
                options(pure, readonly, nostack, preserves_flags));
        }
        U32x2([a, b])
    }
    #[gpu_only]
    unsafe fn store_shared(address: u32, value: Self) {
        let [a, b] = value.0;
        // SAFETY: as for the scalars.
        unsafe {
            asm!("st.shared.v2.u32 [{}], {{{}, {}}};", in(reg32) address, in(reg32) a, in(reg32) b,
                options(nostack, preserves_flags));
        }
    }
}

impl sealed::Sealed for U32x4 {}
impl SharedValue for U32x4 {
    #[gpu_only]
    unsafe fn load_shared(address: u32) -> Self {
        let (a, b, c, d): (u32, u32, u32, u32);
        // SAFETY: as for the scalars.
        unsafe {
            asm!("ld.shared.v4.u32 {{{}, {}, {}, {}}}, [{}];",
                out(reg32) a, out(reg32) b, out(reg32) c, out(reg32) d, in(reg32) address,
                options(pure, readonly, nostack, preserves_flags));
        }
        U32x4([a, b, c, d])
    }
    #[gpu_only]
    unsafe fn store_shared(address: u32, value: Self) {
        let [a, b, c, d] = value.0;
        // SAFETY: as for the scalars.
        unsafe {
            asm!("st.shared.v4.u32 [{}], {{{}, {}, {}, {}}};",
                in(reg32) address, in(reg32) a, in(reg32) b, in(reg32) c, in(reg32) d,
                options(nostack, preserves_flags));
        }
    }
}
