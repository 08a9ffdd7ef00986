//! What is measured, most important first, and with how much care.

use super::ceilings::Sizes;
use super::timing::Settings;
use bitnet_cuda::device::{Device, DeviceKind};
use kernel_benches::SHAPES;

/// Everything that a run measures, in this order: ceilings, products, model, rows.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `[n, k]` of the weights.
    pub shapes: Vec<(usize, usize)>,
    /// Tokens of the products.
    pub tokens: Vec<usize>,
    /// Features of row operations.
    pub widths: Vec<usize>,
    /// Tokens of row operations.
    pub row_tokens: Vec<usize>,
    pub ceilings: Sizes,
    /// Whether products and the model are also measured with launches that overlap.
    pub programmatic: bool,
    /// Rotated inputs have at least this many bytes together.
    pub rotated_bytes: usize,
    pub settings: Settings,
}

/// Small shapes with and without padding.
const SMOKE_SHAPES: [(usize, usize); 3] = [(128, 256), (48, 384), (33, 300)];

impl Plan {
    /// `device` as it was opened: whoever has turned early launches off does not get them measured.
    pub fn new(device: &Device, smoke: bool) -> Self {
        let programmatic = device.kind() == DeviceKind::Cuda && device.programmatic_launch();
        if smoke {
            return Self {
                shapes: SMOKE_SHAPES.to_vec(),
                tokens: vec![1, 8],
                widths: vec![320],
                row_tokens: vec![1, 3],
                ceilings: Sizes {
                    copy_bytes: 64 << 10,
                    dot_rounds: 1,
                },
                programmatic,
                rotated_bytes: 32 << 10,
                settings: Settings {
                    replay_us: 0.0,
                    budget_us: 0.0,
                    min_rounds: 3,
                    max_rounds: 3,
                },
            };
        }
        // Twice the L2 cache: what is rotated back to has been displaced, whatever the replacement policy keeps of it.
        let rotated_bytes = 2 * device.capabilities().l2_bytes;
        Self {
            shapes: SHAPES.to_vec(),
            tokens: vec![1, 8, 2, 4],
            widths: vec![2560, 6912],
            row_tokens: vec![1, 64, 2048],
            ceilings: Sizes {
                copy_bytes: rotated_bytes.max(256 << 20),
                dot_rounds: 1024,
            },
            programmatic,
            rotated_bytes,
            settings: Settings {
                replay_us: 1000.0,
                budget_us: 100_000.0,
                min_rounds: 21,
                max_rounds: 101,
            },
        }
    }
}

/// The largest hidden size: a layer's random weights are made on the host first, a byte each, 12 times this squared.
const MAX_HIDDEN_SIZE: i64 = 32_768;
/// The most tokens of a pass: as many as a long prompt has.
const MAX_BATCH_SIZE: i64 = 65_536;

/// A chain of layers with a transformer's shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Chain of layers")]
pub struct ModelArgs {
    /// Number of GPUs, each running a copy of the model at the same time [default: 1]
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..), hide_default_value = true)]
    pub num_gpus: u16,
    /// Tokens per pass through the model [default: 1]
    #[arg(long, value_name = "TOKENS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MAX_BATCH_SIZE), hide_default_value = true)]
    pub batch_size: u32,
    /// Hidden size of the model [default: 2560, with --smoke 128]
    #[arg(long, value_name = "FEATURES", value_parser = clap::value_parser!(u32).range(1..=MAX_HIDDEN_SIZE))]
    pub hidden_size: Option<u32>,
    /// Number of layers [default: 30, with --smoke 2]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    pub num_layers: Option<u16>,
    /// Bits per weight: 2 runs this library's kernels, 8 or 16 cuBLAS's INT8 or BF16 products of the same shapes
    #[arg(long, value_name = "BITS", default_value = "2", value_parser = bits)]
    pub quantization_bits: u32,
}

fn bits(text: &str) -> Result<u32, String> {
    match text {
        "2" => Ok(2),
        "8" => Ok(8),
        "16" => Ok(16),
        _ => Err("the weights have 2, 8 or 16 bits".to_owned()),
    }
}

/// Sizes of a model's chain of layers.
#[derive(Clone, Copy, Debug)]
pub struct ModelShape {
    pub batch: usize,
    pub hidden: usize,
    pub layers: usize,
}

impl ModelArgs {
    pub fn shape(&self, smoke: bool) -> ModelShape {
        let (hidden, layers) = if smoke { (128, 2) } else { (2560, 30) };
        ModelShape {
            batch: self.batch_size as usize,
            hidden: self.hidden_size.unwrap_or(hidden) as usize,
            layers: self.num_layers.unwrap_or(layers).into(),
        }
    }
}

/// Whether a run on this kind of device is a small one, asked for or not: the emulator would take hours for the full plan.
pub fn is_smoke(kind: DeviceKind, asked: bool) -> bool {
    asked || kind == DeviceKind::Emulated
}
