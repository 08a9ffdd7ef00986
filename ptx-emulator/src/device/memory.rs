//! Global memory: allocations, their bytes, and which bytes were written.

use std::panic::Location;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::in_flight::InFlight;
use crate::error::{Leak, MemoryError, NearestAllocation};
use crate::exec::{WINDOW_CONST, WINDOW_GLOBAL};

/// What a byte holds that was never written.
const POISON: u32 = 0xa5a5_a5a5;

/// Alignment of allocations, as `cuMemAlloc` gives it.
pub(super) const ALIGN: u64 = 256;

/// Unmapped bytes after every allocation, so that small overruns do not land in the next one.
const GAP: u64 = 64 << 10;

/// One live allocation.
///
/// Words are atomic because blocks on several cores may touch one word: neighbours that each own some of its bytes, or
/// kernels with a race, which must not be undefined behaviour of the host. Relaxed accesses cost what plain ones do.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) base: u64,
    pub(crate) len: u64,
    pub(crate) name: Option<String>,
    pub(crate) constant: bool,
    /// Who asked for it.
    allocated_at: &'static Location<'static>,
    words: Box<[AtomicU32]>,
    /// A bit for each byte: one word a 32-byte sector.
    written: Box<[AtomicU32]>,
}

impl Allocation {
    /// `None` where the host has no memory left.
    fn new(
        base: u64,
        len: u64,
        name: Option<String>,
        constant: bool,
        allocated_at: &'static Location<'static>,
    ) -> Option<Self> {
        let filled = |count: u64, value: u32| {
            let count = usize::try_from(count).ok()?;
            let mut words = Vec::new();
            words.try_reserve_exact(count).ok()?;
            words.resize_with(count, || AtomicU32::new(value));
            Some(words.into_boxed_slice())
        };
        Some(Self {
            base,
            len,
            name,
            constant,
            allocated_at,
            words: filled(len.div_ceil(4), POISON)?,
            written: filled(len.div_ceil(32), 0)?,
        })
    }

    #[inline(always)]
    pub(crate) fn contains(&self, address: u64, size: u64) -> bool {
        address >= self.base && size <= self.len && address - self.base <= self.len - size
    }

    /// Little-endian value of 1, 2, 4 or 8 bytes at an aligned offset.
    #[inline(always)]
    pub(crate) fn load(&self, offset: usize, bytes: usize) -> u64 {
        let word = |index: usize| self.words[index].load(Relaxed);
        match bytes {
            8 => u64::from(word(offset / 4)) | u64::from(word(offset / 4 + 1)) << 32,
            4 => u64::from(word(offset / 4)),
            2 => u64::from((word(offset / 4) >> (8 * (offset % 4))) as u16),
            _ => u64::from((word(offset / 4) >> (8 * (offset % 4))) as u8),
        }
    }

    #[inline(always)]
    pub(crate) fn store(&self, offset: usize, bytes: usize, value: u64) {
        match bytes {
            8 => {
                self.words[offset / 4].store(value as u32, Relaxed);
                self.words[offset / 4 + 1].store((value >> 32) as u32, Relaxed);
            }
            4 => self.words[offset / 4].store(value as u32, Relaxed),
            _ => self.store_part(offset, bytes, value as u32),
        }
    }

    /// Part of a word: the other bytes may be another core's.
    fn store_part(&self, offset: usize, bytes: usize, value: u32) {
        let shift = 8 * (offset % 4);
        let mask = (u32::MAX >> (32 - 8 * bytes)) << shift;
        let word = &self.words[offset / 4];
        let mut known = word.load(Relaxed);
        loop {
            let new = (known & !mask) | ((value << shift) & mask);
            match word.compare_exchange_weak(known, new, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(current) => known = current,
            }
        }
    }

    /// `N` consecutive words.
    #[inline(always)]
    pub(crate) fn load_words<const N: usize>(&self, offset: usize) -> [u64; N] {
        let words = &self.words[offset / 4..offset / 4 + N];
        std::array::from_fn(|index| u64::from(words[index].load(Relaxed)))
    }

    #[inline(always)]
    pub(crate) fn store_words(&self, offset: usize, values: &[u64; 32]) {
        let words = &self.words[offset / 4..offset / 4 + 32];
        for (value, word) in values.iter().zip(words) {
            word.store(*value as u32, Relaxed);
        }
    }

    /// Bits of one sector that an aligned access of up to 32 bytes covers.
    #[inline(always)]
    fn sector_mask(offset: usize, bytes: usize) -> u32 {
        (u32::MAX >> (32 - bytes)) << (offset % 32)
    }

