//! What tests use to make calls fail, and to look inside. No real driver has these functions.

use std::{
    collections::HashMap,
    env,
    ffi::{CStr, c_char, c_int, c_uint},
    sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError},
};

use crate::driver::{self, Driver, Gpu};

/// Environment variable with the `CUresult` that `cuInit` returns.
const INIT_VARIABLE: &str = "FAKE_CUDA_INIT";

/// The error with which this process's driver does not start, if it should not.
pub(crate) fn init_error() -> Option<c_int> {
    let code = env::var(INIT_VARIABLE).ok()?;
    Some(code.parse().expect("FAKE_CUDA_INIT is a number"))
}

/// An error that a later call will return instead of doing its work.
#[derive(Debug)]
pub(crate) struct Injection {
    pub(crate) entry: String,
    /// Calls until the error; 1 for the next one.
    pub(crate) countdown: u64,
    pub(crate) code: c_int,
}

/// A range of addresses that a GPU says is memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    pub(crate) base: u64,
    pub(crate) bytes: usize,
    /// A `CUmemorytype`.
    pub(crate) memory_type: c_uint,
    pub(crate) managed: bool,
}

/// Makes the `nth` call from now (1 for the next) of an entry point on a device return `code`. Where the code is
/// one that a driver's context does not survive, the device's context is lost.
///
/// # Safety
///
/// `entry` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fake_cuda_inject(
    device: c_int,
    entry: *const c_char,
    nth: u64,
    code: c_int,
) {
    // SAFETY: the caller says so.
    let entry = unsafe { text(entry) };
    let injection = Injection {
        entry,
        countdown: nth,
        code,
    };
    change(device, |gpu| gpu.injections.push(injection));
}

/// Makes a device answer `value` for an attribute, of which only its answers change.
#[unsafe(no_mangle)]
pub extern "C" fn fake_cuda_attribute(device: c_int, attribute: c_int, value: c_int) {
    change(device, |gpu| {
        gpu.attributes.insert(attribute, value);
    });
}

/// Makes `cuPointerGetAttributes` find an allocation of a `CUmemorytype` on a device: of kinds of memory that the double does not
/// have, or lying as no allocation of the double's does. Nothing can be copied from it or to it.
#[unsafe(no_mangle)]
pub extern "C" fn fake_cuda_place(
    device: c_int,
    base: u64,
    bytes: usize,
    memory_type: c_uint,
    managed: bool,
) {
    let placed = Placed {
        base,
        bytes,
        memory_type,
        managed,
    };
    change(device, |gpu| gpu.placed.push(placed));
}

fn change(device: c_int, change: impl FnOnce(&mut Gpu)) {
    let mut driver = driver::lock();
    let device = usize::try_from(device).ok();
    if let Some(gpu) = device.and_then(|device| driver.gpus.get_mut(device)) {
        change(gpu);
    }
}

/// How many calls are held back, by device and entry point.
type Held = HashMap<(c_int, String), u64>;

static HELD: LazyLock<Mutex<Held>> = LazyLock::new(Mutex::default);
static LET_GO: Condvar = Condvar::new();

fn held() -> MutexGuard<'static, Held> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Holds the calls of an entry point on a device back, before they do anything, until [`fake_cuda_let_go`].
///
/// # Safety
///
/// `entry` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fake_cuda_hold(device: c_int, entry: *const c_char) {
    // SAFETY: the caller says so.
    let entry = unsafe { text(entry) };
    held().entry((device, entry)).or_default();
}

/// How many calls of an entry point on a device are being held back.
///
/// # Safety
///
/// `entry` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fake_cuda_held(device: c_int, entry: *const c_char) -> u64 {
    // SAFETY: the caller says so.
    let key = (device, unsafe { text(entry) });
    held().get(&key).copied().unwrap_or(0)
}

/// Ends what [`fake_cuda_hold`] began.
///
/// # Safety
///
/// `entry` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fake_cuda_let_go(device: c_int, entry: *const c_char) {
    // SAFETY: the caller says so.
    let key = (device, unsafe { text(entry) });
    held().remove(&key);
    LET_GO.notify_all();
}

/// Waits as long as this entry point is held back.
pub(crate) fn wait_while_held(device: usize, entry: &'static str) {
    let mut held = held();
    if held.is_empty() {
        return;
    }
    let key = (device as c_int, entry.to_owned());
    if let Some(waiting) = held.get_mut(&key) {
        *waiting += 1;
    }
    drop(LET_GO.wait_while(held, |held| held.contains_key(&key)));
}

/// How often an entry point was called on a device, since the process started.
///
/// # Safety
///
/// `entry` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fake_cuda_calls(device: c_int, entry: *const c_char) -> u64 {
    // SAFETY: the caller says so.
    let entry = unsafe { text(entry) };
    look(device, |driver, device| {
        driver.gpus[device].calls.get(entry.as_str()).copied()
    })
}

/// How often the memory pools of a device's context asked the operating system for memory.
#[unsafe(no_mangle)]
pub extern "C" fn fake_cuda_pool_growths(device: c_int) -> u64 {
    look(device, |driver, device| {
        let context = driver.gpus[device].context.as_ref()?;
        Some(context.pool_growths())
    })
}

/// How many things are alive on a device: allocations, memory pools, streams, events, modules, graphs, executable graphs and
/// retains of the primary context, together.
#[unsafe(no_mangle)]
pub extern "C" fn fake_cuda_alive(device: c_int) -> u64 {
    look(device, |driver, device| {
        let gpu = &driver.gpus[device];
        Some(gpu.retained + gpu.context.as_ref().map_or(0, |context| context.alive()))
    })
}

fn look(device: c_int, read: impl FnOnce(&Driver, usize) -> Option<u64>) -> u64 {
    let driver = driver::lock();
    let device = usize::try_from(device)
        .ok()
        .filter(|&device| device < driver.gpus.len());
    device.and_then(|device| read(&driver, device)).unwrap_or(0)
}

/// # Safety
///
/// `entry` is a C string.
unsafe fn text(entry: *const c_char) -> String {
    // SAFETY: the caller says so.
    unsafe { CStr::from_ptr(entry) }
        .to_string_lossy()
        .into_owned()
}
