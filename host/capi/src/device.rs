//! Devices and their memory.

use std::collections::HashMap;
use std::ffi::{c_char, c_void};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bitnet_cuda::device::{Buffer, CurrentContext, Device, DeviceKind, WeakDevice};

use crate::arguments::{self, ANY, Out};
use crate::error::{Error, Status, call};
use crate::handles::{self, Handled};

/// A device that handles stand for, with the memory that `bitnet_alloc` has made on it.
pub struct OpenDevice {
    pub device: Device,
    memory: Mutex<HashMap<u64, Buffer<u8>>>,
}

/// The devices that are open, so that opening one again gives the same memory.
static OPEN: Mutex<Open> = Mutex::new(Open {
    devices: Vec::new(),
    emulated: None,
});

struct Open {
    devices: Vec<Weak<OpenDevice>>,
    /// Layers outlive the handles of their device: the addresses of another one would mean something else to them.
    emulated: Option<WeakDevice>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_emulated(device: &Device) -> bool {
    device.kind() == DeviceKind::Emulated
}

/// The thread's CUDA context, to be restored after a call that uses the device.
pub fn keep_context(device: &Device) -> Option<CurrentContext> {
    (!is_emulated(device)).then(CurrentContext::save)
}

/// Ends a handle, of which 0 is none, and drops what it stands for, on its device.
pub fn destroy<T: Handled>(argument: &str, handle: usize, device: fn(&T) -> Device) -> Status {
    call(|| {
        if handle != 0 {
            let removed = handles::remove::<T>(argument, handle)?;
            let device = device(&removed);
            let _context = keep_context(&device);
            drop(removed);
        }
        Ok(())
    })
}

impl OpenDevice {
    /// The open device of that name, or a new one. A process has one emulated device: addresses have to mean one thing where
    /// there is no handle beside them.
    pub fn open(name: &str) -> Result<Arc<Self>, Error> {
        // Locked while a device opens, so that two threads do not make two.
        let mut open = lock(&OPEN);
        open.devices.retain(|device| device.strong_count() > 0);
        let mut device = Device::from_name(name)?;
        if is_emulated(&device) {
            // Each opening makes another one.
            let known = open.emulated.as_ref().and_then(WeakDevice::upgrade);
            device = known.filter(|known| !known.is_lost()).unwrap_or(device);
            open.emulated = Some(device.downgrade());
        }
        let mut alive = open.devices.iter().filter_map(Weak::upgrade);
        if let Some(known) = alive.find(|known| known.device == device) {
            return Ok(known);
        }
        let opened = Arc::new(Self {
            device,
            memory: Mutex::default(),
        });
        open.devices.push(Arc::downgrade(&opened));
        Ok(opened)
    }
}

impl Drop for OpenDevice {
    fn drop(&mut self) {
        let _context = keep_context(&self.device);
        let memory = std::mem::take(
            self.memory
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner),
        );
        if memory.is_empty() {
            return;
        }
        // Work on streams of the caller's may still use it.
        if let Err(error) = self.device.synchronize_context()
            && !self.device.is_lost()
        {
            // `eprintln!` would panic where stderr cannot be written to, and end the caller's process.
            let _ = writeln!(
                io::stderr(),
                "libbitnet: memory of {} is not freed: {error}",
                self.device.name()
            );
            std::mem::forget(memory);
        }
    }
}

/// `bitnet_device_open` of the header.
///
/// # Safety
/// `name` is a C string or null, `device` valid for the write or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_device_open(name: *const c_char, device: *mut usize) -> Status {
    call(|| {
        // SAFETY: the caller's contract.
        let (name, out) = unsafe {
            (
                arguments::string("name", name)?,
                Out::new("device", device)?,
            )
        };
        let _context = (name != "emulated").then(CurrentContext::save);
        let opened = OpenDevice::open(name).map_err(|error| error.about("name"))?;
        out.write(handles::insert_shared(opened));
        Ok(())
    })
}

/// `bitnet_device_close` of the header.
#[unsafe(no_mangle)]
pub extern "C" fn bitnet_device_close(device: usize) -> Status {
    call(|| {
        if device != 0 {
            let device = handles::remove::<OpenDevice>("device", device)?;
            let _context = keep_context(&device.device);
            drop(device);
        }
        Ok(())
    })
}