    #[inline(always)]
    pub(crate) fn is_written(&self, offset: usize, bytes: usize) -> bool {
        let mask = Self::sector_mask(offset, bytes);
        self.written[offset / 32].load(Relaxed) & mask == mask
    }

    #[inline(always)]
    pub(crate) fn mark_written(&self, offset: usize, bytes: usize) {
        let mask = Self::sector_mask(offset, bytes);
        let sector = &self.written[offset / 32];
        if sector.load(Relaxed) & mask != mask {
            sector.fetch_or(mask, Relaxed);
        }
    }

    /// [`is_written`](Self::is_written) for any range.
    pub(crate) fn is_range_written(&self, offset: usize, bytes: usize) -> bool {
        self.sectors(offset, bytes)
            .all(|(offset, bytes)| self.is_written(offset, bytes))
    }

    pub(crate) fn mark_range_written(&self, offset: usize, bytes: usize) {
        for (offset, bytes) in self.sectors(offset, bytes) {
            self.mark_written(offset, bytes);
        }
    }

    /// Cuts a range at sector boundaries.
    fn sectors(&self, offset: usize, bytes: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let end = offset + bytes;
        let mut at = offset;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let next = (at / 32 * 32 + 32).min(end);
            let part = (at, next - at);
            at = next;
            Some(part)
        })
    }

    fn read_bytes(&self, offset: usize, out: &mut [u8]) {
        let mut done = 0;
        while done < out.len() {
            let at = offset + done;
            let word = self.words[at / 4].load(Relaxed).to_le_bytes();
            let part = &word[at % 4..(at % 4 + out.len() - done).min(4)];
            out[done..done + part.len()].copy_from_slice(part);
            done += part.len();
        }
    }

    fn write_bytes(&self, offset: usize, data: &[u8]) {
        let mut done = 0;
        while done < data.len() {
            let at = offset + done;
            let count = (4 - at % 4).min(data.len() - done);
            let word = &self.words[at / 4];
            let mut bytes = word.load(Relaxed).to_le_bytes();
            bytes[at % 4..at % 4 + count].copy_from_slice(&data[done..done + count]);
            word.store(u32::from_le_bytes(bytes), Relaxed);
            done += count;
        }
        self.mark_range_written(offset, data.len());
    }
}

/// All of a device's global memory. Addresses are never used twice.
#[derive(Debug)]
pub(crate) struct Memory {
    /// By ascending address.
    allocations: Vec<Allocation>,
    freed: Vec<(u64, u64)>,
    pub(crate) in_flight: InFlight,
    next: u64,
    /// Constants have a window of their own.
    next_constant: u64,
    used: u64,
    limit: u64,
}

