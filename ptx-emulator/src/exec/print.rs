//! `vprintf` and `__assertfail`, which CUDA's headers call.

use super::access::resolve;
use super::block::Context;
use super::format::{Amount, Argument, Kind, Part, convert, parts};
use super::lanes::lanes;
use super::stop::{Step, Stop};
use super::warp::Warp;
use crate::fault::{FaultKind, Space};
use crate::isa::{AccessSpace, Call, ParamPlace};

/// Longest text that an argument of `printf` or an assertion may be.
const MAX_TEXT: usize = 1 << 16;

/// One lane of a warp that prints.
struct Printer<'a, 'c> {
    context: &'a Context<'c>,
    warp: &'a Warp,
    frame: usize,
    lane: usize,
}

impl Printer<'_, '_> {
    /// A parameter of a call.
    fn param(&self, place: ParamPlace) -> u64 {
        let frame = &self.warp.frames[self.frame];
        let stride = frame.params.len() / 32;
        let start = self.lane * stride + place.offset as usize;
        let mut bytes = [0; 8];
        bytes[..place.size as usize]
            .copy_from_slice(&frame.params[start..start + place.size as usize]);
        u64::from_le_bytes(bytes)
    }

    /// Bytes at a generic address.
    fn read<const N: usize>(&self, address: u64) -> Step<[u8; N]> {
        let (space, within) = resolve(address);
        let checks = self.context.checks;
        let mut bytes = [0; N];
        let (fault_space, found, written) = match space {
            AccessSpace::Shared => {
                let shared = &self.context.block.shared;
                let found = fits(within, N, shared.bytes.len());
                if let Some(at) = found {
                    bytes.copy_from_slice(&shared.bytes[at..at + N]);
                }
                let written = found.is_some_and(|at| shared.is_written(at, N));
                (Space::Shared, found.is_some(), written)
            }
            AccessSpace::Local => {
                let local = &self.warp.local[self.lane];
                let end = self.warp.frames[self.frame].local_end as usize;
                let found = fits(within, N, end.min(local.bytes.len()));
                let mut written = false;
                if let Some(at) = found {
                    bytes.copy_from_slice(&local.bytes[at..at + N]);
                    written = local.written[at..at + N].iter().all(|&written| written);
                }
                (Space::Local, found.is_some(), written)
            }
            AccessSpace::KernelParam => {
                let params = &self.context.launch.params;
                let found = fits(within, N, params.len());
                if let Some(at) = found {
                    bytes.copy_from_slice(&params[at..at + N]);
                }
                (Space::Param, found.is_some(), true)
            }
            _ => {
                let memory = self.context.launch.memory;
                let allocation = memory
                    .find(address)
                    .map(|index| &memory.allocations()[index])
                    .filter(|allocation| allocation.contains(address, N as u64));
                let mut written = false;
                if let Some(allocation) = allocation {
                    let offset = (address - allocation.base) as usize;
                    for (at, byte) in bytes.iter_mut().enumerate() {
                        *byte = allocation.load(offset + at, 1) as u8;
                    }
                    written = allocation.is_range_written(offset, N);
                }
                (Space::Global, allocation.is_some(), written)
            }
        };
        let size = N as u32;
        let kind = if !found && checks.memory {
            FaultKind::OutOfBounds { size }
        } else if found && !written && checks.initialization {
            FaultKind::UninitializedMemory { size }
        } else {
            return Ok(bytes);
        };
        Stop::access(kind, self.lane as u32, fault_space, address)
    }

    /// A text that ends with a zero byte.
    fn text(&self, address: u64) -> Step<Vec<u8>> {
        let mut text = Vec::new();
        loop {
            let [byte] = self.read(address.wrapping_add(text.len() as u64))?;
            if byte == 0 || text.len() == MAX_TEXT {
                return Ok(text);
            }
            text.push(byte);
        }
    }

