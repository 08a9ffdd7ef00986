use crate::{
    device::{Buffer, Device, Stream},
    layout::{Layout, PackedWeights},
    ops::{BitLinear, OpError, require_matrix, require_tokens},
    reference::RowScales,
};
use std::ops::Range;

/// Rows of weights that stay together: a tile of the layout, so that no part is padded but the last.
const ROWS: usize = 16;

/// A linear layer over several devices, any mix of GPUs and emulated ones.
///
/// Input and output are on the host ([`SplitLinear::forward`]) or on a device ([`SplitLinear::forward_on`]). All devices work at
/// the same time: results are gathered after everything has been submitted. They equal those of one device bit for bit, because
/// an output depends only on its own row of weights and its own token, and every device computes it in the same way.
#[derive(Debug)]
pub struct SplitLinear {
    n: usize,
    k: usize,
    split: Split,
    parts: Vec<Part>,
}

/// What each device of a [`SplitLinear`] computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// Some rows of the weights, in whole tiles of 16, for all tokens: for weights that do not fit on one device.
    Rows,
    /// All weights, for some of the tokens.
    Batch,
}

#[derive(Debug)]
struct Part {
    layer: BitLinear,
    stream: Stream,
}

/// Work that a device was given.
struct Submitted {
    /// The part's own, which it reads. Dropped before all devices have their work, it would be waited for.
    _input: Option<Buffer<f32>>,
    output: Buffer<f32>,
    rows: Range<usize>,
    tokens: Range<usize>,
}

impl SplitLinear {
    /// Uploads ternary weights. With more devices than there are tiles of 16 rows, the last ones get none.
    ///
    /// # Errors
    /// When there is no device, `scales` does not cover exactly the rows of `weights`, or a device does not have enough memory.
    pub fn new(
        devices: &[Device],
        weights: &PackedWeights,
        scales: &RowScales,
        split: Split,
    ) -> Result<Self, OpError> {
        let (n, k) = (weights.n(), weights.k());
        if scales.n() != n {
            return Err(OpError::Dimension {
                name: "scales.n()",
                other: "the weight matrix",
                expected: n,
                actual: scales.n(),
            });
        }
        if devices.is_empty() {
            return Err(OpError::NoDevice);
        }
        let part = |device: &Device, layer| {
            Ok::<_, OpError>(Part {
                layer,
                stream: device.new_stream()?,
            })
        };
        let parts = match split {
            Split::Batch => devices
                .iter()
                .map(|device| part(device, BitLinear::from_packed(device, weights, scales)?))
                .collect::<Result<_, _>>()?,
            Split::Rows => {
                let (ternary, scales) = (weights.unpack(), scales.expand());
                shares(n, devices.len(), ROWS)
                    .zip(devices)
                    .map(|(rows, device)| {
                        let packed = PackedWeights::pack(
                            Layout::Tiled,
                            &ternary[rows.start * k..rows.end * k],
                            rows.len(),
                            k,
                        )?;
                        let scales = RowScales::per_row(&scales[rows])?;
                        part(device, BitLinear::from_packed(device, &packed, &scales)?)
                    })
                    .collect::<Result<_, _>>()?
            }
        };
        Ok(Self { n, k, split, parts })
    }

