//! The driver's state, GPUs and primary contexts.

use std::{
    cell::Cell,
    collections::HashMap,
    ffi::{c_char, c_int, c_uint, c_void},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
};

use ptx_emulator::Emulator;

use crate::{
    context::{Context, Handle},
    inject::{self, Injection, Placed},
    status::{
        INVALID_CONTEXT, INVALID_DEVICE, INVALID_VALUE, PEER_ACCESS_ALREADY_ENABLED,
        PEER_ACCESS_UNSUPPORTED, SUCCESS, is_sticky,
    },
};

/// How many GPUs the double has.
pub const DEVICES: usize = 256;

/// Memory of each GPU.
pub(crate) const MEMORY_BYTES: u64 = 256 << 20;

const NAME: &[u8] = b"Fake GPU (test double)\0";
const VERSION: c_int = 12_040;

#[derive(Default)]
pub(crate) struct Driver {
    pub(crate) initialized: bool,
    pub(crate) gpus: Vec<Gpu>,
}

#[derive(Default)]
pub(crate) struct Gpu {
    pub(crate) retained: u64,
    pub(crate) context: Option<Context>,
    pub(crate) injections: Vec<Injection>,
    pub(crate) placed: Vec<Placed>,
    /// Attributes that a test has changed.
    pub(crate) attributes: HashMap<c_int, c_int>,
    pub(crate) calls: HashMap<&'static str, u64>,
}

static DRIVER: LazyLock<Mutex<Driver>> = LazyLock::new(|| {
    let gpus = (0..DEVICES).map(|_| Gpu::default()).collect();
    Mutex::new(Driver {
        initialized: false,
        gpus,
    })
});

