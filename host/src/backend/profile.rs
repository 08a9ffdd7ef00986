use super::Ceilings;
use crate::device::{Device, DeviceError, DeviceKind, Event, Stream, Submitted};
use serde_json::{Value, json};
use std::sync::{Mutex, OnceLock, PoisonError};

/// An operation, as it appears in a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// Its name.
    pub name: &'static str,
    /// For a matrix product: tokens, output features, input features.
    pub product: Option<[usize; 3]>,
}

impl Operation {
    /// A matrix product of `m` tokens with weights `[n, k]`.
    pub fn product(name: &'static str, m: usize, n: usize, k: usize) -> Self {
        Self {
            name,
            product: Some([m, n, k]),
        }
    }
}

impl From<&'static str> for Operation {
    /// An operation that is not a matrix product.
    fn from(name: &'static str) -> Self {
        Self {
            name,
            product: None,
        }
    }
}

/// A recorded operation.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OpProfile {
    /// The operation.
    pub operation: Operation,
    /// Names of the kernels, copies and graphs that it submitted, in order.
    pub kernels: Vec<String>,
    /// The minimal traffic in bytes: the elements that each kernel accesses through its arguments, counted once; for a graph, the
    /// sum over its kernels.
    pub bytes: usize,
    /// How many kernels and copies were submitted; a graph counts as its launches.
    pub launches: usize,
    /// Index of its stream in the backend; for any other stream, the number of the backend's streams.
    pub stream: usize,
    /// Milliseconds from its start to its end on the stream; none on the emulator.
    pub milliseconds: Option<f32>,
    /// Milliseconds from the first recorded operation's start to its start; none on the emulator.
    pub start_ms: Option<f32>,
    /// The least milliseconds that the device's ceilings allow for it; none on the emulator. See [`Ceilings::floor_ms`].
    pub floor_ms: Option<f64>,
    /// The emulator's counts of each of its launches; empty on a GPU.
    pub counters: Vec<ptx_emulator::Counters>,
}

impl OpProfile {
    /// Multiplications and additions of a matrix product: `2 m n k`.
    pub fn operations(&self) -> Option<usize> {
        self.operation.product.map(|[m, n, k]| 2 * m * n * k)
    }

    /// `bytes` in gigabytes per second, on a GPU.
    pub fn gigabytes_per_second(&self) -> Option<f64> {
        self.milliseconds
            .map(|milliseconds| self.bytes as f64 / (f64::from(milliseconds) * 1e6))
    }

    /// The share of the device's ceiling that it reached, on a GPU: 1 is as fast as the device copies memory, or launches
    /// kernels.
    ///
    /// More than 1 is possible if operands come from the L2 cache.
    pub fn share_of_ceiling(&self) -> Option<f64> {
        let (floor, milliseconds) = (self.floor_ms?, f64::from(self.milliseconds?));
        Some(floor / milliseconds)
    }
}

/// Records operations while a backend has profiling on.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    recorded: Mutex<Vec<Recorded>>,
    ceilings: OnceLock<Option<Ceilings>>,
}

#[derive(Debug)]
struct Recorded {
    profile: OpProfile,
    events: Option<(Event, Event)>,
}

impl Recorder {
    pub(super) fn record<R, E: From<DeviceError>>(
        &self,
        operation: Operation,
        (index, stream): (usize, &Stream),
        work: impl FnOnce(&Stream) -> Result<R, E>,
    ) -> Result<R, E> {
        let device = stream.device();
        let is_timed = device.kind() == DeviceKind::Cuda;
        let start = is_timed.then(|| stream.record()).transpose()?;
        let (result, submitted, reports) = device.observe(|| work(stream));
        let result = result?;
        let end = is_timed.then(|| stream.record()).transpose()?;
        let bytes = submitted.iter().map(|submitted| submitted.bytes).sum();
        let launches = submitted.iter().map(|submitted| submitted.launches).sum();
        let kernels = submitted.into_iter().map(|Submitted { name, .. }| name);
        let recorded = Recorded {
            profile: OpProfile {
                operation,
                kernels: kernels.collect(),
                bytes,
                launches,
                stream: index,
                milliseconds: None,
                start_ms: None,
                floor_ms: None,
                counters: reports.iter().map(|report| report.counters).collect(),
            },
            events: start.zip(end),
        };
        self.recorded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(recorded);
        Ok(result)
    }

    /// The device's ceilings, measured when they are first asked for.
    pub(super) fn ceilings(&self, device: &Device) -> Option<Ceilings> {
        *self.ceilings.get_or_init(|| {
            Ceilings::measure(device).unwrap_or_else(|error| {
                tracing::warn!(%error, "the device's ceilings cannot be measured");
                None
            })
        })
    }

    pub(super) fn take(&self, device: &Device) -> Result<Vec<OpProfile>, DeviceError> {
        // Unlocked at once: what follows takes its time, and operations are recorded meanwhile.
        let recorded =
            std::mem::take(&mut *self.recorded.lock().unwrap_or_else(PoisonError::into_inner));
        let first = recorded
            .first()
            .and_then(|recorded| recorded.events.as_ref());
        let times = |recorded: &Recorded| match (&recorded.events, first) {
            (Some((start, end)), Some((first, _))) => {
                Ok((first.elapsed_ms(start)?, start.elapsed_ms(end)?))
            }
            _ => Ok::<_, DeviceError>((None, None)),
        };
        let times: Vec<_> = recorded.iter().map(times).collect::<Result<_, _>>()?;
        // After the events have been waited for: nothing else is on the device then.
        let ceilings = self.ceilings(device);
        let profile = |(recorded, (start_ms, milliseconds)): (Recorded, _)| OpProfile {
            start_ms,
            milliseconds,
            floor_ms: ceilings.map(|ceilings| {
                ceilings.floor_ms(recorded.profile.bytes, recorded.profile.launches)
            }),
            ..recorded.profile
        };
        Ok(recorded.into_iter().zip(times).map(profile).collect())
    }
}

/// Exports operations as JSON for Chrome's trace viewer and Perfetto, with one row per stream.
///
/// On a GPU, an event has the start and duration of the operation. The emulator has no clock: there, each event lasts one
/// microsecond, in the order of submission, `otherData.time` is `ordinal`, and the counts are in `args`.
pub fn chrome_trace(profiles: &[OpProfile]) -> Value {
    let timed = profiles
        .iter()
        .all(|profile| profile.milliseconds.is_some());
    let event = |(ordinal, profile): (usize, &OpProfile)| {
        let microseconds =
            |milliseconds: Option<f32>| f64::from(milliseconds.unwrap_or_default()) * 1e3;
        let (start, duration) = if timed {
            (
                microseconds(profile.start_ms),
                microseconds(profile.milliseconds),
            )
        } else {
            (ordinal as f64, 1.0)
        };
        let mut args = json!({
            "kernels": profile.kernels, "bytes": profile.bytes, "operations": profile.operations(),
            "share_of_ceiling": profile.share_of_ceiling(), "counters": profile.counters,
        });
        if let Some([m, n, k]) = profile.operation.product {
            args["m"] = m.into();
            args["n"] = n.into();
            args["k"] = k.into();
        }
        json!({
            "name": profile.operation.name, "ph": "X", "pid": 0, "tid": profile.stream,
            "ts": start, "dur": duration, "args": args,
        })
    };
    json!({
        "traceEvents": profiles.iter().enumerate().map(event).collect::<Vec<_>>(),
        "otherData": { "time": if timed { "device" } else { "ordinal" } },
    })
}
