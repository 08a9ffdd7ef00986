//! What the hardware allows, by kernels made for that: ceilings.ptx, and mma.ptx where there are such tensor cores.

use super::timing::{self, Replay, Settings};
use crate::operations::{Check, Operation};
use anyhow::{Context, Result, ensure};
use bitnet_cuda::device::{
    Buffer, Device, ForeignError, ForeignUse, Function, MemoryPoolConfig, Stream,
};
use bitnet_cuda::launch::ptx_for;
use cust_lazy::ffi;
use kernel_benches::Ceilings;
use kernel_benches::statistics::summarize;
use std::ffi::c_void;
use std::time::Instant;

const PTX: &str = include_str!("ceilings.ptx");
const MMA_PTX: &str = include_str!("mma.ptx");
/// The compute capability of the instruction in [`MMA_PTX`].
const MMA_CAPABILITY: (u32, u32) = (8, 0);

const THREADS: u32 = 256;
/// Bytes that a block of `copy` copies.
const COPY_BLOCK: usize = 16 << 10;
/// Multiplications and additions of a thread of `dot` in one round: 16 `dp4a`.
const DOT_OPERATIONS: usize = 16 * 8;
/// Likewise of `mma`, where a warp has 8 products of 16 x 32 by 32 x 8.
const MMA_OPERATIONS: usize = 8 * (2 * 16 * 8 * 32) / 32;

/// Bytes to copy and rounds of `dot`: enough to fill a GPU, or enough to show that it works.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub copy_bytes: usize,
    pub dot_rounds: u32,
}

pub fn measure(
    device: &Device,
    stream: &Stream,
    settings: &Settings,
    sizes: Sizes,
) -> Result<Ceilings> {
    // First, while nothing is loaded yet.
    let module_load_ms = module_load_ms(device)?;
    let module = device.load_module(PTX)?;
    let mut empty = [Kernel::empty(module.function("empty")?)];
    let mut copy = [Copy::new(
        device,
        module.function("copy")?,
        sizes.copy_bytes,
    )?];
    let rounds = sizes.dot_rounds;
    let mut dot = [Products::new(
        device,
        module.function("dot")?,
        rounds,
        DOT_OPERATIONS,
    )?];
    let mut mma = Vec::new();
    if device.compute_capability() >= MMA_CAPABILITY {
        let function = device.load_module(MMA_PTX)?.function("mma")?;
        mma.push(Products::new(device, function, rounds, MMA_OPERATIONS)?);
    }

    copy[0].launch(stream)?;
    let check = copy[0].check()?;
    ensure!(
        check.mismatches == 0,
        "the copy left {} of {} words wrong",
        check.mismatches,
        check.checked
    );

    let replay = Replay::new(stream, &mut copy, settings)?;
    let copy_time = replay.time(stream, settings)?;
    let operations_per_second = |products: &mut [Products]| -> Result<f64> {
        let time = Replay::new(stream, products, settings)?.time(stream, settings)?;
        Ok(products[0].operations() as f64 / time.median_us * 1e6)
    };
    let dp4a_operations_per_second = operations_per_second(&mut dot)?;
    let mma_operations_per_second = match mma.is_empty() {
        true => None,
        false => Some(operations_per_second(&mut mma)?),
    };
    let launch_floor = Replay::new(stream, &mut empty, settings)?.time(stream, settings)?;
    let alone = Settings {
        replay_us: 0.0,
        ..*settings
    };
    Ok(Ceilings {
        copy_bytes_per_second: copy[0].bytes() as f64 / copy_time.median_us * 1e6,
        copy: copy_time,
        copy_bytes: copy[0].bytes(),
        launch_floor,
        graph_replay: Replay::new(stream, &mut empty, &alone)?.time(stream, &alone)?,
        single_launch: timing::one_by_one(stream, &mut empty[0], 100, settings.max_rounds)?,
        dp4a_operations_per_second,
        mma_operations_per_second,
        module_load_ms,
        allocation_us: allocation_us(device)?,
        pool_allocation_us: None,
    })
}

/// Host time until the first kernel of this library's PTX can be launched.
fn module_load_ms(device: &Device) -> Result<f64> {
    let (_, ptx) = ptx_for(device.compute_capability()).context("no PTX for this device")?;
    let kernel = ptx
        .lines()
        .find_map(|line| line.trim().strip_prefix(".visible .entry "));
    let kernel = kernel
        .and_then(|line| line.split('(').next())
        .context("the PTX has no entry")?;
    let started = Instant::now();
    device.load_module(ptx)?.function(kernel)?;
    Ok(started.elapsed().as_secs_f64() * 1e3)
}

/// As [`Ceilings::allocation_us`], from a pool; the device keeps it.
pub fn pool_allocation_us(device: &Device) -> Result<f64> {
    device.enable_pool(MemoryPoolConfig::default())?;
    // The first one is the driver's.
    drop(Buffer::<u8>::uninit(device, 1 << 20)?);
    allocation_us(device)
}

/// Median host time to allocate and free 1 MiB.
fn allocation_us(device: &Device) -> Result<f64> {
    const ROUNDS: usize = 51;
    let mut sample = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let started = Instant::now();
        drop(Buffer::<u8>::uninit(device, 1 << 20)?);
        sample.push(started.elapsed().as_secs_f64() * 1e6);
    }
    Ok(summarize(sample, 1)
        .context("no round was measured")?
        .median_us)
}

