//! What the blocks of a launch print.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::Launch;

/// Bytes of output that are kept, as in CUDA's buffer by default. What comes later is lost.
const CAPACITY: usize = 1 << 20;

/// Output by block, or in the order it was made where blocks run in an order of their own.
#[derive(Debug, Default)]
pub(crate) struct Printed {
    blocks: Mutex<BTreeMap<u64, Vec<u8>>>,
}

impl Printed {
    pub(crate) fn add(&self, launch: &Launch<'_>, block: [u32; 3], text: &[u8]) {
        let key = if launch.parallel {
            let [x, y, z] = block.map(u64::from);
            let [width, height, _] = launch.grid.map(u64::from);
            (z * height + y) * width + x
        } else {
            0
        };
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let known = blocks.entry(key).or_default();
        let room = CAPACITY.saturating_sub(known.len());
        known.extend_from_slice(&text[..text.len().min(room)]);
        // Output after a full buffer's worth of lower blocks' is lost, whatever comes yet.
        let mut before = 0;
        let mut first_lost = None;
        for (&key, text) in blocks.iter() {
            if before >= CAPACITY {
                first_lost = Some(key);
                break;
            }
            before += text.len();
        }
        if let Some(key) = first_lost {
            blocks.split_off(&key);
        }
    }

    /// Everything, or, of blocks that run in any order, what those up to one of them printed.
    pub(crate) fn text(&self, last: Option<u64>) -> String {
        let blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Vec::new();
        for text in blocks
            .range(..=last.unwrap_or(u64::MAX))
            .map(|(_, text)| text)
        {
            all.extend_from_slice(text);
        }
        all.truncate(CAPACITY);
        String::from_utf8_lossy(&all).into_owned()
    }
}
