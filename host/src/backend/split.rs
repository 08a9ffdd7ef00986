use crate::{
    device::{Buffer, Device, Stream},
    layout::{Layout, PackedWeights},
    ops::{BitLinear, OpError, QuantizedActivations, quantize_activations},
    reference::RowScales,
};
use std::ops::Range;

/// Rows of weights that stay together: a tile of the layout, so that no part is padded but the last.
const ROWS: usize = 16;

/// A linear layer over several devices, any mix of GPUs and emulated ones.
///
/// Input and output are on the host, and go to and come from each device through it. All devices work at once: results are
/// read after everything has been submitted. They equal those of one device bit for bit, because an output depends on its
/// own row of weights and its own token alone, and every device computes it alike.
#[derive(Debug)]
pub struct SplitLinear {
    n: usize,
    k: usize,
    split: Split,
    parts: Vec<Part>,
}

/// What each device has of a [`SplitLinear`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// Some rows of the weights, in whole tiles of 16, and all tokens: for weights that one device cannot hold.
    Rows,
    /// All weights, and some of the tokens.
    Batch,
}

#[derive(Debug)]
struct Part {
    layer: BitLinear,
    stream: Stream,
}

/// Work that a device was given.
struct Submitted {
    output: Buffer<f32>,
    rows: Range<usize>,
    tokens: Range<usize>,
}

impl SplitLinear {
    /// Uploads ternary weights. With more devices than there are tiles of 16 rows, the last ones get none.
    ///
    /// # Errors
    /// When there is no device, `scales` does not cover exactly the rows of `weights`, or a device has not enough memory.
    pub fn new(
        devices: &[Device],
        weights: &PackedWeights,
        scales: &RowScales,
        split: Split,
    ) -> Result<Self, OpError> {
        let (n, k) = (weights.n(), weights.k());
        if scales.n() != n {
            return Err(OpError::Dimension {
                name: "rows of `scales`",
                other: "the weight matrix",
                expected: n,
                actual: scales.n(),
            });
        }
        if devices.is_empty() {
            return Err(OpError::Size {
                name: "devices",
                value: 0,
                limit: usize::MAX,
            });
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

    /// Output features, of all devices together.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The devices that have a part of the layer.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.parts.iter().map(|part| part.layer.device())
    }

    /// The layer's output, `[m, n]`, for float activations `input`, `[m, k]`.
    ///
    /// # Errors
    /// When `input` is no whole number of tokens, or a device fails.
    pub fn forward(&self, input: &[f32]) -> Result<Vec<f32>, OpError> {
        let m = input.len() / self.k;
        if m * self.k != input.len() || m == 0 {
            return Err(OpError::Length {
                name: "input",
                shape: format!("[m, k] = [{m}, {}]", self.k),
                expected: m.max(1) * self.k,
                actual: input.len(),
            });
        }
        let mut first_row = 0;
        let mut tokens = shares(m, self.parts.len(), 1);
        let mut submitted = Vec::new();
        for part in &self.parts {
            let rows = match self.split {
                Split::Rows => first_row..first_row + part.layer.n(),
                Split::Batch => 0..self.n,
            };
            first_row = rows.end;
            let tokens = match self.split {
                Split::Rows => Some(0..m),
                Split::Batch => tokens.next(),
            };
            let Some(tokens) = tokens else { break };
            let output = part.submit(&input[tokens.start * self.k..tokens.end * self.k])?;
            submitted.push(Submitted {
                output,
                rows,
                tokens,
            });
        }
        let mut result = vec![0.0; m * self.n];
        for Submitted {
            output,
            rows,
            tokens,
        } in submitted
        {
            let output = output.to_vec()?;
            for (token, values) in tokens.zip(output.chunks(rows.len())) {
                result[token * self.n..][rows.clone()].copy_from_slice(values);
            }
        }
        Ok(result)
    }
}

impl Part {
    fn submit(&self, input: &[f32]) -> Result<Buffer<f32>, OpError> {
        let device = self.layer.device();
        let m = input.len() / self.layer.k();
        let input = Buffer::from_slice(device, input)?;
        let mut quantized = QuantizedActivations::uninit(device, m, self.layer.k())?;
        quantize_activations(&self.stream, &input, &mut quantized)?;
        let mut output = Buffer::uninit(device, m * self.layer.n())?;
        self.layer
            .forward_quantized(&self.stream, &quantized, &mut output)?;
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
