//! Activation functions, plain and gated: launchers.

use super::floats::Floats;
use super::{Float, Input, LaunchError, Output, launch};
use crate::device::{Buffer, LaunchConfig, Stream};
use crate::reference::activation::Activation;
use kernels_gpu::Entry;
use kernels_gpu::activation::{self, Kind, MAX_THREADS, NO_ACTIVATION};
use kernels_gpu::row::CHUNK;

/// Elements of a row that the kernels can index, pairs included.
pub(crate) const MAX_WIDTH: usize = 1 << 30;

/// Where the gate and up values of a gated activation are stored.
#[derive(Debug)]
pub enum GateUp<'a, T> {
    /// In two buffers of `[m, width]`.
    Separate {
        /// The gates.
        gate: &'a Buffer<T>,
        /// The ups.
        up: &'a Buffer<T>,
    },
    /// In one buffer of `[m, 2 * width]`: all gates of a token, then all its ups.
    Concatenated(&'a Buffer<T>),
    /// In one buffer of `[m, 2 * width]`: gate and up of each feature next to each other.
    Interleaved(&'a Buffer<T>),
}

// Not derived: that would ask the same of `T`.
impl<T> Clone for GateUp<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for GateUp<'_, T> {}

/// A kernel's arguments for gate and up.
pub(super) struct Operands<'a, T> {
    pub gate: Floats<Input<'a, T>>,
    pub up: Option<Floats<Input<'a, T>>>,
    pub layout: activation::GateUp,
}

impl<'a, T: Float> GateUp<'a, T> {
    /// What they are in.
    pub(super) fn buffers(self) -> impl Iterator<Item = &'a Buffer<T>> {
        let (first, second) = match self {
            Self::Separate { gate, up } => (gate, Some(up)),
            Self::Concatenated(both) | Self::Interleaved(both) => (both, None),
        };
        [first].into_iter().chain(second)
    }

    /// The operands of a result of `len` elements.
    pub(super) fn operands(self, len: usize) -> Result<Operands<'a, T>, LaunchError> {
        let (gate, up, layout) = match self {
            Self::Separate { gate, up } => (
                Input::new("gate", gate, len)?,
                Some(Floats(Input::new("up", up, len)?)),
                activation::GateUp::Separate,
            ),
            Self::Concatenated(both) => (
                Input::new("gate and up", both, 2 * len)?,
                None,
                activation::GateUp::Concatenated,
            ),
            Self::Interleaved(both) => (
                Input::new("gate and up", both, 2 * len)?,
                None,
                activation::GateUp::Interleaved,
            ),
        };
        Ok(Operands {
            gate: Floats(gate),
            up,
            layout,
        })
    }
}

/// The kernels' number of a function.
pub(super) fn kind(activation: Activation) -> Kind {
    match activation {
        Activation::SquaredRelu => Kind::SquaredRelu,
        Activation::Silu => Kind::Silu,
        Activation::GeluErf => Kind::GeluErf,
        Activation::GeluTanh => Kind::GeluTanh,
    }
}

/// What kernels take that may apply a function.
pub(super) fn kind_or_none(activation: Option<Activation>) -> u32 {
    activation.map_or(NO_ACTIVATION, |activation| kind(activation) as u32)
}

/// `activation(input)`, element by element.
pub(crate) fn activate<T: Float>(
    stream: &Stream,
    activation: Activation,
    input: &Buffer<T>,
    output: &mut Buffer<T>,
) -> Result<(), LaunchError> {
    let len = output.len();
    let operands = Operands {
        gate: Floats(Input::new("input", input, len)?),
        up: None,
        layout: activation::GateUp::Plain,
    };
    run(stream, activation, operands, output, (1, len))
}

/// `activation(gate) * up`, `[m, width]`.
pub(crate) fn gated<T: Float>(
    stream: &Stream,
    activation: Activation,
    gate_up: GateUp<'_, T>,
    output: &mut Buffer<T>,
    (m, width): (usize, usize),
) -> Result<(), LaunchError> {
    let operands = gate_up.operands(m * width)?;
    // Where gate and up of all tokens lie in a row, they are taken as one.
    let concatenated = matches!(gate_up, GateUp::Concatenated(_));
    let shape = if concatenated || m * width > MAX_WIDTH {
        (m, width)
    } else {
        (1, m * width)
    };
    run(stream, activation, operands, output, shape)
}

