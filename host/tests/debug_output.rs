//! `{:?}` of a handle says what it is. What it holds, elements or a device, can be gigabytes.

use bitnet_cuda::backend::{CudaBackend, CudaBackendConfig, DeviceId, Split, SplitLinear};
use bitnet_cuda::device::{
    Buffer, CurrentContext, Device, Graph, MemoryPoolConfig, PinnedBuffer, TrackingLevel,
};
use bitnet_cuda::launch::tune::TuneCache;
use bitnet_cuda::launch::{self, GateUp, Gemv, Input, Int8xInt2, Output};
use bitnet_cuda::layout::{Layout, PackedWeights};
use bitnet_cuda::ops::{
    Activation, BitLinear, Norm, OpError, QuantizedActivations, WeightQuantizer, activate,
    quantize_activations, quantize_weights,
};
use bitnet_cuda::reference;
use bitnet_cuda::reference::linear::Epilogue;
use bitnet_cuda::reference::quantize::{
    ActivationGranularity, WeightGranularity, quantize_activations as reference_activations,
    quantize_weights_ternary,
};
use bitnet_cuda::tensor_file::{TensorFile, write_matrix};
use half::bf16;
use std::fmt::{self, Debug, Write};

/// Bytes that a line of a log can take.
const MOST: usize = 600;

const N: usize = 256;
const K: usize = 512;

/// Text that takes no more than [`MOST`] bytes: a failure of these tests shall not take gigabytes itself.
struct Line(String);

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MOST {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[track_caller]
fn is_short(name: &str, value: &dyn Debug) {
    let mut line = Line(String::new());
    let written = write!(line, "{value:?}");
    let Line(text) = line;
    assert!(written.is_ok(), "more than {MOST} bytes: {text} ...");
    assert!(text.starts_with(name), "{name}: {text}");
}

#[test]
fn what_a_device_makes() {
    let device = Device::emulated().unwrap();
    let config = MemoryPoolConfig {
        tracking: TrackingLevel::Detailed,
        ..Default::default()
    };
    let pool = device.enable_pool(config).unwrap();
    let stream = device.new_stream().unwrap();
    let module = launch::kernels(&device).unwrap();
    let x = Buffer::from_slice(&device, &vec![1.5_f32; N * K]).unwrap();
    let mut y = Buffer::<f32>::uninit(&device, N * K).unwrap();
    let graph = Graph::capture(&stream, |stream| -> Result<(), OpError> {
        (0..50).try_for_each(|_| activate(stream, Activation::SquaredRelu, &x, &mut y))
    })
    .unwrap();
    graph.launch(&stream).unwrap();
    let entry = graph.kernels()[0].as_str();

    is_short("Device", &device);
    is_short("WeakDevice", &device.downgrade());
    is_short("HybridMemoryPool", &pool);
    is_short("WeakMemoryPool", &pool.downgrade());
    is_short("Stream", &stream);
    is_short("Event", &stream.record().unwrap());
    is_short("Graph", &graph);
    is_short("Module", &module);
    is_short("Function", &module.function(entry).unwrap());
    is_short("Buffer", &x);
    is_short("ForeignUse", &x.foreign_use());
    let pinned = PinnedBuffer::<u8>::zeroed(&device, N * K).unwrap();
    is_short("PinnedBuffer", &pinned);
    is_short("CurrentContext", &CurrentContext::save());
    is_short("Input", &Input::new("x", &x, N).unwrap());
    is_short("Output", &Output::new("y", &mut y, N).unwrap());
    let (gate, up) = (&x, &y);
    is_short("Separate", &GateUp::Separate { gate, up });
    let variant = Gemv::all(Layout::Tiled).next().unwrap();
    is_short("Gemv", &variant);
    assert_eq!(format!("{variant}"), variant.name());
    is_short("TuneCache", &TuneCache::at("a folder"));
}

#[test]
fn weights_activations_and_layers() {
    let device = Device::emulated().unwrap();
    let stream = device.default_stream();
    let values = vec![1.5_f32; N * K];
    let rows = quantize_weights_ternary(&values, N, K, WeightGranularity::Channel).unwrap();
    let packed = PackedWeights::pack(Layout::Tiled, &rows.values, N, K).unwrap();
    is_short("QuantizedWeights", &rows);
    is_short("RowScales", &rows.scales);
    is_short("PackedWeights", &packed);
    let tokens = reference_activations(&values, N, K, ActivationGranularity::Token).unwrap();
    is_short("QuantizedActivations", &tokens);
    let epilogue = Epilogue {
        activation_scales: &tokens.scales,
        row_scales: &rows.scales,
        bias: Some(&values),
        residual: Some(&values),
    };
    is_short("Epilogue", &epilogue);
    let (gamma, eps) = (&values[..], 1e-5);
    is_short("Rms", &reference::norm::Norm::Rms { gamma, eps });
    let beta = Some(gamma);
    is_short("Layer", &reference::norm::Norm::Layer { gamma, beta, eps });

    let x = Buffer::from_slice(&device, &values).unwrap();
    let mut activations = QuantizedActivations::uninit(&device, N, K).unwrap();
    quantize_activations(&stream, &x, &mut activations).unwrap();
    is_short("QuantizedActivations", &activations);
    let (quantizer, per_row) = (WeightQuantizer::Ternary, WeightGranularity::Channel);
    let quantized = quantize_weights(&stream, &x, N, K, quantizer, per_row).unwrap();
    is_short("QuantizedWeights", &quantized);
    is_short("TernaryWeights", quantized.weights());
    is_short(
        "BitLinear",
        &BitLinear::from_packed(&device, &packed, &rows.scales).unwrap(),
    );
    let gamma = vec![1.0; K];
    let norm = Norm::layer(&device, K, Some(&gamma), Some(&gamma), 1e-5).unwrap();
    is_short("Norm", &norm);
    let devices = [device.clone(), Device::emulated().unwrap()];
    let split = SplitLinear::new(&devices, &packed, &rows.scales, Split::Rows).unwrap();
    is_short("SplitLinear", &split);

    let ones = |len| Buffer::from_slice(&device, &vec![bf16::ONE; len]).unwrap();
    let operands = Int8xInt2 {
        activations: activations.values(),
        weights: quantized.weights().bytes(),
        activation_scale: &ones(N),
        row_scale: &ones(1),
        output: &mut ones(N * N),
    };
    is_short("Int8xInt2", &operands);
}

#[test]
fn a_backend_and_what_it_recorded() {
    let backend = CudaBackend::new(CudaBackendConfig {
        device_id: DeviceId::Emulated,
        num_streams: 64,
        enable_profiling: true,
        ..Default::default()
    })
    .unwrap();
    let memory = backend.memory_manager();
    let x = memory.copy_to_device(&[-1.0_f32, 2.0]).unwrap();
    let mut y = memory.allocate::<f32>(2).unwrap();
    for _ in 0..20 {
        let stream = backend.next_stream();
        backend
            .record("activation", stream, |stream| -> Result<(), OpError> {
                activate(stream, Activation::SquaredRelu, &x, &mut y)
            })
            .unwrap();
    }
    is_short("CudaBackend", &backend);
    is_short("MemoryManager", &memory);
    assert_eq!(backend.take_profile().unwrap().len(), 20);
}

#[test]
fn a_file_and_its_matrices() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    write_matrix(&path, "w", N, K, &[1.5_f32; N * K]).unwrap();
    let file = TensorFile::open(&path).unwrap();
    is_short("TensorFile", &file);
    is_short("Matrix", &file.matrix("w").unwrap());
}