impl Memory {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            allocations: Vec::new(),
            freed: Vec::new(),
            in_flight: InFlight::default(),
            next: WINDOW_GLOBAL,
            next_constant: WINDOW_CONST,
            used: 0,
            limit,
        }
    }

    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    pub(crate) fn allocations(&self) -> &[Allocation] {
        &self.allocations
    }

    /// Allocations that are not variables of a module.
    pub(crate) fn leaks(&self) -> Vec<Leak> {
        self.allocations
            .iter()
            .filter(|allocation| allocation.name.is_none())
            .map(|allocation| Leak {
                address: allocation.base,
                bytes: allocation.len,
                allocated_at: allocation.allocated_at,
            })
            .collect()
    }

    #[track_caller]
    pub(crate) fn alloc(
        &mut self,
        len: u64,
        align: u64,
        name: Option<String>,
        constant: bool,
    ) -> Result<u64, MemoryError> {
        if len == 0 {
            return Err(MemoryError::ZeroSize);
        }
        let available = self.limit - self.used;
        let refused = MemoryError::OutOfMemory {
            requested: len,
            available,
            limit: self.limit,
        };
        if len > available {
            return Err(refused);
        }
        let next = if constant {
            &mut self.next_constant
        } else {
            &mut self.next
        };
        let base = next.next_multiple_of(align);
        let after = (base + len).next_multiple_of(ALIGN) + GAP;
        if constant && after > WINDOW_GLOBAL {
            return Err(refused);
        }
        let allocation =
            Allocation::new(base, len, name, constant, Location::caller()).ok_or(refused)?;
        *next = after;
        let index = self.allocations.partition_point(|other| other.base < base);
        self.allocations.insert(index, allocation);
        self.used += len;
        Ok(base)
    }

    pub(crate) fn free(&mut self, address: u64) -> Result<(), MemoryError> {
        let Ok(index) = self
            .allocations
            .binary_search_by_key(&address, |allocation| allocation.base)
        else {
            return Err(MemoryError::NotAnAllocation { address });
        };
        let allocation = self.allocations.remove(index);
        self.used -= allocation.len;
        self.freed.push((allocation.base, allocation.len));
        self.in_flight.forget(allocation.base);
        Ok(())
    }

    /// Index of the allocation that holds the first byte of an access.
    pub(crate) fn find(&self, address: u64) -> Option<usize> {
        let after = self
            .allocations
            .partition_point(|allocation| allocation.base <= address);
        let index = after.checked_sub(1)?;
        self.allocations[index]
            .contains(address, 1)
            .then_some(index)
    }

    /// The live or freed allocation nearest to an address.
    pub(crate) fn nearest(&self, address: u64) -> Option<NearestAllocation> {
        let live = self
            .allocations
            .iter()
            .map(|allocation| (allocation.base, allocation.len, &allocation.name, false));
        let freed = self
            .freed
            .iter()
            .map(|&(base, len)| (base, len, &None, true));
        live.chain(freed)
            .min_by_key(|&(base, len, _, _)| {
                if address < base {
                    base - address
                } else {
                    // The last byte is at distance 0, the first one past the end at 1.
                    (address - base + 1).saturating_sub(len)
                }
            })
            .map(|(base, len, name, freed)| NearestAllocation {
                base,
                len,
                offset: i128::from(address) - i128::from(base),
                name: name.clone(),
                freed,
            })
    }

    /// Whether an address lies in memory that was freed.
    pub(crate) fn was_freed(&self, address: u64) -> bool {
        self.freed
            .iter()
            .any(|&(base, len)| address >= base && address - base < len)
    }

    fn host_range(&self, address: u64, len: usize) -> Result<(&Allocation, usize), MemoryError> {
        let found = self
            .find(address)
            .map(|index| &self.allocations[index])
            .filter(|allocation| allocation.contains(address, len as u64));
        match found {
            Some(allocation) => Ok((allocation, (address - allocation.base) as usize)),
            None => Err(MemoryError::OutOfBounds {
                address,
                length: len as u64,
                nearest: self.nearest(address),
            }),
        }
    }

    pub(crate) fn read(&self, address: u64, out: &mut [u8]) -> Result<(), MemoryError> {
        if out.is_empty() {
            return Ok(());
        }
        let (allocation, offset) = self.host_range(address, out.len())?;
        allocation.read_bytes(offset, out);
        Ok(())
    }

    pub(crate) fn write(&self, address: u64, data: &[u8]) -> Result<(), MemoryError> {
        if data.is_empty() {
            return Ok(());
        }
        let (allocation, offset) = self.host_range(address, data.len())?;
        allocation.write_bytes(offset, data);
        Ok(())
    }

    /// Copies bytes, and whether they were ever written.
    pub(crate) fn copy(&self, to: u64, from: u64, len: usize) -> Result<(), MemoryError> {
        if len == 0 {
            return Ok(());
        }
        let (source, source_offset) = self.host_range(from, len)?;
        let (target, target_offset) = self.host_range(to, len)?;
        let mut bytes = vec![0; len];
        source.read_bytes(source_offset, &mut bytes);
        let written: Vec<bool> = if source.is_range_written(source_offset, len) {
            Vec::new()
        } else {
            (0..len)
                .map(|byte| source.is_written(source_offset + byte, 1))
                .collect()
        };
        if written.is_empty() {
            target.write_bytes(target_offset, &bytes);
            return Ok(());
        }
        for (byte, written) in written.into_iter().enumerate() {
            let at = target_offset + byte;
            target.store(at, 1, u64::from(bytes[byte]));
            let bit = 1 << (at % 32);
            if written {
                target.written[at / 32].fetch_or(bit, Relaxed);
            } else {
                target.written[at / 32].fetch_and(!bit, Relaxed);
            }
        }
        Ok(())
    }

    pub(crate) fn fill(&self, address: u64, byte: u8, len: usize) -> Result<(), MemoryError> {
        if len == 0 {
            return Ok(());
        }
        let (allocation, offset) = self.host_range(address, len)?;
        const CHUNK: usize = 4096;
        let chunk = [byte; CHUNK];
        let mut done = 0;
        while done < len {
            let count = CHUNK.min(len - done);
            allocation.write_bytes(offset + done, &chunk[..count]);
            done += count;
        }
        Ok(())
    }
}
