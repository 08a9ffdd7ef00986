//! Streams, events and graphs.

use std::{
    ffi::{c_int, c_uint, c_void},
    ptr, thread,
};

use crate::{
    context::{Capture, CaptureMode, LEGACY_STREAM, Mark, Stream, Work, owner, refuse_capture},
    driver::{run_to_event, with_context},
    status::{
        GRAPH_EXEC_UPDATE_FAILURE, INVALID_HANDLE, INVALID_VALUE, NOT_READY,
        STREAM_CAPTURE_INVALIDATED, STREAM_CAPTURE_UNSUPPORTED, STREAM_CAPTURE_WRONG_THREAD,
    },
};

/// Milliseconds that each piece of work takes on the double's clock.
const MILLISECONDS_PER_WORK: f32 = 0.25;

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamCreate(stream: *mut *mut c_void, flags: c_uint) -> c_int {
    with_context("cuStreamCreate", |context| {
        if flags > 1 {
            return Err(INVALID_VALUE);
        }
        let handle = context.new_handle();
        let new = Stream {
            non_blocking: flags == 1,
            ..Stream::default()
        };
        context.streams.insert(handle, new);
        // SAFETY: the caller passes a pointer that is valid for the write.
        unsafe { stream.write(ptr::without_provenance_mut(handle)) };
        Ok(())
    })
}

