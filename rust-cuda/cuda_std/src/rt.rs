//! What every device binary needs once.

/// A panic on the device is a `trap`: the launch fails with `CUDA_ERROR_ILLEGAL_INSTRUCTION`, and the
/// context becomes unusable. The message is dropped; formatting it would cost registers in every kernel.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // SAFETY: `llvm.trap` takes nothing and does not return.
    unsafe { crate::llvm::trap() }
}
