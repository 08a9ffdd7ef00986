//! SIMD video instructions.

use crate::isa::{Compare, Video, VideoEnd, VideoOp, VideoOperand};

pub(crate) fn video(video: &Video, a: u32, b: u32, c: u32) -> u32 {
    let bits = video.bits;
    let both = u64::from(b) << 32 | u64::from(a);
    let element = |operand: VideoOperand, index: usize| {
        let low = (both >> (u32::from(operand.elements[index]) * bits)) as u32;
        let upper = low << (32 - bits);
        if operand.signed {
            upper as i32 >> (32 - bits)
        } else {
            (upper >> (32 - bits)) as i32
        }
    };
    let mut result = c;
    for index in (0..32 / bits as usize).filter(|index| video.mask >> index & 1 != 0) {
        let computed = one(video.op, element(video.a, index), element(video.b, index));
        let clamped = match video.end {
            VideoEnd::Accumulate => {
                result = result.wrapping_add_signed(computed);
                continue;
            }
            VideoEnd::Merge => computed,
            VideoEnd::MergeClamped { signed: true } => {
                computed.clamp(-1 << (bits - 1), (1 << (bits - 1)) - 1)
            }
            VideoEnd::MergeClamped { signed: false } => computed.clamp(0, (1 << bits) - 1),
        };
        let place = index as u32 * bits;
        let cut = u32::MAX >> (32 - bits);
        result = (result & !(cut << place)) | (clamped as u32 & cut) << place;
    }
    result
}

/// One element of the result, which fits in 18 bits.
fn one(op: VideoOp, a: i32, b: i32) -> i32 {
    match op {
        VideoOp::Add => a + b,
        VideoOp::Sub => a - b,
        // Halves are rounded up, those of negative sums down.
        VideoOp::Average => (a + b + i32::from(a + b >= 0)) >> 1,
        VideoOp::AbsDiff => (a - b).abs(),
        VideoOp::Min => a.min(b),
        VideoOp::Max => a.max(b),
        VideoOp::Set(compare) => i32::from(match compare {
            Compare::Eq => a == b,
            Compare::Ne => a != b,
            Compare::Lt => a < b,
            Compare::Le => a <= b,
            Compare::Gt => a > b,
            _ => a >= b,
        }),
    }
}