/// The stream's work stays pending, as on a GPU.
#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(stream: *mut c_void) -> c_int {
    with_context("cuStreamDestroy_v2", |context| {
        context.stream(stream)?;
        context.departed.push(stream.addr());
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(stream: *mut c_void) -> c_int {
    with_context("cuStreamSynchronize", |context| {
        refuse_capture(context.stream(stream)?)?;
        context.run_until(stream.addr(), u64::MAX)?;
        context.release_unused();
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamWaitEvent(stream: *mut c_void, event: *mut c_void, flags: c_uint) -> c_int {
    if owner(event.addr()) != owner(stream.addr()) {
        // Work may run at any time: that of another GPU runs now.
        run_to_event(owner(event.addr()), event.addr());
        return with_context("cuStreamWaitEvent", |context| {
            context.stream(stream).map(drop)
        });
    }
    with_context("cuStreamWaitEvent", |context| {
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        match *context.events.get(&event.addr()).ok_or(INVALID_HANDLE)? {
            Some(mark) => context.submit(stream, Work::Wait(mark)).map(drop),
            // An event that was never recorded is as good as complete.
            None => context.stream(stream).map(drop),
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventCreate(event: *mut *mut c_void, flags: c_uint) -> c_int {
    with_context("cuEventCreate", |context| {
        if flags > 7 {
            return Err(INVALID_VALUE);
        }
        let handle = context.new_handle();
        context.events.insert(handle, None);
        // SAFETY: the caller passes a pointer that is valid for the write.
        unsafe { event.write(ptr::without_provenance_mut(handle)) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecord(event: *mut c_void, stream: *mut c_void) -> c_int {
    with_context("cuEventRecord", |context| {
        if !context.events.contains_key(&event.addr()) {
            return Err(INVALID_HANDLE);
        }
        let number = context.submit(stream, Work::Record)?;
        let mark = Mark {
            stream: stream.addr(),
            number,
        };
        context.events.insert(event.addr(), Some(mark));
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventSynchronize(event: *mut c_void) -> c_int {
    with_context("cuEventSynchronize", |context| {
        match *context.events.get(&event.addr()).ok_or(INVALID_HANDLE)? {
            Some(mark) => {
                context.run_until(mark.stream, mark.number)?;
                context.release_unused();
                Ok(())
            }
            None => Ok(()),
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventElapsedTime(
    milliseconds: *mut f32,
    start: *mut c_void,
    end: *mut c_void,
) -> c_int {
    with_context("cuEventElapsedTime", |context| {
        let time = |event: *mut c_void| {
            let mark = *context.events.get(&event.addr()).ok_or(INVALID_HANDLE)?;
            let mark = mark.ok_or(INVALID_HANDLE)?;
            let stream = context.streams.get(&mark.stream).ok_or(INVALID_HANDLE)?;
            stream.recorded.get(&mark.number).copied().ok_or(NOT_READY)
        };
        let works = time(end)? as f32 - time(start)? as f32;
        // SAFETY: the caller passes a pointer that is valid for the write.
        unsafe { milliseconds.write(works * MILLISECONDS_PER_WORK) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventDestroy_v2(event: *mut c_void) -> c_int {
    with_context("cuEventDestroy_v2", |context| {
        context
            .events
            .remove(&event.addr())
            .map(drop)
            .ok_or(INVALID_HANDLE)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamBeginCapture_v2(stream: *mut c_void, mode: c_int) -> c_int {
    with_context("cuStreamBeginCapture_v2", |context| {
        // "Capture may not be initiated if stream is CU_STREAM_LEGACY."
        if stream.addr() == LEGACY_STREAM {
            return Err(STREAM_CAPTURE_UNSUPPORTED);
        }
        let stream = context.stream(stream)?;
        let modes = [
            CaptureMode::Global,
            CaptureMode::ThreadLocal,
            CaptureMode::Relaxed,
        ];
        let mode = usize::try_from(mode).ok().and_then(|mode| modes.get(mode));
        let Some(&mode) = mode.filter(|_| stream.capture.is_none()) else {
            return Err(INVALID_VALUE);
        };
        stream.capture = Some(Capture {
            works: Vec::new(),
            invalid: false,
            mode,
            thread: thread::current().id(),
        });
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamEndCapture(stream: *mut c_void, graph: *mut *mut c_void) -> c_int {
    with_context("cuStreamEndCapture", |context| {
        let stream = context.stream(stream)?;
        let capture = stream.capture.as_ref().ok_or(INVALID_VALUE)?;
        // "If the mode argument to cuStreamBeginCapture was not CU_STREAM_CAPTURE_MODE_RELAXED, this call must be from the same thread."
        if capture.mode != CaptureMode::Relaxed && capture.thread != thread::current().id() {
            return Err(STREAM_CAPTURE_WRONG_THREAD);
        }
        let capture = stream.capture.take().ok_or(INVALID_VALUE)?;
        let handle = context.new_handle();
        // SAFETY: the caller passes a pointer that is valid for the write.
        unsafe { graph.write(ptr::null_mut()) };
        if capture.invalid {
            return Err(STREAM_CAPTURE_INVALIDATED);
        }
        context.graphs.insert(handle, capture.works);
        // SAFETY: as above.
        unsafe { graph.write(ptr::without_provenance_mut(handle)) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphInstantiateWithFlags(
    executable: *mut *mut c_void,
    graph: *mut c_void,
    flags: u64,
) -> c_int {
    with_context("cuGraphInstantiateWithFlags", |context| {
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        let works = context
            .graphs
            .get(&graph.addr())
            .ok_or(INVALID_HANDLE)?
            .clone();
        let handle = context.new_handle();
        context.executables.insert(handle, works.into());
        // SAFETY: the caller passes a pointer that is valid for the write.
        unsafe { executable.write(ptr::without_provenance_mut(handle)) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphLaunch(executable: *mut c_void, stream: *mut c_void) -> c_int {
    with_context("cuGraphLaunch", |context| {
        let works = context.executables.get(&executable.addr());
        let works = works.ok_or(INVALID_HANDLE)?.clone();
        context
            .submit(stream, Work::Graph(executable.addr(), works))
            .map(drop)
    })
}

/// `CUgraphExecUpdateResultInfo`, as `cuda.h` has it.
#[repr(C)]
struct UpdateResult {
    result: c_int,
    node: *mut c_void,
    from_node: *mut c_void,
}

/// Replays submitted before keep what they had. As the reference has it, a node cannot become cooperative or cease to be so; a
/// launch that may start early depends on what is in front of it by another kind of edge, and edges cannot change.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphExecUpdate_v2(
    executable: *mut c_void,
    graph: *mut c_void,
    info: *mut c_void,
) -> c_int {
    const TOPOLOGY_CHANGED: c_int = 2;
    const UNSUPPORTED_FUNCTION_CHANGE: c_int = 7;
    const ATTRIBUTES_CHANGED: c_int = 8;
    with_context("cuGraphExecUpdate_v2", |context| {
        let old = context.executables.get(&executable.addr());
        let new = context.graphs.get(&graph.addr());
        let (old, new) = (old.ok_or(INVALID_HANDLE)?, new.ok_or(INVALID_HANDLE)?);
        let same_kind =
            |(old, new): (&Work, &Work)| std::mem::discriminant(old) == std::mem::discriminant(new);
        let same_function = |(old, new): (&Work, &Work)| match (old, new) {
            (Work::Launch { function: old, .. }, Work::Launch { function: new, .. }) => old == new,
            _ => true,
        };
        let early = |work: &Work| {
            matches!(
                work,
                Work::Launch {
                    programmatic: true,
                    ..
                }
            )
        };
        let cooperative =
            |work: &Work| matches!(work, Work::Launch { config, .. } if config.cooperative);
        let same = |has: &dyn Fn(&Work) -> bool| {
            old.iter()
                .zip(new.iter())
                .all(|(old, new)| has(old) == has(new))
        };
        let pairs = || old.iter().zip(new.iter());
        let result = if old.len() != new.len() || !pairs().all(same_kind) || !same(&early) {
            TOPOLOGY_CHANGED
        } else if !pairs().all(same_function) {
            UNSUPPORTED_FUNCTION_CHANGE
        } else if !same(&cooperative) {
            ATTRIBUTES_CHANGED
        } else {
            0
        };
        // SAFETY: the caller passes a `CUgraphExecUpdateResultInfo`.
        unsafe {
            info.cast::<UpdateResult>().write(UpdateResult {
                result,
                node: ptr::null_mut(),
                from_node: ptr::null_mut(),
            });
        }
        if result != 0 {
            return Err(GRAPH_EXEC_UPDATE_FAILURE);
        }
        let works = new.as_slice().into();
        context.executables.insert(executable.addr(), works);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphDestroy(graph: *mut c_void) -> c_int {
    with_context("cuGraphDestroy", |context| {
        context
            .graphs
            .remove(&graph.addr())
            .map(drop)
            .ok_or(INVALID_HANDLE)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphExecDestroy(executable: *mut c_void) -> c_int {
    with_context("cuGraphExecDestroy", |context| {
        context
            .executables
            .remove(&executable.addr())
            .map(drop)
            .ok_or(INVALID_HANDLE)
    })
}
