use std::sync::{Arc, PoisonError};

use super::{
    core::{Core, lock},
    error::DeviceError,
    queue::StreamInner,
    sync::Mutex,
};

/// Which work on which streams may still use a resource.
///
/// A stream counts the work submitted to it and knows up to which count it is complete, so that keeping this
/// costs a launch no call to the driver.
#[derive(Debug, Default)]
pub(super) struct InFlight(Mutex<Vec<Use>>);

#[derive(Debug, Clone)]
struct Use {
    stream: Arc<StreamInner>,
    moment: Moment,
}

/// When a resource was last used on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// By the stream's n-th submission.
    Submission(u64),
    /// In the stream's n-th capture.
    Capture(u64),
}

impl InFlight {
    pub(super) fn mark(&self, stream: &Arc<StreamInner>, moment: Moment) {
        let mut uses = lock(&self.0);
        uses.retain(|used| !used.stream.is_past(used.moment));
        let same = |used: &&mut Use| {
            Arc::ptr_eq(&used.stream, stream)
                && std::mem::discriminant(&used.moment) == std::mem::discriminant(&moment)
        };
        match uses.iter_mut().find(same) {
            Some(used) => used.moment = moment,
            None => uses.push(Use {
                stream: Arc::clone(stream),
                moment,
            }),
        }
    }

    /// Whether all marked work on a resource of `owner` is known to be done. Takes no lock, since nobody else can mark more.
    pub(super) fn is_done(&mut self, owner: &Core) -> bool {
        let uses = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        uses.iter().all(|used| used.is_over(owner))
    }

    /// Whether all marked work is known to be done or on this stream's queue.
    pub(super) fn is_before(&self, stream: &Arc<StreamInner>) -> bool {
        lock(&self.0).iter().all(|used| {
            used.stream.is_past(used.moment)
                || Arc::ptr_eq(&used.stream, stream) && matches!(used.moment, Moment::Submission(_))
        })
    }

    /// Whether [`InFlight::wait`] fails now, because a stream whose work it would wait for is being captured. Takes no lock, as above.
    pub(super) fn is_captured(&mut self, owner: &Core) -> bool {
        let uses = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut left = uses.iter().filter(|used| !used.is_over(owner));
        left.any(|used| used.stream.is_capturing())
    }

    /// Waits until all marked work on a resource of `owner` is done.
    pub(super) fn wait(&self, owner: &Core) -> Result<(), DeviceError> {
        // Cloned, so that other threads can mark further work during the wait.
        let uses = lock(&self.0).clone();
        for used in &uses {
            let waited = used.stream.wait_for(used.moment);
            if !used.is_over(owner) {
                waited?;
            }
        }
        lock(&self.0).retain(|used| !used.is_over(owner));
        Ok(())
    }
}

impl Clone for InFlight {
    fn clone(&self) -> Self {
        Self(Mutex::new(lock(&self.0).clone()))
    }
}

impl Use {
    /// Whether the work is done, or was another device's that is lost: a fault ends all work of its context, and the memory of
    /// `owner` is as it was.
    fn is_over(&self, owner: &Core) -> bool {
        self.stream.is_past(self.moment) || self.stream.is_of_other_lost(owner)
    }
}
