//! Memory in which the blocks of a launch meet: zeros that a launch finds and leaves.

use crate::device::{Buffer, DeviceError, Stream};
use std::sync::{Mutex, PoisonError};

/// Workspaces of one layer, as many as its streams use at a time. They are zeroed when they are made, and never again.
#[derive(Debug, Default)]
pub(crate) struct Workspaces(Mutex<Vec<Buffer<u32>>>);

impl Workspaces {
    /// A workspace of at least `len` words whose earlier launches come before what is next submitted to `stream`.
    pub fn take(&self, stream: &Stream, len: usize) -> Result<Buffer<u32>, DeviceError> {
        if !stream.orders_its_launches() {
            return Buffer::zeroed_on(stream, len);
        }
        let is_fit =
            |workspace: &Buffer<u32>| workspace.len() >= len && workspace.is_used_before(stream);
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match free.iter().position(is_fit) {
            Some(index) => Ok(free.swap_remove(index)),
            None => {
                drop(free);
                Buffer::zeroed(stream.device(), len)
            }
        }
    }

    /// Keeps a workspace that a launch on `stream` uses for later ones. A graph's is the graph's alone, and of a caller's streams it is not
    /// known which is which.
    pub fn give_back(&self, stream: &Stream, workspace: Buffer<u32>) {
        if stream.orders_its_launches() {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(workspace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Device, Graph, MemoryPoolConfig};
    use crate::launch::Gemv;
    use crate::layout::{Layout, PackedWeights};
    use crate::ops::{BitLinear, QuantizedActivations};
    use crate::reference::RowScales;

    #[test]
    fn a_stream_gets_its_workspace_again() {
        let device = Device::emulated().unwrap();
        let stream = device.default_stream();
        let workspaces = Workspaces::default();
        let first = workspaces.take(&stream, 100).unwrap();
        let second = workspaces.take(&stream, 50).unwrap();
        let (address, other) = (first.device_ptr(), second.device_ptr());
        assert_ne!(address, other);
        assert_eq!(first.to_vec().unwrap(), vec![0; 100]);
        workspaces.give_back(&stream, first);
        workspaces.give_back(&stream, second);
        assert_eq!(workspaces.take(&stream, 80).unwrap().device_ptr(), address);
        // What is left is too short.
        let third = workspaces.take(&stream, 80).unwrap();
        assert!(third.device_ptr() != other);
    }

    #[test]
    fn a_graph_keeps_its_workspace_to_itself() {
        let device = Device::emulated().unwrap();
        let pool = device.enable_pool(MemoryPoolConfig::default()).unwrap();
        let stream = device.new_stream().unwrap();
        let (n, k) = (40, 300);
        let packed = PackedWeights::pack(Layout::Tiled, &vec![1; n * k], n, k).unwrap();
        let scales = RowScales::per_tensor(n, 1.0).unwrap();
        let split = Gemv::named("gemv_m1_t1_w4_k2").unwrap();
        let layer = BitLinear::from_packed(&device, &packed, &scales)
            .unwrap()
            .with_variant(split)
            .unwrap();
        let input = QuantizedActivations::from_values(&device, &vec![2; k], &[1.0], 1, k).unwrap();
        let mut y = Buffer::<f32>::uninit(&device, n).unwrap();
        let graph = Graph::capture(&stream, |stream| {
            (0..2).try_for_each(|_| layer.forward_quantized(stream, &input, &mut y))
        })
        .unwrap();
        for _ in 0..2 {
            y.fill_bytes(0xa5).unwrap();
            graph.launch(&stream).unwrap();
            assert_eq!(y.to_vec().unwrap(), vec![600.0; n]);
            y.fill_bytes(0xa5).unwrap();
            layer.forward_quantized(&stream, &input, &mut y).unwrap();
            assert_eq!(y.to_vec().unwrap(), vec![600.0; n]);
        }
        // Launches outside graphs go on with the one that the first of them has made.
        let made = pool.metrics().allocations;
        layer.forward_quantized(&stream, &input, &mut y).unwrap();
        assert_eq!(pool.metrics().allocations, made);
    }
}