    fn text_of(&self, place: ParamPlace) -> Step<String> {
        let text = self.text(self.param(place))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// The next argument, which lies at a multiple of its size; moves `at` past it.
    fn next<const N: usize>(&self, at: &mut u64) -> Step<[u8; N]> {
        let size = N as u64;
        let start = at.wrapping_add(size - 1) & !(size - 1);
        *at = start.wrapping_add(size);
        self.read(start)
    }

    fn int(&self, at: &mut u64) -> Step<u64> {
        Ok(u32::from_le_bytes(self.next(at)?).into())
    }

    fn long(&self, at: &mut u64) -> Step<u64> {
        Ok(u64::from_le_bytes(self.next(at)?))
    }

    /// What is printed, and how many arguments it took.
    fn print(&self, format: u64, arguments: u64) -> Step<(Vec<u8>, i32)> {
        let format = self.text(format)?;
        let mut out = Vec::new();
        let mut at = arguments;
        let mut count = 0;
        for part in parts(&format) {
            let mut spec = match part {
                Part::Literal(text) => {
                    out.extend_from_slice(text);
                    continue;
                }
                Part::Conversion(spec) => spec,
            };
            if spec.width == Amount::Argument {
                spec.set_width(self.int(&mut at)? as i32);
                count += 1;
            }
            if spec.precision == Amount::Argument {
                spec.set_precision(self.int(&mut at)? as i32);
                count += 1;
            }
            let argument = match spec.kind() {
                Kind::Int => Argument::Integer(self.int(&mut at)?),
                Kind::Long => Argument::Integer(self.long(&mut at)?),
                Kind::Double => Argument::Float(f64::from_bits(self.long(&mut at)?)),
                Kind::Text => match self.long(&mut at)? {
                    0 => Argument::Text(b"(null)".to_vec()),
                    address => Argument::Text(self.text(address)?),
                },
            };
            count += 1;
            out.append(&mut convert(&spec, &argument));
        }
        Ok((out, count))
    }
}

/// The offset of some bytes within a memory, if they are all there.
fn fits(address: u64, bytes: usize, size: usize) -> Option<usize> {
    let at = usize::try_from(address).ok()?;
    (at <= size && size - at >= bytes).then_some(at)
}

/// `vprintf(format, arguments)`, of each lane in ascending order.
pub(super) fn vprintf(
    context: &mut Context<'_>,
    warp: &mut Warp,
    frame: usize,
    call: &Call,
    active: u32,
) -> Step<()> {
    let (&[format, arguments], &[result]) = (&call.arguments[..], &call.results[..]) else {
        return Stop::first(FaultKind::InvalidTarget, active);
    };
    for lane in lanes(active) {
        let printer = Printer {
            context,
            warp,
            frame,
            lane,
        };
        let (out, count) = match printer.param(format) {
            0 => (Vec::new(), -1),
            address => printer.print(address, printer.param(arguments))?,
        };
        context
            .launch
            .printed
            .add(context.launch, context.block.index, &out);
        let own = &mut warp.frames[frame];
        let stride = own.params.len() / 32;
        let (start, size) = (result.offset as usize, result.size as usize);
        own.params[lane * stride + start..][..size].copy_from_slice(&count.to_le_bytes()[..size]);
        for known in &mut own.params_initialized[start..start + size] {
            *known |= 1 << lane;
        }
    }
    Ok(())
}

/// `__assertfail(message, file, line, function, size of a character)`, of the first lane.
pub(super) fn assert_fail<T>(
    context: &Context<'_>,
    warp: &Warp,
    frame: usize,
    call: &Call,
    active: u32,
) -> Step<T> {
    let lane = active.trailing_zeros() as usize;
    let printer = Printer {
        context,
        warp,
        frame,
        lane,
    };
    let &[message, file, line, function, _] = &call.arguments[..] else {
        return Stop::first(FaultKind::Trap, active);
    };
    let kind = FaultKind::AssertionFailed {
        message: printer.text_of(message)?,
        file: printer.text_of(file)?,
        line: printer.param(line) as u32,
        function: printer.text_of(function)?,
    };
    Stop::lane(kind, lane as u32)
}
