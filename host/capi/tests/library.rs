//! `libbitnet.so` as programs use it that were not made with Rust: what it exports, the C program in `tests/c`, and a call as
//! Python's `ctypes` makes it.
//!
//! With `BITNET_TEST_DEVICE=cuda` the C program runs on the GPU as well, and the call on whatever `auto` is.

mod machine;

use std::collections::BTreeSet;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::process::Command;
use std::ptr;

use bitnet_cuda::layout::{Layout, PackedWeights};
use bitnet_cuda::reference::RowScales;
use bitnet_cuda::reference::linear::{Epilogue, Shape, accumulate, epilogue};
use half::bf16;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW, Symbol};
use machine::{
    HEADER, c_program, compile, fake_driver, library, output, run, valgrind, write_source,
};

#[test]
fn it_exports_what_the_header_declares_and_nothing_else() {
    let listed = output(
        Command::new("nm")
            .args(["--dynamic", "--defined-only", "--format=posix"])
            .arg(library()),
    );
    let exported: BTreeSet<&str> = listed
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    let declared: BTreeSet<&str> = HEADER
        .lines()
        .filter(|line| !line.starts_with([' ', '/', '#', '}']) && !line.starts_with("typedef"))
        .filter_map(|line| line.split_once('(')?.0.rsplit([' ', '*']).next())
        .collect();
    assert!(
        declared.contains("bitnet_linear_forward") && declared.contains("bitlinear_int8xint2"),
        "{declared:?}"
    );
    assert_eq!(exported, declared);
}