fn run<T: Float>(
    stream: &Stream,
    activation: Activation,
    operands: Operands<'_, T>,
    output: &mut Buffer<T>,
    (rows, width): (usize, usize),
) -> Result<(), LaunchError> {
    let grid = super::size("m", rows, i32::MAX as usize)?;
    let width_argument = super::size("width", width, MAX_WIDTH)?;
    let chunks = width.div_ceil(CHUNK) as u32;
    let threads = chunks.next_multiple_of(32).min(MAX_THREADS);
    // The limit of the grid's second dimension; blocks take several segments beyond it.
    let segments = chunks.div_ceil(threads).min(u16::MAX.into());
    let config = LaunchConfig {
        grid: [grid, segments, 1],
        block: [threads, 1, 1],
        dynamic_shared: 0,
        cooperative: false,
    };
    let arguments = (
        operands.gate,
        operands.up,
        Floats(Output::new("output", output, rows * width)?),
        T::DTYPE as u32,
        kind(activation) as u32,
        operands.layout as u32,
        width_argument,
    );
    // SAFETY: blocks `(row, segment)`; the kernel touches `width` of each row of `output`, and the operands are as long as their
    // layout makes them.
    unsafe {
        launch(
            stream,
            Entry::of::<activation::activation>(),
            config,
            arguments,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    /// As beyond 65535 blocks per row, where memory would be short: two blocks of 32 threads take 5 segments of a row, and a part.
    #[test]
    fn blocks_take_several_segments_of_a_row() {
        let device = Device::emulated().unwrap();
        let width = 5 * 32 * CHUNK + 3;
        let x: Vec<f32> = (0..2 * width).map(|i| i as f32 * 0.5).collect();
        let gate = Buffer::from_slice(&device, &x).unwrap();
        let mut y = Buffer::<f32>::zeroed(&device, x.len()).unwrap();
        let arguments = (
            Floats(Input::new("input", &gate, x.len()).unwrap()),
            None::<Floats<Input<f32>>>,
            Floats(Output::new("output", &mut y, x.len()).unwrap()),
            kernels_gpu::Dtype::F32 as u32,
            kind(Activation::SquaredRelu) as u32,
            activation::GateUp::Plain as u32,
            width as u32,
        );
        let config = LaunchConfig {
            grid: [2, 2, 1],
            block: [32, 1, 1],
            dynamic_shared: 0,
            cooperative: false,
        };
        let entry = Entry::of::<activation::activation>();
        // SAFETY: a block's first index is its row, of two, and the buffers have both.
        unsafe { launch(&device.default_stream(), entry, config, arguments).unwrap() };
        let expected: Vec<f32> = x.iter().map(|x| x * x).collect();
        assert_eq!(y.to_vec().unwrap(), expected);
    }

    /// Those of 8 features would each leave most of a block idle.
    #[test]
    fn tokens_that_lie_in_a_row_are_taken_as_one() {
        let device = Device::emulated().unwrap();
        let stream = device.default_stream();
        let (m, width) = (64, 8);
        let zeroed = |len| Buffer::<f32>::zeroed(&device, len).unwrap();
        let (gate, up, both) = (zeroed(m * width), zeroed(m * width), zeroed(2 * m * width));
        let mut y = zeroed(m * width);
        let (gate, up) = (&gate, &up);
        for (gate_up, blocks, threads) in [
            (GateUp::Separate { gate, up }, 1, 64),
            (GateUp::Interleaved(&both), 1, 64),
            (GateUp::Concatenated(&both), 64, 32),
        ] {
            let (result, reports) = device
                .profile(|| gated(&stream, Activation::Silu, gate_up, &mut y, (m, width)))
                .unwrap();
            result.unwrap();
            let shape = reports[0].config;
            assert_eq!((shape.grid, shape.block), ([blocks, 1, 1], [threads, 1, 1]));
        }
    }
}