thread_local! {
    /// The device whose primary context is current on this thread.
    static CURRENT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// One lock for everything: a double needs no parallelism.
pub(crate) fn lock() -> MutexGuard<'static, Driver> {
    DRIVER.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn code(result: Result<(), c_int>) -> c_int {
    match result {
        Ok(()) => SUCCESS,
        Err(code) => code,
    }
}

impl Gpu {
    /// Counts a call, and returns the error injected into it.
    fn enter(&mut self, entry: &'static str) -> Result<(), c_int> {
        *self.calls.entry(entry).or_default() += 1;
        for injection in self
            .injections
            .iter_mut()
            .filter(|injection| injection.entry == entry)
        {
            injection.countdown = injection.countdown.saturating_sub(1);
        }
        let due = |injection: &Injection| injection.entry == entry && injection.countdown == 0;
        let Some(position) = self.injections.iter().position(due) else {
            return Ok(());
        };
        let code = self.injections.remove(position).code;
        if let Some(context) = &mut self.context
            && is_sticky(code)
        {
            context.lost = Some(code);
        }
        Err(code)
    }
}

/// Runs an entry point that belongs to a device.
fn with_gpu(
    device: c_int,
    entry: &'static str,
    run: impl FnOnce(&mut Gpu) -> Result<(), c_int>,
) -> c_int {
    let mut driver = lock();
    let Some(gpu) = usize::try_from(device)
        .ok()
        .and_then(|device| driver.gpus.get_mut(device))
    else {
        return INVALID_DEVICE;
    };
    code(gpu.enter(entry).and_then(|()| run(gpu)))
}

/// Runs an entry point that needs a current context. Once the context is lost, every call returns why.
pub(crate) fn with_context(
    entry: &'static str,
    run: impl FnOnce(&mut Context) -> Result<(), c_int>,
) -> c_int {
    let Some(device) = CURRENT.get() else {
        return INVALID_CONTEXT;
    };
    inject::wait_while_held(device, entry);
    let mut driver = lock();
    let gpu = &mut driver.gpus[device];
    let entered = gpu.enter(entry);
    let Some(context) = &mut gpu.context else {
        return INVALID_CONTEXT;
    };
    if let Some(code) = context.lost {
        return code;
    }
    let result = entered.and_then(|()| run(context));
    // What runs on the device may have failed without the entry point seeing it.
    code(result.and(context.lost.map_or(Ok(()), Err)))
}

#[unsafe(no_mangle)]
extern "C" fn cuInit(flags: c_uint) -> c_int {
    if flags != 0 {
        return INVALID_VALUE;
    }
    if let Some(code) = inject::init_error() {
        return code;
    }
    lock().initialized = true;
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> c_int {
    // SAFETY: the caller passes a pointer that is valid for the write.
    unsafe { version.write(VERSION) };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> c_int {
    const NOT_INITIALIZED: c_int = 3;
    if !lock().initialized {
        return NOT_INITIALIZED;
    }
    // SAFETY: the caller passes a pointer that is valid for the write.
    unsafe { count.write(DEVICES as c_int) };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> c_int {
    with_gpu(ordinal, "cuDeviceGet", |_| {
        // SAFETY: the caller passes a pointer that is valid for the write.
        unsafe { device.write(ordinal) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, len: c_int, device: c_int) -> c_int {
    with_gpu(device, "cuDeviceGetName", |_| {
        if usize::try_from(len).is_ok_and(|len| len >= NAME.len()) {
            // SAFETY: the caller passes a buffer of `len` bytes, which is enough.
            unsafe {
                name.cast::<u8>()
                    .copy_from_nonoverlapping(NAME.as_ptr(), NAME.len())
            };
            Ok(())
        } else {
            Err(INVALID_VALUE)
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) -> c_int {
    with_gpu(device, "cuDeviceTotalMem_v2", |_| {
        // SAFETY: the caller passes a pointer that is valid for the write.
        unsafe { bytes.write(MEMORY_BYTES as usize) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetAttribute(
    value: *mut c_int,
    attribute: c_int,
    device: c_int,
) -> c_int {
    with_gpu(device, "cuDeviceGetAttribute", |gpu| {
        // Numbers of `CUdevice_attribute`; the values are those of an H100.
        let answer = match attribute {
            _ if gpu.attributes.contains_key(&attribute) => gpu.attributes[&attribute],
            1..=3 => 1024,   // MAX_THREADS_PER_BLOCK, MAX_BLOCK_DIM_X, MAX_BLOCK_DIM_Y
            4 => 64,         // MAX_BLOCK_DIM_Z
            5 => i32::MAX,   // MAX_GRID_DIM_X
            6 | 7 => 65_535, // MAX_GRID_DIM_Y, MAX_GRID_DIM_Z
            8 => 48 << 10,   // MAX_SHARED_MEMORY_PER_BLOCK
            10 => 32,        // WARP_SIZE
            13 => 1_980_000, // CLOCK_RATE
            16 => 132,       // MULTIPROCESSOR_COUNT
            36 => 2_619_000, // MEMORY_CLOCK_RATE
            37 => 5120,      // GLOBAL_MEMORY_BUS_WIDTH
            38 => 50 << 20,  // L2_CACHE_SIZE
            39 => 2048,      // MAX_THREADS_PER_MULTIPROCESSOR
            75 => 9,         // COMPUTE_CAPABILITY_MAJOR
            76 => 0,         // COMPUTE_CAPABILITY_MINOR
            81 => 228 << 10, // MAX_SHARED_MEMORY_PER_MULTIPROCESSOR
            82 => 64 << 10,  // MAX_REGISTERS_PER_MULTIPROCESSOR
            95 => 1,         // COOPERATIVE_LAUNCH
            97 => 227 << 10, // MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
            _ => return Err(INVALID_VALUE),
        };
        // SAFETY: the caller passes a pointer that is valid for the write.
        unsafe { value.write(answer) };
        Ok(())
    })
}

/// Buses are in the opposite order of the ordinals, which are not theirs.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetPCIBusId(id: *mut c_char, len: c_int, device: c_int) -> c_int {
    with_gpu(device, "cuDeviceGetPCIBusId", |_| {
        let text = format!("0000:{:02x}:00.0\0", DEVICES as c_int - 1 - device);
        if usize::try_from(len).is_ok_and(|len| len >= text.len()) {
            // SAFETY: the caller passes a buffer of `len` bytes, which is enough.
            unsafe {
                id.cast::<u8>()
                    .copy_from_nonoverlapping(text.as_ptr(), text.len())
            };
            Ok(())
        } else {
            Err(INVALID_VALUE)
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut *mut c_void, device: c_int) -> c_int {
    with_gpu(device, "cuDevicePrimaryCtxRetain", |gpu| {
        if let Some(lost) = gpu
            .context
            .get_or_insert_with(|| Context::new(device as usize))
            .lost
        {
            return Err(lost);
        }
        gpu.retained += 1;
        // SAFETY: the caller passes a pointer that is valid for the write.
        unsafe { context.write(std::ptr::without_provenance_mut(device as usize + 1)) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> c_int {
    with_gpu(device, "cuDevicePrimaryCtxRelease_v2", |gpu| {
        gpu.retained = gpu.retained.checked_sub(1).ok_or(INVALID_CONTEXT)?;
        if gpu.retained == 0 {
            gpu.context = None;
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxReset_v2(device: c_int) -> c_int {
    with_gpu(device, "cuDevicePrimaryCtxReset_v2", |gpu| {
        gpu.context = None;
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevicePrimaryCtxGetState(
    device: c_int,
    flags: *mut c_uint,
    active: *mut c_int,
) -> c_int {
    with_gpu(device, "cuDevicePrimaryCtxGetState", |gpu| {
        // SAFETY: the caller passes pointers that are valid for the write.
        unsafe {
            flags.write(0);
            active.write(gpu.context.is_some().into());
        }
        Ok(())
    })
}

/// Even ordinals reach each other's memory, and odd ones.
fn can_access(device: usize, peer: usize) -> bool {
    device != peer && device % 2 == peer % 2
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceCanAccessPeer(can: *mut c_int, device: c_int, peer: c_int) -> c_int {
    with_gpu(device, "cuDeviceCanAccessPeer", |_| {
        let peer = usize::try_from(peer).ok().filter(|&peer| peer < DEVICES);
        let peer = peer.ok_or(INVALID_DEVICE)?;
        // SAFETY: the caller passes a pointer that is valid for the write.
        unsafe { can.write(can_access(device as usize, peer).into()) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxEnablePeerAccess(peer: *mut c_void, flags: c_uint) -> c_int {
    let (Some(device), Some(peer)) = (CURRENT.get(), peer.addr().checked_sub(1)) else {
        return INVALID_CONTEXT;
    };
    with_context("cuCtxEnablePeerAccess", |context| {
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        if !can_access(device, peer) {
            return Err(PEER_ACCESS_UNSUPPORTED);
        }
        if !context.peers.insert(peer) {
            return Err(PEER_ACCESS_ALREADY_ENABLED);
        }
        Ok(())
    })
}

/// The memory of a context that is there and not lost.
pub(crate) fn emulator_of(context: *mut c_void) -> Option<Arc<Emulator>> {
    let driver = lock();
    let gpu = driver.gpus.get(context.addr().checked_sub(1)?)?;
    let context = gpu.context.as_ref()?;
    context
        .lost
        .is_none()
        .then(|| Arc::clone(&context.emulator))
}

/// Runs the work of a GPU up to one of its events. What fails there is lost there.
pub(crate) fn run_to_event(device: usize, event: Handle) {
    let mut driver = lock();
    let context = driver.gpus.get_mut(device);
    if let Some(context) = context.and_then(|gpu| gpu.context.as_mut())
        && context.lost.is_none()
        && let Some(&Some(mark)) = context.events.get(&event)
    {
        let _ = context.run_until(mark.stream, mark.number);
    }
}

/// The device whose primary context is current on this thread.
pub(crate) fn current() -> Option<usize> {
    CURRENT.get()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuCtxGetCurrent(context: *mut *mut c_void) -> c_int {
    let handle = CURRENT.get().map_or(0, |device| device + 1);
    // SAFETY: the caller passes a pointer that is valid for the write.
    unsafe { context.write(std::ptr::without_provenance_mut(handle)) };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuCtxGetDevice(device: *mut c_int) -> c_int {
    let Some(current) = CURRENT.get() else {
        return INVALID_CONTEXT;
    };
    // SAFETY: the caller passes a pointer that is valid for the write.
    unsafe { device.write(current as c_int) };
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(context: *mut c_void) -> c_int {
    let device = context.addr().checked_sub(1);
    let driver = lock();
    let exists = |device: usize| {
        driver
            .gpus
            .get(device)
            .is_some_and(|gpu| gpu.context.is_some())
    };
    if device.is_some_and(|device| !exists(device)) {
        return INVALID_CONTEXT;
    }
    CURRENT.set(device);
    SUCCESS
}

/// Takes the stack's size only, and does nothing with it.
#[unsafe(no_mangle)]
extern "C" fn cuCtxSetLimit(limit: c_int, _value: usize) -> c_int {
    const STACK_SIZE: c_int = 0;
    with_context("cuCtxSetLimit", |_| match limit {
        STACK_SIZE => Ok(()),
        _ => Err(INVALID_VALUE),
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSynchronize() -> c_int {
    with_context("cuCtxSynchronize", Context::synchronize)
}
