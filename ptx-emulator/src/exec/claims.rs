//! Bytes of shared memory that only asynchronous copies or mbarriers may touch for now.

use super::lanes::{Row, lanes};
use super::stop::{Step, Stop};
use crate::fault::{FaultKind, Space};

/// Who has a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    Free,
    /// A copy may write it at any time.
    Incoming,
    /// That many copies may read it at any time.
    Outgoing(u32),
    /// Part of an mbarrier object.
    Mbarrier,
}

/// The claims of a block. Empty until there is the first.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    bytes: Vec<Claim>,
}

impl Claims {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
    }

    /// The bytes of a range within a memory of `size` bytes.
    pub(crate) fn range(&mut self, size: usize, at: usize, bytes: usize) -> &mut [Claim] {
        if self.bytes.is_empty() {
            self.bytes.resize(size, Claim::Free);
        }
        &mut self.bytes[at..at + bytes]
    }

    /// Whether a read, or a write, of a range gets in the way of a copy or an mbarrier.
    pub(crate) fn conflict(&self, at: usize, bytes: usize, write: bool) -> Option<Claim> {
        let range = self.bytes.get(at..at + bytes)?;
        range.iter().copied().find(|claim| match claim {
            Claim::Free => false,
            Claim::Outgoing(_) => write,
            Claim::Incoming | Claim::Mbarrier => true,
        })
    }

    /// Faults where an ordinary access, of bytes that exist, gets in the way. `races` says whether copies are checked.
    #[inline(always)]
    pub(crate) fn check(
        &self,
        addresses: &Row,
        active: u32,
        bytes: usize,
        write: bool,
        races: bool,
    ) -> Step<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        self.check_each(addresses, active, bytes, write, races)
    }

    fn check_each(
        &self,
        addresses: &Row,
        active: u32,
        bytes: usize,
        write: bool,
        races: bool,
    ) -> Step<()> {
        for lane in lanes(active) {
            let address = addresses[lane];
            match self.conflict(address as usize, bytes, write) {
                None => {}
                Some(Claim::Mbarrier) => {
                    let reason = "ordinary access to an mbarrier object".to_owned();
                    let kind = FaultKind::InvalidOperand { reason };
                    return Stop::access(kind, lane as u32, Space::Shared, address);
                }
                Some(_) if !races => {}
                Some(claim) => {
                    let kind = FaultKind::UnfinishedCopy {
                        writes: claim == Claim::Incoming,
                    };
                    return Stop::access(kind, lane as u32, Space::Shared, address);
                }
            }
        }
        Ok(())
    }
}
