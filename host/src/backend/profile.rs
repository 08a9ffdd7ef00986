use crate::{
    device::{Buffer, DeviceError, DeviceKind, Event, Stream},
    launch::{Float, Gemv},
    ops::{BitLinear, OpError, QuantizedActivations},
};
use serde_json::{Value, json};
use std::sync::{Mutex, PoisonError};

/// A product that was recorded.
#[derive(Debug, Clone)]
pub struct OpProfile {
    /// The operation: `w2a8_gemv`.
    pub op: &'static str,
    /// The kernel variant of its first launch.
    pub variant: Gemv,
    /// Tokens, output features, input features.
    pub shape: [usize; 3],
    /// Bytes that it has to move at least: weights, activations and outputs, each once.
    pub bytes: usize,
    /// Multiplications and additions: `2 m n k`.
    pub operations: usize,
    /// Milliseconds from its start to its end on the stream; none on the emulator.
    pub milliseconds: Option<f32>,
    /// Milliseconds from the first recorded product's start to its start; none on the emulator.
    pub start_ms: Option<f32>,
    /// What the emulator counted in each of its launches; none on a GPU.
    pub counters: Vec<ptx_emulator::Counters>,
}

impl OpProfile {
    /// Gigabytes a second of `bytes`, on a GPU.
    pub fn gigabytes_per_second(&self) -> Option<f64> {
        self.milliseconds
            .map(|milliseconds| self.bytes as f64 / (f64::from(milliseconds) * 1e6))
    }
}

/// Records products while a backend has profiling on.
#[derive(Debug, Default)]
pub(super) struct Recorder(Mutex<Vec<Recorded>>);

#[derive(Debug)]
struct Recorded {
    profile: OpProfile,
    events: Option<(Event, Event)>,
}

impl Recorder {
    pub(super) fn gemv<Y: Float>(
        &self,
        stream: &Stream,
        weights: &BitLinear,
        activations: &QuantizedActivations,
        output: &mut Buffer<Y>,
    ) -> Result<(), OpError> {
        let (m, n, k) = (activations.m(), weights.n(), weights.k());
        let mut profile = OpProfile {
            op: "w2a8_gemv",
            variant: weights.variant(m),
            shape: [m, n, k],
            bytes: weights.weight_bytes() + m * k + m * n * size_of::<Y>(),
            operations: 2 * m * n * k,
            milliseconds: None,
            start_ms: None,
            counters: Vec::new(),
        };
        let events = match weights.device().kind() {
            DeviceKind::Cuda => {
                let start = stream.record()?;
                weights.forward_quantized(stream, activations, output)?;
                Some((start, stream.record()?))
            }
            DeviceKind::Emulated => {
                let work = || weights.forward_quantized(stream, activations, output);
                let (result, reports) = weights.device().profile(work)?;
                result?;
                profile.counters = reports.iter().map(|report| report.counters).collect();
                None
            }
        };
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Recorded { profile, events });
        Ok(())
    }

    pub(super) fn take(&self) -> Result<Vec<OpProfile>, DeviceError> {
        let recorded = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
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
        let profile = |(recorded, (start_ms, milliseconds)): (Recorded, _)| OpProfile {
            start_ms,
            milliseconds,
            ..recorded.profile
        };
        Ok(recorded.into_iter().zip(times).map(profile).collect())
    }
}

/// Products in the JSON of Chrome's trace viewer and Perfetto.
///
/// On a GPU an event begins and lasts as the product did. The emulator has no time: there, an event is one microsecond at its
/// place in the order, `otherData.time` says `ordinal`, and what counts is in its `args`.
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
        let [m, n, k] = profile.shape;
        json!({
            "name": profile.op, "ph": "X", "pid": 0, "tid": 0, "ts": start, "dur": duration,
            "args": {
                "variant": profile.variant.name(), "m": m, "n": n, "k": k, "bytes": profile.bytes,
                "operations": profile.operations, "counters": profile.counters,
            },
        })
    };
    json!({
        "traceEvents": profiles.iter().enumerate().map(event).collect::<Vec<_>>(),
        "otherData": { "time": if timed { "device" } else { "ordinal" } },
    })
}
