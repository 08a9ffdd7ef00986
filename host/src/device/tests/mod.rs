//! Tests of the device layer on the emulator and through the CUDA driver's interface.
//!
//! On a machine without a GPU the latter is the test double in `tests/fake-libcuda`, which gives each test a GPU of its
//! own. With `BITNET_TEST_DEVICE=cuda`, and no other driver named in `CUST_LAZY_LIBCUDA`, it is the real
//! driver: the tests that need the double's injected errors say that they are skipped, and the others take turns, each
//! with a device of its own on the first GPU.

mod backend;
mod dependent_launches;
mod external;
mod faults;
mod foreign;
mod graphs;
#[cfg(shuttle)]
mod interleavings;
mod launches;
mod lifetimes;
mod modules;
mod opening;
mod peers;
mod pinned;
mod pool;
mod programmatic;
mod scratch;
mod threads;
mod tuning;

use std::{
    cell::RefCell,
    env,
    ffi::{CString, c_char, c_int, c_uint},
    path::PathBuf,
    sync::{
        LazyLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use libloading::os::unix::{Library, Symbol};

use super::*;

const PTX: &str = include_str!("kernels.ptx");

/// The double, loaded as this process's CUDA driver; `None` where the tests run on the real one.
static FAKE: LazyLock<Option<Fake>> = LazyLock::new(|| {
    let real = env::var("BITNET_TEST_DEVICE").is_ok_and(|device| device.starts_with("cuda"));
    // Miri opens no libraries.
    if cfg!(miri) || real && env::var_os(cust_lazy::LIBRARY_VARIABLE).is_none() {
        return None;
    }
    // Cargo builds the dependency beside the test program.
    let mut path: PathBuf = env::current_exe().expect("the test program has a path");
    path.set_file_name("libfake_libcuda.so");
    cust_lazy::load_from(&path).expect("the test double loads");
    // SAFETY: the library is open already, and its functions have the signatures below.
    unsafe {
        let library = Library::new(&path).expect("the test double is loaded");
        Some(Fake {
            inject: library.get(b"fake_cuda_inject").expect("the double has it"),
            calls: library.get(b"fake_cuda_calls").expect("the double has it"),
            hold: library.get(b"fake_cuda_hold").expect("the double has it"),
            held: library.get(b"fake_cuda_held").expect("the double has it"),
            let_go: library.get(b"fake_cuda_let_go").expect("the double has it"),
            alive: library.get(b"fake_cuda_alive").expect("the double has it"),
            pool_growths: library
                .get(b"fake_cuda_pool_growths")
                .expect("the double has it"),
            attribute: library
                .get(b"fake_cuda_attribute")
                .expect("the double has it"),
            place: library.get(b"fake_cuda_place").expect("the double has it"),
            _library: library,
        })
    }
});

/// The GPU that the next test takes. Low ordinals are left to tests that name one.
static NEXT_GPU: AtomicUsize = AtomicUsize::new(8);

struct Fake {
    inject: Symbol<unsafe extern "C" fn(c_int, *const c_char, u64, c_int)>,
    calls: Symbol<unsafe extern "C" fn(c_int, *const c_char) -> u64>,
    hold: Symbol<unsafe extern "C" fn(c_int, *const c_char)>,
    held: Symbol<unsafe extern "C" fn(c_int, *const c_char) -> u64>,
    let_go: Symbol<unsafe extern "C" fn(c_int, *const c_char)>,
    alive: Symbol<unsafe extern "C" fn(c_int) -> u64>,
    pool_growths: Symbol<unsafe extern "C" fn(c_int) -> u64>,
    attribute: Symbol<unsafe extern "C" fn(c_int, c_int, c_int)>,
    place: Symbol<unsafe extern "C" fn(c_int, u64, usize, c_uint, bool)>,
    _library: Library,
}

/// A GPU of the double that no other test uses.
struct FakeGpu {
    fake: &'static Fake,
    ordinal: usize,
}

impl FakeGpu {
    /// `None`, with a line that says so, where the tests run on the real driver.
    fn take() -> Option<Self> {
        let fake = FAKE.as_ref();
        if fake.is_none() {
            eprintln!("skipped: injected errors need the test double of the driver");
        }
        Some(Self {
            fake: fake?,
            ordinal: NEXT_GPU.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// Another GPU, whose memory this one reaches or does not.
    fn other(&self, reachable: bool) -> Self {
        // Of the double's GPUs, those with even ordinals reach each other, and those with odd ones.
        std::iter::repeat_with(|| Self::take().expect("this one is the double's, too"))
            .find(|other| (other.ordinal % 2 == self.ordinal % 2) == reachable)
            .expect("the double has many GPUs")
    }

    fn open(&self) -> Device {
        Device::cuda(self.ordinal).expect("the double has this GPU")
    }

    /// Makes the `nth` call from now of a driver function fail with `code`.
    fn inject(&self, entry: &str, nth: u64, code: i32) {
        let entry = CString::new(entry).expect("no NUL");
        // SAFETY: a C string, as the function asks for.
        unsafe { (self.fake.inject)(self.ordinal as c_int, entry.as_ptr(), nth, code) }
    }

    /// Changes what the GPU says of itself, by the number of a `CUdevice_attribute`.
    fn set_attribute(&self, attribute: i32, value: i32) {
        // SAFETY: takes numbers.
        unsafe { (self.fake.attribute)(self.ordinal as c_int, attribute, value) }
    }

    /// Makes the driver say that memory of a `CUmemorytype` lies on the GPU, of which there are addresses only.
    fn place(&self, base: u64, bytes: usize, memory_type: u32, managed: bool) {
        // SAFETY: takes numbers.
        unsafe { (self.fake.place)(self.ordinal as c_int, base, bytes, memory_type, managed) }
    }

    fn calls(&self, entry: &str) -> u64 {
        let entry = CString::new(entry).expect("no NUL");
        // SAFETY: a C string, as the function asks for.
        unsafe { (self.fake.calls)(self.ordinal as c_int, entry.as_ptr()) }
    }

    /// How often the driver's pools asked the operating system for memory.
    fn pool_growths(&self) -> u64 {
        // SAFETY: asks for nothing.
        unsafe { (self.fake.pool_growths)(self.ordinal as c_int) }
    }

    /// Holds the calls of a driver function back until the result is dropped.
    fn hold(&self, entry: &str) -> Held<'_> {
        let entry = CString::new(entry).expect("no NUL");
        // SAFETY: a C string, as the function asks for.
        unsafe { (self.fake.hold)(self.ordinal as c_int, entry.as_ptr()) };
        Held { gpu: self, entry }
    }

    /// How many of the driver's objects exist on the GPU.
    fn alive(&self) -> u64 {
        // SAFETY: asks for nothing.
        unsafe { (self.fake.alive)(self.ordinal as c_int) }
    }
}

/// A driver function of a GPU whose calls are held back.
struct Held<'a> {
    gpu: &'a FakeGpu,
    entry: CString,
}

impl Held<'_> {
    fn calls(&self) -> u64 {
        // SAFETY: a C string, as the function asks for.
        unsafe { (self.gpu.fake.held)(self.gpu.ordinal as c_int, self.entry.as_ptr()) }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // SAFETY: a C string, as the function asks for.
        unsafe { (self.gpu.fake.let_go)(self.gpu.ordinal as c_int, self.entry.as_ptr()) }
    }
}

/// The tests that use a real GPU, one at a time: they share its primary context, where nothing may wait for the whole context
/// while a stream is being captured.
static REAL_GPU: std::sync::Mutex<()> = std::sync::Mutex::new(());

thread_local! {
    /// Held until the test's thread ends, and so longer than the test's devices.
    static TURN: RefCell<Option<std::sync::MutexGuard<'static, ()>>> = const { RefCell::new(None) };
}

/// Waits until no other test uses the real GPU.
fn take_turn() {
    TURN.with_borrow_mut(|turn| {
        turn.get_or_insert_with(|| REAL_GPU.lock().unwrap_or_else(PoisonError::into_inner));
    });
}

/// The GPU that `BITNET_TEST_DEVICE=cuda:<ordinal>` names; the first for `cuda`.
fn real_ordinal() -> usize {
    let name = env::var("BITNET_TEST_DEVICE").unwrap_or_default();
    name.strip_prefix("cuda:").map_or(0, |ordinal| {
        let ordinal = ordinal.parse();
        ordinal.expect("BITNET_TEST_DEVICE is `cuda:` and an ordinal")
    })
}

/// One device of each driver (under Miri, two emulated ones), that a test may use as it likes short of breaking it.
fn devices() -> [Device; 2] {
    let gpu = match FakeGpu::take() {
        Some(gpu) => gpu.open(),
        None if cfg!(miri) => Device::emulated().expect("the default configuration is valid"),
        None => {
            take_turn();
            // Not the one that the process shares: it would keep the pool of an earlier test.
            Device::unshared_cuda(real_ordinal()).expect("BITNET_TEST_DEVICE=cuda asks for a GPU")
        }
    };
    [
        gpu,
        Device::emulated().expect("the default configuration is valid"),
    ]
}

/// Whether a real driver stands behind the device, of which less is known than of the double.
fn is_real(device: &Device) -> bool {
    device.kind() == DeviceKind::Cuda && FAKE.is_none()
}

fn function(device: &Device, kernel: &str) -> Function {
    let module = device.load_module(PTX).expect("the PTX is valid");
    module.function(kernel).expect("the kernel is in the PTX")
}

fn config(grid: u32, block: u32) -> LaunchConfig {
    LaunchConfig {
        grid: [grid, 1, 1],
        block: [block, 1, 1],
        dynamic_shared: 0,
        cooperative: false,
    }
}

fn read<T>(buffer: &Buffer<T>) -> KernelArg<'_>
where
    T: bytemuck::Pod,
{
    KernelArg::Pointer {
        name: "data",
        allocation: buffer.allocation(),
        offset_bytes: 0,
        bytes: buffer.size_bytes(),
        write: false,
    }
}

fn write<T>(buffer: &Buffer<T>) -> KernelArg<'_>
where
    T: bytemuck::Pod,
{
    KernelArg::Pointer {
        name: "data",
        allocation: buffer.allocation(),
        offset_bytes: 0,
        bytes: buffer.size_bytes(),
        write: true,
    }
}

fn scalar(value: u32) -> KernelArg<'static> {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&value.to_ne_bytes());
    KernelArg::Scalar { bytes, len: 4 }
}

/// Submits `add_one` over the whole buffer.
fn add_one(stream: &Stream, buffer: &Buffer<u32>) -> Result<(), DeviceError> {
    let n = buffer.len() as u32;
    let function = function(stream.device(), "add_one");
    stream.launch(
        &function,
        config(n.div_ceil(32), 32),
        &[write(buffer), scalar(n)],
    )
}

/// Submits a launch that writes behind the end of the buffer.
fn overrun(stream: &Stream, buffer: &Buffer<u32>) -> Result<(), DeviceError> {
    let n = buffer.len() as u32 + 4096;
    let function = function(stream.device(), "add_one");
    stream.launch(
        &function,
        config(n.div_ceil(32), 32),
        &[write(buffer), scalar(n)],
    )
}