/// `bitnet_device_name` of the header.
///
/// # Safety
/// `name` is valid for writes of `bytes` bytes, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_device_name(
    device: usize,
    name: *mut c_char,
    bytes: i64,
) -> Status {
    call(|| {
        let device = handles::get::<OpenDevice>("device", device)?;
        let bytes = arguments::size("bytes", bytes, ANY)?;
        // SAFETY: the caller's contract.
        let out = unsafe { arguments::host_out("name", name, bytes) }?;
        let mut text = device.device.name();
        while text.len() >= bytes {
            text = &text[..text.floor_char_boundary(text.len() - 1)];
        }
        for (to, from) in out.iter_mut().zip(text.bytes().chain([0])) {
            to.write(from as c_char);
        }
        Ok(())
    })
}

/// `bitnet_alloc` of the header.
///
/// # Safety
/// `pointer` is valid for the write, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_alloc(
    device: usize,
    bytes: i64,
    pointer: *mut *mut c_void,
) -> Status {
    call(|| {
        let device = handles::get::<OpenDevice>("device", device)?;
        let bytes = arguments::size("bytes", bytes, ANY)?;
        // SAFETY: the caller's contract.
        let out = unsafe { Out::new("pointer", pointer) }?;
        let _context = keep_context(&device.device);
        let buffer = Buffer::<u8>::uninit(&device.device, bytes)?;
        let address = buffer.device_ptr();
        lock(&device.memory).insert(address, buffer);
        out.write(std::ptr::without_provenance_mut(address as usize));
        Ok(())
    })
}

/// `bitnet_free` of the header.
#[unsafe(no_mangle)]
pub extern "C" fn bitnet_free(device: usize, pointer: *mut c_void) -> Status {
    call(|| {
        let device = handles::get::<OpenDevice>("device", device)?;
        if pointer.is_null() {
            return Ok(());
        }
        let address = pointer.addr() as u64;
        let unknown = || {
            Error::argument(format!(
                "pointer = {pointer:p} was not returned by bitnet_alloc on {}, or has been freed",
                device.device.name()
            ))
        };
        let _context = keep_context(&device.device);
        if !device.device.is_lost() {
            device.device.synchronize_context()?;
        }
        let buffer = lock(&device.memory).remove(&address);
        buffer.map(drop).ok_or_else(unknown)
    })
}

/// `bitnet_copy_to_device` of the header.
///
/// # Safety
/// `from` is readable for `bytes` bytes, or null; nothing else uses `to` meanwhile; `stream` is a stream of the device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_copy_to_device(
    device: usize,
    to: *mut c_void,
    from: *const c_void,
    bytes: i64,
    stream: *mut c_void,
) -> Status {
    call(|| {
        let device = handles::get::<OpenDevice>("device", device)?;
        let bytes = arguments::size("bytes", bytes, ANY)?;
        let _context = keep_context(&device.device);
        let device = &device.device;
        // SAFETY: the caller's contract.
        let (from, mut to, stream) = unsafe {
            let from = arguments::host::<u8>("from", from.cast(), bytes)?;
            let to = arguments::device_array::<u8>("to", device, to, bytes)?;
            (from, to, arguments::stream(device, stream)?)
        };
        stream.synchronize()?;
        Ok(to.copy_from_slice(from)?)
    })
}

/// `bitnet_copy_to_host` of the header.
///
/// # Safety
/// `to` is writable for `bytes` bytes, or null; nothing writes `from` meanwhile; `stream` is a stream of the device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_copy_to_host(
    device: usize,
    to: *mut c_void,
    from: *const c_void,
    bytes: i64,
    stream: *mut c_void,
) -> Status {
    call(|| {
        let device = handles::get::<OpenDevice>("device", device)?;
        let bytes = arguments::size("bytes", bytes, ANY)?;
        let _context = keep_context(&device.device);
        let device = &device.device;
        // SAFETY: the caller's contract.
        let (to, from, stream) = unsafe {
            let to = arguments::host_out::<u8>("to", to.cast(), bytes)?;
            let from = arguments::device_array::<u8>("from", device, from, bytes)?;
            (to, from, arguments::stream(device, stream)?)
        };
        stream.synchronize()?;
        Ok(from.copy_to_uninit(to)?)
    })
}

/// `bitnet_synchronize` of the header.
///
/// # Safety
/// `stream` is a stream of the device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_synchronize(device: usize, stream: *mut c_void) -> Status {
    call(|| {
        let device = handles::get::<OpenDevice>("device", device)?;
        let _context = keep_context(&device.device);
        // SAFETY: the caller's contract.
        let stream = unsafe { arguments::stream(&device.device, stream) }?;
        Ok(stream.synchronize()?)
    })
}