#[test]
fn the_header_is_c99_and_cpp() {
    for (language, standard) in [("c", "-std=c99"), ("c++", "-std=c++11")] {
        // Which languages `cc` knows is the machine's affair; C it has to.
        let known = Command::new("cc")
            .args(["-x", language, "-E", "/dev/null"])
            .output()
            .unwrap()
            .status
            .success();
        if language == "c" || known {
            run(Command::new("cc")
                .args([
                    "-x",
                    language,
                    standard,
                    "-pedantic",
                    "-Wall",
                    "-Wextra",
                    "-Werror",
                    "-fsyntax-only",
                ])
                .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/include/bitnet.h")));
        }
    }
}

#[test]
fn the_c_program_passes_on_the_emulator() {
    run(Command::new(c_program())
        .arg("emulated")
        .env("CUST_LAZY_LIBCUDA", "no-such-libcuda.so"));
}

#[test]
fn the_c_program_passes_on_the_test_double_of_the_driver() {
    run(Command::new(c_program())
        .arg("cuda")
        .env("CUST_LAZY_LIBCUDA", fake_driver()));
}

#[test]
fn the_c_program_passes_on_the_gpu() {
    let gpu = std::env::var("BITNET_TEST_DEVICE").is_ok_and(|device| device.starts_with("cuda"));
    if gpu && std::env::var_os("CUST_LAZY_LIBCUDA").is_none() {
        run(Command::new(c_program()).arg("cuda"));
    } else {
        eprintln!("skipped: BITNET_TEST_DEVICE=cuda asks for it");
    }
}

#[test]
fn the_program_in_the_documentation_runs() {
    let documentation = include_str!("../../../docs/c.md");
    let (_, program) = documentation.split_once("```c\n").unwrap();
    let program = compile(
        "documentation",
        &[write_source(
            "documentation.c",
            program.split_once("```").unwrap().0,
        )],
    );
    let printed = output(Command::new(program).env("CUST_LAZY_LIBCUDA", "no-such-libcuda.so"));
    // Ternary rows (1, -1, 0, 1) and (-1, -1, 1, 0), scale 0.375, on (1, 2, 3, -4) up to the rounding of int8.
    let y: Vec<f32> = printed
        .split_whitespace()
        .map(|y| y.parse().unwrap())
        .collect();
    assert!(
        (y[0] + 5.0 * 0.375).abs() < 0.02 && y[1].abs() < 0.02,
        "{printed}"
    );
}

#[test]
fn a_layer_of_a_closed_device_takes_memory_of_the_next_handle() {
    let program = r#"
        #include "bitnet.h"
        #include <stdio.h>
        #define CALL(call) do { if (call) { puts(bitnet_last_error()); return 1; } } while (0)
        int main(void) {
            const float weights[4] = {1, 1, 1, 1}, x[4] = {1, 2, 3, 4};
            float y = 0;
            void *x_device, *y_device;
            bitnet_device *device;
            bitnet_linear *layer;
            CALL(bitnet_device_open("emulated", &device));
            CALL(bitnet_linear_create(device, weights, 1, 4, NULL, &layer));
            CALL(bitnet_device_close(device));
            CALL(bitnet_device_open("emulated", &device));
            CALL(bitnet_alloc(device, sizeof y, &y_device));
            CALL(bitnet_alloc(device, sizeof x, &x_device));
            CALL(bitnet_copy_to_device(device, x_device, x, sizeof x, NULL));
            CALL(bitnet_linear_forward(layer, x_device, BITNET_F32, 1, y_device, BITNET_F32, NULL));
            CALL(bitnet_copy_to_host(device, &y, y_device, sizeof y, NULL));
            CALL(bitnet_linear_destroy(layer));
            CALL(bitnet_device_close(device));
            printf("%g\n", y);
            return 0;
        }"#;
    let program = compile("reopened", &[write_source("reopened.c", program)]);
    let printed = output(Command::new(program).env("CUST_LAZY_LIBCUDA", "no-such-libcuda.so"));
    // 10 up to the rounding of int8.
    let y: f32 = printed.trim().parse().unwrap();
    assert!((y - 10.0).abs() < 0.1, "{printed}");
}

#[cfg(target_os = "linux")]
#[test]
fn an_error_that_cannot_be_printed_does_not_end_the_program() {
    let program = "#include \"bitnet.h\"\n
        int main(void) { bitlinear_int8xint2(0, 0, 0, 0, 0, 1, 0, 1, 0); return 7; }\n";
    let program = compile("full_stderr", &[write_source("full_stderr.c", program)]);
    let full = std::fs::File::options().write(true).open("/dev/full");
    let status = Command::new(program).stderr(full.unwrap()).status();
    assert_eq!(status.unwrap().code(), Some(7));
}

#[test]
fn valgrind_finds_neither_errors_nor_leaks() {
    let Some(mut valgrind) = valgrind() else {
        return;
    };
    run(valgrind
        .arg(c_program())
        .args(["emulated", "small"])
        .env("CUST_LAZY_LIBCUDA", "no-such-libcuda.so"));
}

type Bitlinear = unsafe extern "C" fn(
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    c_int,
    c_int,
    c_int,
    *mut c_void,
);

/// The functions that the test below takes from the library, looked up by name.
struct Loaded {
    library: Library,
    device: *mut c_void,
}

impl Loaded {
    fn new() -> Self {
        // SAFETY: the library's initializers are Rust's own. `RTLD_LOCAL` is what `ctypes.CDLL` passes.
        let library = unsafe { Library::open(Some(library()), RTLD_NOW | RTLD_LOCAL) }.unwrap();
        let mut loaded = Self {
            library,
            device: ptr::null_mut(),
        };
        let mut device = ptr::null_mut();
        // SAFETY: the header's signature.
        let status = unsafe {
            let open = loaded
                .get::<unsafe extern "C" fn(*const c_char, *mut *mut c_void) -> c_int>(
                    "bitnet_device_open",
                );
            open(c"auto".as_ptr(), &mut device)
        };
        loaded.succeeded(status);
        loaded.device = device;
        loaded
    }

    /// # Safety
    /// `T` is the function's type.
    unsafe fn get<T>(&self, name: &str) -> Symbol<T> {
        // SAFETY: the caller's contract.
        unsafe { self.library.get(name) }.unwrap()
    }

    fn succeeded(&self, status: c_int) {
        // SAFETY: the header's signature; the string is valid until the next call.
        let message = unsafe {
            let last_error = self.get::<extern "C" fn() -> *const c_char>("bitnet_last_error");
            CStr::from_ptr(last_error())
        };
        assert!(status == 0 && message.is_empty(), "{message:?}");
    }

    fn upload<T: bytemuck::Pod>(&self, host: &[T]) -> *mut c_void {
        type Alloc = unsafe extern "C" fn(*mut c_void, i64, *mut *mut c_void) -> c_int;
        type Copy = unsafe extern "C" fn(
            *mut c_void,
            *mut c_void,
            *const c_void,
            i64,
            *mut c_void,
        ) -> c_int;
        let (bytes, mut pointer) = (size_of_val(host) as i64, ptr::null_mut());
        // SAFETY: the header's signatures; the slice outlives the copy.
        unsafe {
            self.succeeded(self.get::<Alloc>("bitnet_alloc")(
                self.device,
                bytes,
                &mut pointer,
            ));
            let copy = self.get::<Copy>("bitnet_copy_to_device");
            self.succeeded(copy(
                self.device,
                pointer,
                host.as_ptr().cast(),
                bytes,
                ptr::null_mut(),
            ));
        }
        pointer
    }

    fn download(&self, pointer: *const c_void, len: usize) -> Vec<bf16> {
        type Copy = unsafe extern "C" fn(
            *mut c_void,
            *mut c_void,
            *const c_void,
            i64,
            *mut c_void,
        ) -> c_int;
        let mut host = vec![bf16::NAN; len];
        // SAFETY: the header's signature; the vector outlives the copy.
        unsafe {
            let copy = self.get::<Copy>("bitnet_copy_to_host");
            let bytes = size_of_val(host.as_slice()) as i64;
            self.succeeded(copy(
                self.device,
                host.as_mut_ptr().cast(),
                pointer,
                bytes,
                ptr::null_mut(),
            ));
        }
        host
    }
}

#[test]
fn a_call_as_from_ctypes_is_the_reference_bit_for_bit() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let loaded = Loaded::new();
    for (m, n, k, groups) in [
        (1, 3840, 2560, 3),
        (2, 3840, 2560, 3),
        (1, 2560, 2560, 1),
        (5, 47, 129, 1),
        (1, 1, 3, 1),
    ] {
        let ternary: Vec<i8> = (0..n * k).map(|_| random.i8(-1..=1)).collect();
        let a: Vec<i8> = (0..m * k).map(|_| random.i8(..)).collect();
        let mut floats = |len| {
            (0..len)
                .map(|_| bf16::from_f32(random.f32() * 100.0 + 0.1))
                .collect::<Vec<_>>()
        };
        let (s, ws) = (floats(m), floats(groups));
        let w = PackedWeights::pack(Layout::Ladder, &ternary, n, k).unwrap();

        let [a_device, w_device] = [loaded.upload(&a), loaded.upload(w.bytes())];
        let [s_device, ws_device] = [loaded.upload(&s), loaded.upload(&ws)];
        let out = loaded.upload(&vec![bf16::NAN; m * n]);
        let [m_c, n_c, k_c] = [m, n, k].map(|size| size as c_int);
        // SAFETY: Microsoft's signature; arrays of the sizes passed.
        unsafe {
            let bitlinear = loaded.get::<Bitlinear>("bitlinear_int8xint2");
            bitlinear(
                a_device,
                w_device,
                out,
                s_device,
                ws_device,
                m_c,
                n_c,
                k_c,
                ptr::null_mut(),
            );
        }
        loaded.succeeded(0);

        let ranges: Vec<_> = ws
            .iter()
            .enumerate()
            .map(|(i, ws)| ((i + 1) * n / groups, ws.to_f32()))
            .collect();
        let expected: Vec<bf16> = epilogue(
            &accumulate(&a, &ternary, Shape { m, n, k }).unwrap(),
            m,
            n,
            &Epilogue {
                activation_scales: &s.iter().map(|s| s.to_f32()).collect::<Vec<_>>(),
                row_scales: &RowScales::from_ranges(n, &ranges).unwrap(),
                bias: None,
                residual: None,
            },
        )
        .unwrap();
        assert_eq!(loaded.download(out, m * n), expected, "{m} x {n} x {k}");
    }
}