/// A kernel and its launch, beside the library's own launch path.
struct Kernel {
    function: Function,
    grid: u32,
    threads: u32,
}

impl Kernel {
    fn empty(function: Function) -> Self {
        Self {
            function,
            grid: 1,
            threads: 32,
        }
    }

    /// # Safety
    /// `arguments` are the kernel's parameters, and with them it accesses only the buffers of `uses`.
    unsafe fn submit(
        &self,
        stream: &Stream,
        uses: &[ForeignUse<'_>],
        arguments: &mut [u64],
    ) -> Result<()> {
        let function = self.function.raw_handle();
        let launch = |raw: *mut c_void| {
            let mut pointers: Vec<*mut c_void> = arguments
                .iter_mut()
                .map(|argument| (&raw mut *argument).cast())
                .collect();
            // SAFETY: one pointer a parameter, each to 8 bytes, of which the driver copies as many as the parameter has
            // (little-endian); function and stream are live handles of the context that is current.
            let code = unsafe {
                ffi::cuLaunchKernel(
                    function.cast(),
                    self.grid,
                    1,
                    1,
                    self.threads,
                    1,
                    1,
                    0,
                    raw.cast(),
                    pointers.as_mut_ptr(),
                    std::ptr::null_mut(),
                )
            };
            match code {
                0 => Ok(()),
                code => Err(ForeignError {
                    call: "cuLaunchKernel",
                    name: cust_lazy::error_name(code),
                    code,
                }),
            }
        };
        // SAFETY: the launch goes to the stream given, and its accesses are what the caller states.
        Ok(unsafe { stream.submit_foreign(self.function.name(), uses, launch) }?)
    }
}

/// Only for the kernel without parameters.
impl Operation for Kernel {
    fn launch(&mut self, stream: &Stream) -> Result<()> {
        // SAFETY: the kernel `empty` has no parameters and accesses nothing.
        unsafe { self.submit(stream, &[], &mut []) }
    }
    fn outputs(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }
    fn check(&self) -> Result<Check> {
        Ok(Check::default())
    }
    fn bytes(&self) -> usize {
        0
    }
    fn operations(&self) -> usize {
        0
    }
}

struct Copy {
    kernel: Kernel,
    from: Buffer<u32>,
    to: Buffer<u32>,
}

impl Copy {
    fn new(device: &Device, function: Function, bytes: usize) -> Result<Self> {
        let blocks = bytes.div_ceil(COPY_BLOCK);
        let words = blocks * COPY_BLOCK / size_of::<u32>();
        let numbers: Vec<u32> = (0..words as u32).collect();
        Ok(Self {
            kernel: Kernel {
                function,
                grid: blocks as u32,
                threads: THREADS,
            },
            from: Buffer::from_slice(device, &numbers)?,
            to: Buffer::zeroed(device, words)?,
        })
    }
}

impl Operation for Copy {
    fn launch(&mut self, stream: &Stream) -> Result<()> {
        let uses = [self.from.foreign_use(), self.to.foreign_use()];
        let mut arguments = [self.from.device_ptr(), self.to.device_ptr()];
        // SAFETY: two pointers; block `i` reads and writes bytes `i * COPY_BLOCK..` of the two buffers, which have as many
        // times COPY_BLOCK bytes as there are blocks; `to` is held mutably.
        unsafe { self.kernel.submit(stream, &uses, &mut arguments) }
    }
    fn outputs(&self) -> Result<Vec<u8>> {
        Ok(bytemuck::cast_slice(&self.to.to_vec()?).to_vec())
    }
    fn check(&self) -> Result<Check> {
        Ok(Check::compare(
            &self.to.to_vec()?,
            &self.from.to_vec()?,
            u32::eq,
        ))
    }
    fn bytes(&self) -> usize {
        self.from.size_bytes() + self.to.size_bytes()
    }
    fn operations(&self) -> usize {
        0
    }
}

/// Integer products in registers, on all multiprocessors.
struct Products {
    kernel: Kernel,
    rounds: u32,
    /// Of a thread in a round.
    operations: usize,
    out: Buffer<u32>,
}

impl Products {
    fn new(device: &Device, function: Function, rounds: u32, operations: usize) -> Result<Self> {
        let capabilities = device.capabilities();
        let grid =
            capabilities.multiprocessors * capabilities.max_threads_per_multiprocessor / THREADS;
        Ok(Self {
            kernel: Kernel {
                function,
                grid,
                threads: THREADS,
            },
            rounds,
            operations,
            out: Buffer::uninit(device, (grid * THREADS) as usize)?,
        })
    }
}

impl Operation for Products {
    fn launch(&mut self, stream: &Stream) -> Result<()> {
        let uses = [self.out.foreign_use()];
        let mut arguments = [self.out.device_ptr(), u64::from(self.rounds)];
        // SAFETY: a pointer and a u32; each thread writes the element of its global index, and `out` has one a thread.
        unsafe { self.kernel.submit(stream, &uses, &mut arguments) }
    }
    fn outputs(&self) -> Result<Vec<u8>> {
        Ok(bytemuck::cast_slice(&self.out.to_vec()?).to_vec())
    }
    fn check(&self) -> Result<Check> {
        Ok(Check::default())
    }
    fn bytes(&self) -> usize {
        self.out.size_bytes()
    }
    fn operations(&self) -> usize {
        self.out.len() * self.rounds as usize * self.operations
    }
}
