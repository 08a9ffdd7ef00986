//! Row operations by what they write: floats, or quantized activations.

use crate::operations::{Check, Operation};
use anyhow::Result;
use bitnet_cuda::device::{Buffer, Stream};
use bitnet_cuda::ops::QuantizedActivations;
use bitnet_cuda::reference::quantize;
use half::bf16;

/// How far a bf16 may be from the exact value: its rounding, and a little of f32 sums.
const RELATIVE: f64 = 1.0 / 256.0 + 1e-5;
const ABSOLUTE: f64 = 1e-5;

pub type Launch<O> = Box<dyn FnMut(&Stream, &mut O) -> Result<()>>;

/// An operation with bf16 outputs.
pub struct Floats {
    pub launch: Launch<Buffer<bf16>>,
    pub output: Buffer<bf16>,
    pub expected: Vec<f64>,
    pub input_bytes: usize,
    pub operations: usize,
    pub exact: bool,
}

impl Operation for Floats {
    fn launch(&mut self, stream: &Stream) -> Result<()> {
        (self.launch)(stream, &mut self.output)
    }

    fn outputs(&self) -> Result<Vec<u8>> {
        Ok(bytemuck::cast_slice(&self.output.to_vec()?).to_vec())
    }

    fn check(&self) -> Result<Check> {
        let found: Vec<f64> = self.output.to_vec()?.iter().map(|y| y.to_f64()).collect();
        let near = |y: &f64, e: &f64| (y - e).abs() <= RELATIVE * e.abs() + ABSOLUTE;
        Ok(Check::compare(&found, &self.expected, near))
    }

    fn bytes(&self) -> usize {
        self.input_bytes + self.output.size_bytes()
    }

    fn operations(&self) -> usize {
        self.operations
    }

    fn exact(&self) -> bool {
        self.exact
    }
}

/// An operation with quantized outputs.
pub struct Quantized {
    pub launch: Launch<QuantizedActivations>,
    pub output: QuantizedActivations,
    pub expected: quantize::QuantizedActivations,
    /// How far a value may be from the reference's: 0 where what is quantized is given, 1 where it is itself rounded.
    pub off: u8,
    pub input_bytes: usize,
    pub operations: usize,
    pub exact: bool,
}

impl Operation for Quantized {
    fn launch(&mut self, stream: &Stream) -> Result<()> {
        (self.launch)(stream, &mut self.output)
    }

    fn outputs(&self) -> Result<Vec<u8>> {
        let output = &self.output;
        let values = &output.values().to_vec()?[..output.m() * output.k_padded()];
        let mut bytes = bytemuck::cast_slice(values).to_vec();
        bytes.extend_from_slice(bytemuck::cast_slice(&output.scales().to_vec()?));
        bytes.extend_from_slice(bytemuck::cast_slice(&output.sums().to_vec()?));
        Ok(bytes)
    }

    fn check(&self) -> Result<Check> {
        let (output, expected) = (&self.output, &self.expected);
        let values = output.values().to_vec()?;
        let rows = || values.chunks(output.k_padded()).take(output.m());
        let near = |a: &i8, b: &i8| a.abs_diff(*b) <= self.off;
        let mut check = Check::default();
        for (row, expected) in rows().zip(expected.values.chunks(output.k())) {
            check = check.and(Check::compare(&row[..expected.len()], expected, near));
        }
        let tolerance = f32::from(self.off) * 1e-5;
        let near = |a: &f32, b: &f32| (a - b).abs() <= tolerance * b.abs();
        check = check.and(Check::compare(
            &output.scales().to_vec()?,
            &expected.scales,
            near,
        ));
        let sums: Vec<i32> = rows()
            .map(|row| row.iter().map(|&q| i32::from(q)).sum())
            .collect();
        Ok(check.and(Check::compare(&output.sums().to_vec()?, &sums, i32::eq)))
    }

    fn bytes(&self) -> usize {
        let token = self.output.k_padded() + size_of::<f32>() + size_of::<i32>();
        self.input_bytes + self.output.m() * token
    }

    fn operations(&self) -> usize {
        self.operations
    }

    fn exact(&self) -> bool {
        self.exact
    }
}
