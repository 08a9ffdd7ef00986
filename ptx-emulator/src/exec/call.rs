//! Calls: who is called, and the parameters' bytes between the frames of caller and callee.

use super::block::Context;
use super::control::{Flow, check_uniform};
use super::lanes::lanes;
use super::print;
use super::stop::{Step, Stop};
use super::warp::{Frame, Warp};
use crate::device::Image;
use crate::fault::FaultKind;
use crate::isa::{Builtin, Call, CallTarget, ParamPlace};

/// Maximum depth of nested calls.
const MAX_DEPTH: u32 = 1024;

/// Bytes of local memory per thread.
const MAX_LOCAL: u32 = 512 << 10;

impl Warp {
    /// Lanes of a split enter a function: all of them, or those that call the same one.
    pub(super) fn call(
        &mut self,
        context: &mut Context<'_>,
        image: &Image<'_>,
        at: usize,
        index: u32,
        active: u32,
        mask: u32,
    ) -> Step<Flow> {
        let split = self.splits[at];
        // No call preserves the condition code.
        self.frames[split.frame as usize].carry_initialized &= !active;
        let call = &image.function.calls[index as usize];
        let inst = &image.function.code[split.pc as usize];
        let caller = &self.frames[split.frame as usize];
        let (callee, callers) = match &call.target {
            CallTarget::Function(callee) => (*callee, active),
            CallTarget::Builtin(builtin) => {
                let frame = split.frame as usize;
                match builtin {
                    Builtin::AssertFail => {
                        return print::assert_fail(context, self, frame, call, active);
                    }
                    Builtin::Vprintf => print::vprintf(context, self, frame, call, active)?,
                }
                self.splits[at].pc = split.pc + 1;
                return Ok(Flow::Reschedule);
            }
            CallTarget::Undefined => return Stop::first(FaultKind::InvalidTarget, active),
            CallTarget::Indirect(known) => {
                let row = &caller.rows[inst.src[0] as usize];
                let address = row[active.trailing_zeros() as usize];
                let callers = lanes(active)
                    .filter(|&lane| row[lane] == address)
                    .fold(0, |mask, lane| mask | 1 << lane);
                match crate::device::function_at(address) {
                    Some(callee)
                        if known.contains(&callee)
                            || (known.is_empty() && is_callable(context, callee, call)) =>
                    {
                        (callee, callers)
                    }
                    _ => return Stop::first(FaultKind::InvalidTarget, callers),
                }
            }
        };
        if callers != mask {
            check_uniform(context, image, split.pc, callers, mask)?;
        }
        if callers != active {
            // Lanes that call another function come back to this instruction afterwards.
            let meet = split.pc + 1;
            self.diverge(at, callers, split.pc, split.pc, meet);
            return Ok(Flow::Reschedule);
        }
        let function = context.launch.images[callee as usize].function;
        let local_base = caller.local_end.next_multiple_of(function.local_align);
        if caller.depth >= MAX_DEPTH || local_base + function.local_bytes > MAX_LOCAL {
            return Stop::first(FaultKind::StackOverflow, callers);
        }
        let arguments: Vec<_> = call
            .arguments
            .iter()
            .map(|place| take_param(caller, *place))
            .collect();
        let frame = self.push_frame(
            context.launch,
            callee,
            context.block.index,
            callers,
            caller.depth + 1,
            local_base,
        );
        let target = &mut self.frames[frame as usize];
        for (passed, &place) in arguments.iter().zip(&function.params) {
            put_param(target, place, passed, callers);
        }
        for &(place, offset) in &function.stacked {
            let passed = take_param(target, place);
            let start = (target.local_base + offset) as usize;
            for lane in lanes(callers) {
                let local = &mut self.local[lane];
                for (at, known) in passed.initialized.iter().enumerate() {
                    local.bytes[start + at] = passed.bytes[lane * place.size as usize + at];
                    local.written[start + at] = known >> lane & 1 != 0;
                }
            }
        }
        let results = function
            .returns
            .iter()
            .copied()
            .zip(call.results.iter().copied())
            .collect();
        self.enter(at, callers, frame, split.pc + 1, results);
        Ok(Flow::Reschedule)
    }
}

/// Whether an indirect call without a target list may reach a function: it takes and gives as many bytes as the call says.
fn is_callable(context: &Context<'_>, callee: u32, call: &Call) -> bool {
    let same = |some: &[ParamPlace], others: &[ParamPlace]| {
        let size = |place: &ParamPlace| place.size;
        some.iter().map(size).eq(others.iter().map(size))
    };
    context
        .launch
        .images
        .get(callee as usize)
        .is_some_and(|image| {
            !image.rows.is_empty()
                && same(&image.function.params, &call.arguments)
                && same(&image.function.returns, &call.results)
        })
}

/// A parameter of all lanes: its bytes, and for each the lanes in which it was written.
struct Passed {
    bytes: Vec<u8>,
    initialized: Vec<u32>,
}

fn take_param(frame: &Frame, place: ParamPlace) -> Passed {
    let stride = frame.params.len() / 32;
    let range = place.offset as usize..(place.offset + place.size) as usize;
    Passed {
        bytes: (0..32)
            .flat_map(|lane| frame.params[lane * stride..][range.clone()].iter().copied())
            .collect(),
        initialized: frame.params_initialized[range].to_vec(),
    }
}

fn put_param(frame: &mut Frame, place: ParamPlace, passed: &Passed, mask: u32) {
    let stride = frame.params.len() / 32;
    let (start, size) = (place.offset as usize, place.size as usize);
    for lane in lanes(mask) {
        frame.params[lane * stride + start..][..size]
            .copy_from_slice(&passed.bytes[lane * size..][..size]);
    }
    let known = &mut frame.params_initialized[start..start + size];
    for (known, passed) in known.iter_mut().zip(&passed.initialized) {
        *known = (*known & !mask) | (passed & mask);
    }
}

/// Copies results from a callee's frame to its caller's, for lanes that return.
pub(super) fn copy_results(
    frames: &mut [Frame],
    callee: u32,
    caller: u32,
    results: &[(ParamPlace, ParamPlace)],
    mask: u32,
) {
    for &(from, to) in results {
        let passed = take_param(&frames[callee as usize], from);
        put_param(&mut frames[caller as usize], to, &passed, mask);
    }
}