    /// Output features, over all devices.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The devices that hold a part of the layer.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.parts.iter().map(|part| part.layer.device())
    }

    /// The layer's output, `[m, n]`, for float activations `input`, `[m, k]`, both on the host.
    ///
    /// # Errors
    /// When `input` is not a whole number of tokens, or a device fails.
    pub fn forward(&self, input: &[f32]) -> Result<Vec<f32>, OpError> {
        let m = require_tokens("input", input.len(), self.k)?;
        let mut submitted = Vec::new();
        for (part, rows, tokens) in self.work(m) {
            let values = &input[tokens.start * self.k..tokens.end * self.k];
            let input = Buffer::from_slice(part.layer.device(), values)?;
            submitted.push(Submitted {
                output: part.submit(&input)?,
                _input: Some(input),
                rows,
                tokens,
            });
        }
        let mut result = vec![0.0; m * self.n];
        for Submitted {
            output,
            rows,
            tokens,
            ..
        } in submitted
        {
            let output = output.to_vec()?;
            for (token, values) in tokens.zip(output.chunks(rows.len())) {
                result[token * self.n..][rows.clone()].copy_from_slice(values);
            }
        }
        Ok(result)
    }

    /// As [`SplitLinear::forward`], with input and output on the device of `stream`, in stream order. That device need not be one
    /// of the layer's.
    ///
    /// Where the devices can access each other ([`Device::can_access_peer`]), nothing goes through the host, and the call waits
    /// only to free memory that does not belong to a pool.
    ///
    /// # Errors
    /// When a length does not fit, a buffer is not on the device of `stream`, or a device fails.
    pub fn forward_on(
        &self,
        stream: &Stream,
        input: &Buffer<f32>,
        output: &mut Buffer<f32>,
    ) -> Result<(), OpError> {
        let m = require_tokens("input", input.len(), self.k)?;
        require_matrix("output", output.len(), ("m", m), ("n", self.n))?;
        let device = stream.device();
        device.require("the input", input.device())?;
        device.require("the output", output.device())?;
        let ready = stream.record()?;
        let mut submitted = Vec::new();
        for (part, rows, tokens) in self.work(m) {
            part.stream.wait(&ready)?;
            let (output, own) = if part.layer.device() == device && tokens.len() == m {
                (part.submit(input)?, None)
            } else {
                let mut own = Buffer::uninit(part.layer.device(), tokens.len() * self.k)?;
                let range = tokens.start * self.k..tokens.end * self.k;
                own.copy_range(&part.stream, 0, input, range)?;
                (part.submit(&own)?, Some(own))
            };
            let done = part.stream.record()?;
            submitted.push((
                Submitted {
                    _input: own,
                    output,
                    rows,
                    tokens,
                },
                done,
            ));
        }
        for (part, done) in submitted {
            stream.wait(&done)?;
            self.gather(stream, part, output)?;
        }
        Ok(())
    }

    /// Submits the copy of a device's output to its place in the whole.
    fn gather(
        &self,
        stream: &Stream,
        part: Submitted,
        output: &mut Buffer<f32>,
    ) -> Result<(), OpError> {
        let Submitted {
            output: from,
            rows,
            tokens,
            ..
        } = part;
        if tokens.len() == 1 || rows.len() == self.n {
            let first = tokens.start * self.n + rows.start;
            return Ok(output.copy_range(stream, first, &from, 0..from.len())?);
        }
        let staged;
        let from = if from.device() == stream.device() {
            &from
        } else {
            let mut copy = Buffer::uninit(stream.device(), from.len())?;
            copy.copy_from_buffer(stream, &from)?;
            staged = copy;
            &staged
        };
        let bytes = |features: usize| features * size_of::<f32>();
        let (first, pitch, width) = (bytes(rows.start), bytes(self.n), bytes(rows.len()));
        Ok(stream.copy_to_columns(output, first, pitch, from, width, tokens.len())?)
    }

    /// What each part has to do of `m` tokens: rows of the weights, and tokens.
    fn work(&self, m: usize) -> impl Iterator<Item = (&Part, Range<usize>, Range<usize>)> {
        let mut first_row = 0;
        let mut tokens = shares(m, self.parts.len(), 1);
        self.parts.iter().map_while(move |part| match self.split {
            Split::Rows => {
                let rows = first_row..first_row + part.layer.n();
                first_row = rows.end;
                Some((part, rows, 0..m))
            }
            Split::Batch => tokens.next().map(|tokens| (part, 0..self.n, tokens)),
        })
    }
}

impl Part {
    /// Submits the part's work. What it needs in between is freed in stream order, which waits for nothing.
    fn submit(&self, input: &Buffer<f32>) -> Result<Buffer<f32>, OpError> {
        let m = input.len() / self.layer.k();
        let mut output = Buffer::uninit(self.layer.device(), m * self.layer.n())?;
        self.layer.forward(&self.stream, input, &mut output)?;
        Ok(output)
    }
}

/// `0..len` in up to `count` ranges of whole `unit`s, as equal as they can be; the last may end within a unit.
fn shares(len: usize, count: usize, unit: usize) -> impl Iterator<Item = Range<usize>> {
    let units = len.div_ceil(unit);
    let bound = move |index: usize| (index * units / count * unit).min(len);
    (0..count)
        .map(move |index| bound(index)..bound(index + 1))
        .filter(|range| !range.is_empty())
}

#[cfg(test)]
mod tests {
    use super::shares;

    #[test]
    fn shares_cover_everything_once() {
        for (len, count, unit) in [
            (1, 1, 1),
            (100, 3, 16),
            (16, 4, 16),
            (5, 8, 1),
            (64, 4, 16),
            (7, 2, 1),
        ] {
            let ranges: Vec<_> = shares(len, count, unit).collect();
            assert!(ranges.len() <= count);
            let mut next = 0;
            for range in ranges {
                assert!(range.start == next && range.start % unit == 0 && !range.is_empty());
                next = range.end;
            }
            assert_eq!(next, len);
        }
        let lengths: Vec<_> = shares(64, 4, 16).map(|range| range.len()).collect();
        assert_eq!(lengths, [16; 4]);
    }
}
