//! Operations are `tracing` spans. Alone in its program: what `tracing` caches of a span is shared by all threads.

use bitnet_cuda::backend::{CudaBackend, CudaBackendConfig, DeviceId, Operation};
use bitnet_cuda::device::Buffer;
use bitnet_cuda::ops::{Activation, OpError, activate};
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::{Subscriber, span};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// The fields of the spans called `operation`, each as `name=value`.
#[derive(Clone, Default)]
struct Fields(Arc<Mutex<Vec<String>>>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.lock().unwrap().push(format!("{field}={value:?}"));
    }
}

impl<S: Subscriber> Layer<S> for Fields {
    fn on_new_span(&self, new: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
        if new.metadata().name() == "operation" {
            new.record(&mut self.clone());
        }
    }
}

#[test]
fn operations_are_spans_with_or_without_profiling() {
    for enable_profiling in [false, true] {
        let fields = Fields::default();
        let subscriber = tracing_subscriber::registry().with(fields.clone());
        tracing::subscriber::with_default(subscriber, || {
            let backend = CudaBackend::new(CudaBackendConfig {
                device_id: DeviceId::Emulated,
                enable_profiling,
                ..CudaBackendConfig::default()
            })
            .unwrap();
            let x = Buffer::from_slice(backend.device(), &[1.0_f32]).unwrap();
            let mut y = Buffer::<f32>::uninit(backend.device(), 1).unwrap();
            for operation in ["first".into(), Operation::product("second", 1, 2, 3)] {
                let work = |stream: &_| activate(stream, Activation::SquaredRelu, &x, &mut y);
                backend
                    .record::<_, OpError>(operation, backend.stream(1), work)
                    .unwrap();
            }
        });
        assert_eq!(
            *fields.0.lock().unwrap(),
            [
                "name=\"first\"",
                "product=None",
                "device=\"emulated (sm_90)\"",
                "stream=1",
                "name=\"second\"",
                "product=Some([1, 2, 3])",
                "device=\"emulated (sm_90)\"",
                "stream=1",
            ]
        );
    }
}
