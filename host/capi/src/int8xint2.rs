//! `bitlinear_int8xint2`, with the signature and meaning of Microsoft's `libbitnet.so`.

use std::ffi::{c_int, c_void};
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use bitnet_cuda::device::{CurrentContext, Device, DeviceKind};
use bitnet_cuda::layout::{Layout, MAX_K};
use bitnet_cuda::ops::{Int8xInt2, bitlinear_int8xint2 as submit};
use half::bf16;

use crate::arguments::{self, Range};
use crate::device::OpenDevice;
use crate::error::{Error, run};

/// The GPUs that were used so far. They stay open, as no call says when they are done with, but not the memory that `bitnet_alloc` has made
/// on them. Of the emulated device there is a handle as long as there is memory.
static USED: Mutex<Vec<Device>> = Mutex::new(Vec::new());

/// The GPU whose context is current, else the first usable one, else the process's emulated device.
fn device() -> Result<Device, Error> {
    let mut used = USED.lock().unwrap_or_else(PoisonError::into_inner);
    used.retain(|used| !used.is_lost());
    let current = match Device::cuda_count() {
        Ok(_) => Device::current_cuda()?,
        Err(_) => None,
    };
    let known = match &current {
        Some(current) => used.iter().find(|used| *used == current),
        None => used.first(),
    };
    if let Some(known) = known {
        return Ok(known.clone());
    }
    let opened = match current {
        Some(current) => current,
        None => OpenDevice::open("auto")?.device.clone(),
    };
    if opened.kind() == DeviceKind::Cuda {
        used.push(opened.clone());
    }
    Ok(opened)
}

/// Tokens of a launch, at most.
const MAX_TOKENS: usize = u16::MAX as usize;

/// Bytes of the kernel's weight loads.
const W_ALIGNMENT: usize = 16;

/// Weight scales of a matrix: as many as Microsoft's table gives the shapes whose rows are several fused matrices.
fn groups(n: usize, k: usize) -> usize {
    match (n, k) {
        (3840, 2560) => 3,
        (4800, 3200) => 6,
        (13824, 2560) | (20480, 3200) => 2,
        _ => 1,
    }
}

/// `bitlinear_int8xint2` of the header.
///
/// # Safety
/// The pointers are null, or nothing writes what they point to (or, of `out`, uses it) before the stream comes to it; `stream`
/// is a stream of the device.
#[unsafe(no_mangle)]
#[allow(non_snake_case)]
pub unsafe extern "C" fn bitlinear_int8xint2(
    a: *mut i8,
    w: *mut i8,
    out: *mut u16,
    s: *mut u16,
    ws: *mut u16,
    M: c_int,
    N: c_int,
    K: c_int,
    stream: *mut c_void,
) {
    let result = run(|| {
        let size = |name, value: c_int, limit| arguments::size(name, value.into(), limit);
        let (m, n) = (
            size("M", M, i32::MAX as usize)?,
            size("N", N, i32::MAX as usize)?,
        );
        let k = size("K", K, MAX_K)?;
        let groups = groups(n, k);
        let w_len = Layout::Ladder.packed_len(n, k)?;
        let (a_len, out_len) = (arguments::elements(m, k)?, arguments::elements(m, n)?);
        let _context = CurrentContext::save();
        let device = &device()?;
        // All is checked before a part is submitted.
        let parts = (0..m).step_by(MAX_TOKENS).map(|first| {
            let tokens = MAX_TOKENS.min(m - first);
            let (a, s, out) = (
                a.wrapping_add(first * k),
                s.wrapping_add(first),
                out.wrapping_add(first * n),
            );
            // SAFETY: the caller's contract; the parts are within the arrays.
            unsafe {
                let activations = arguments::device_array::<i8>("a", device, a.cast(), tokens * k)?;
                let scale = arguments::device_array::<bf16>("s", device, s.cast(), tokens)?;
                Ok((
                    tokens,
                    activations,
                    scale,
                    arguments::device_array::<bf16>("out", device, out.cast(), tokens * n)?,
                ))
            }
        });
        let parts = parts.collect::<Result<Vec<_>, Error>>()?;
        // SAFETY: the caller's contract.
        let (weights, row_scale, stream) = unsafe {
            let weights = arguments::device_array("w", device, w.cast(), w_len)?;
            let row_scale = arguments::device_array::<bf16>("ws", device, ws.cast(), groups)?;
            (weights, row_scale, arguments::stream(device, stream)?)
        };
        if !w.addr().is_multiple_of(W_ALIGNMENT) {
            return Err(Error::argument(format!(
                "w = {w:p} is not a multiple of {W_ALIGNMENT}"
            )));
        }
        Range::new("out", out, out_len.saturating_mul(size_of::<bf16>())).require_apart(&[
            Range::new("a", a, a_len),
            Range::new("w", w, w_len),
            Range::new("s", s, m * size_of::<bf16>()),
            Range::new("ws", ws, groups * size_of::<bf16>()),
        ])?;
        for (tokens, activations, scale, mut output) in parts {
            let operands = Int8xInt2 {
                activations: &activations,
                weights: &weights,
                activation_scale: &scale,
                row_scale: &row_scale,
                output: &mut output,
            };
            submit(&stream, operands, tokens, n, k)?;
        }
        Ok(())
    });
    if let Err(error) = result {
        let message = error.message.replace('\n', " ");
        // `eprintln!` would panic where stderr cannot be written to, and end the caller's process.
        let _ = writeln!(io::stderr(), "bitlinear_int8xint2: {message}");
    }
}

#[cfg(test)]
mod tests {
    use super::groups;

    #[test]
    fn groups_divide_the_rows_of_their_shapes() {
        for (n, k, expected) in [
            (3840, 2560, 3),
            (4800, 3200, 6),
            (13824, 2560, 2),
            (20480, 3200, 2),
            (2560, 6912, 1),
        ] {
            assert_eq!(groups(n, k), expected);
            assert_eq!(n % expected, 0);
        }
        assert_eq!(groups(2560, 3840), 1);
    }
}
