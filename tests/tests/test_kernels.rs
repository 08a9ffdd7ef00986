//! The kernels that nvcc compiled for the emulator's tests, on the driver's GPU and in the emulator: the same PTX on the same random
//! input, compared bit for bit.
//!
//! `BITNET_TEST_DEVICE=cuda cargo test -p integration-tests test_kernels -- --nocapture` runs it on a GPU; without that, the
//! double of the driver stands for one. What differs is printed, kernel by kernel.

use std::env;
use std::ffi::{CString, c_int, c_void};
use std::ptr::null_mut;
use std::sync::Arc;

use cust_lazy::ffi;
use half::f16;
use integration_tests::random;
use ptx_emulator::{Config, Emulator, LaunchConfig, Module};

/// A kernel's argument.
enum Arg {
    /// A buffer with these bytes, compared afterwards.
    Buffer(Vec<u8>),
    U32(u32),
}

struct Case {
    ptx: &'static str,
    entry: &'static str,
    grid: [u32; 3],
    block: [u32; 3],
    cooperative: bool,
    args: Vec<Arg>,
    /// Whether the order of the words in its first output is free.
    any_order: bool,
}

macro_rules! ptx {
    ($name:literal) => {
        include_str!(concat!("../../ptx-emulator/tests/cuda/", $name, ".ptx"))
    };
}

impl Case {
    fn new(ptx: &'static str, entry: &'static str, grid: u32, block: u32, args: Vec<Arg>) -> Self {
        Self {
            ptx,
            entry,
            grid: [grid, 1, 1],
            block: [block, 1, 1],
            cooperative: false,
            args,
            any_order: false,
        }
    }
}

/// Bytes that no kernel leaves by chance.
fn output(words: usize) -> Arg {
    Arg::Buffer(vec![0xa5; 4 * words])
}

fn words(words: impl IntoIterator<Item = u32>) -> Arg {
    Arg::Buffer(words.into_iter().flat_map(u32::to_le_bytes).collect())
}

/// Floats from -8 to 8, small integers among them: sums of products are exact in any order.
fn integers(random: &mut fastrand::Rng, count: usize) -> Arg {
    words((0..count).map(|_| (random.i32(-8..=8) as f32).to_bits()))
}

/// The same as 16-bit floats, two in a word.
fn half_integers(random: &mut fastrand::Rng, count: usize) -> Arg {
    let mut half = || u32::from(f16::from_f32(random.i32(-8..=8) as f32).to_bits());
    words(
        (0..count / 2)
            .map(|_| half() | half() << 16)
            .collect::<Vec<_>>(),
    )
}

fn cases(random: &mut fastrand::Rng) -> Vec<Case> {
    let bits = |random: &mut fastrand::Rng, count: usize| {
        words(
            std::iter::repeat_with(|| random.u32(..))
                .take(count)
                .collect::<Vec<_>>(),
        )
    };
    let n = 3000;
    let mut cases = vec![
        Case::new(
            ptx!("reduction"),
            "block_sums",
            7,
            128,
            vec![bits(random, n), output(7), Arg::U32(n as u32)],
        ),
        Case::new(
            ptx!("reduction"),
            "last_block_sum",
            7,
            128,
            vec![bits(random, n), output(7), output(1), Arg::U32(n as u32)],
        ),
        Case::new(
            ptx!("scan"),
            "inclusive_scan",
            4,
            256,
            vec![bits(random, 1024), output(1024)],
        ),
        Case::new(
            ptx!("histogram"),
            "histogram",
            3,
            96,
            vec![bits(random, n), words([0; 256]), Arg::U32(4 * n as u32)],
        ),
        Case {
            any_order: true,
            ..Case::new(
                ptx!("filter"),
                "filter_even",
                24,
                128,
                vec![bits(random, n), output(n), words([0]), Arg::U32(n as u32)],
            )
        },
        Case {
            cooperative: true,
            ..Case::new(
                ptx!("grid_barrier"),
                "ring_steps",
                5,
                64,
                vec![bits(random, 320), output(320), Arg::U32(4)],
            )
        },
        Case {
            grid: [3, 3, 1],
            block: [16, 16, 1],
            ..Case::new(
                ptx!("matmul"),
                "matmul",
                1,
                1,
                vec![
                    bits(random, 1600),
                    bits(random, 1600),
                    output(1600),
                    Arg::U32(40),
                ],
            )
        },
        Case::new(
            ptx!("half2"),
            "half2_arithmetic",
            4,
            64,
            vec![
                bits(random, 256),
                bits(random, 256),
                bits(random, 256),
                output(7 * 256),
                Arg::U32(256),
            ],
        ),
        Case::new(
            ptx!("bf16"),
            "bf16_pairs",
            4,
            64,
            vec![
                bits(random, 256),
                bits(random, 256),
                output(3 * 256),
                Arg::U32(256),
            ],
        ),
        Case::new(
            ptx!("bf16"),
            "bf16_dot",
            1,
            64,
            vec![
                bits(random, 256),
                bits(random, 256),
                output(32),
                output(64),
                Arg::U32(64),
            ],
        ),
        Case::new(
            ptx!("mma_s8"),
            "mma_s8",
            1,
            32,
            vec![
                bits(random, 16 * 32),
                bits(random, 8 * 32),
                output(128),
                Arg::U32(128),
            ],
        ),
        Case::new(
            ptx!("mma_f16"),
            "mma_f16",
            1,
            32,
            vec![
                half_integers(random, 16 * 64),
                half_integers(random, 8 * 64),
                output(128),
                Arg::U32(64),
            ],
        ),
        Case::new(
            ptx!("pipeline"),
            "pipeline",
            2,
            128,
            vec![
                integers(random, 700),
                output(700),
                Arg::U32(700),
                Arg::U32(3),
            ],
        ),
        Case::new(
            ptx!("recursion"),
            "recursion",
            2,
            32,
            vec![output(120), Arg::U32(60)],
        ),
    ];
    for entry in ["transpose_padded", "transpose_unpadded"] {
        cases.push(Case {
            grid: [3, 2, 1],
            block: [32, 8, 1],
            ..Case::new(
                ptx!("transpose"),
                entry,
                1,
                1,
                vec![
                    bits(random, 96 * 64),
                    output(96 * 64),
                    Arg::U32(96),
                    Arg::U32(64),
                ],
            )
        });
    }
    cases
}

/// The buffers of a case after its launch in the emulator.
fn emulated(case: &Case) -> Vec<Vec<u8>> {
    let device = Emulator::new(Config::default());
    let loaded = device
        .load(&Arc::new(Module::parse(case.ptx).unwrap()))
        .unwrap();
    let mut packed = Vec::new();
    let mut buffers = Vec::new();
    for arg in &case.args {
        match arg {
            Arg::Buffer(bytes) => {
                let address = device.alloc(bytes.len()).unwrap();
                device.write(address, bytes).unwrap();
                buffers.push((address, bytes.len()));
                packed.push(address.to_le_bytes().to_vec());
            }
            Arg::U32(value) => packed.push(value.to_le_bytes().to_vec()),
        }
    }
    let shape = LaunchConfig {
        grid: case.grid,
        block: case.block,
        dynamic_shared: 0,
        cooperative: case.cooperative,
    };
    let slices: Vec<_> = packed.iter().map(Vec::as_slice).collect();
    if let Err(error) = device.launch(&loaded, case.entry, &shape, &slices) {
        panic!("{}: {error}", case.entry);
    }
    let read = |(address, bytes): (u64, usize)| {
        let mut out = vec![0; bytes];
        device.read(address, &mut out).unwrap();
        out
    };
    buffers.into_iter().map(read).collect()
}

/// Panics with the driver's code where a call failed.
#[track_caller]
fn done(call: &str, code: c_int) {
    assert_eq!(code, 0, "{call} failed with the driver's error {code}");
}

/// The first GPU's primary context, current on this thread.
fn open_gpu() {
    let real = env::var("BITNET_TEST_DEVICE").is_ok_and(|device| device.starts_with("cuda"));
    if real {
        cust_lazy::load().expect("the driver loads");
    } else {
        let double = env::current_exe()
            .unwrap()
            .with_file_name("libfake_libcuda.so");
        cust_lazy::load_from(double).expect("the double of the driver loads");
    }
    let mut context = null_mut();
    // SAFETY: the pointer is to a local; ordinal 0 is checked by the driver.
    unsafe {
        done("cuInit", ffi::cuInit(0));
        done(
            "cuDevicePrimaryCtxRetain",
            ffi::cuDevicePrimaryCtxRetain(&mut context, 0),
        );
        done("cuCtxSetCurrent", ffi::cuCtxSetCurrent(context));
        // No compiler knows how deep `recursion` goes, and beyond the driver's 1 KiB a thread it would overwrite what it finds.
        const STACK_SIZE: c_int = 0;
        done("cuCtxSetLimit", ffi::cuCtxSetLimit(STACK_SIZE, 4 << 10));
    }
}

/// The text as a driver of CUDA 12.0 takes it. nvcc puts its own version of the PTX ISA into the file, which drivers that are older than nvcc
/// refuse, whatever is in the rest; the kernels here use no instruction that is newer.
fn for_older_drivers(ptx: &str) -> String {
    let (before, after) = ptx.split_once(".version ").expect("PTX has a version");
    let (_, after) = after.split_once('\n').expect("the version ends its line");
    format!("{before}.version 8.0\n{after}")
}

/// The buffers of a case after its launch on the driver's GPU.
fn on_the_gpu(case: &Case) -> Vec<Vec<u8>> {
    let text = CString::new(for_older_drivers(case.ptx)).unwrap();
    let entry = CString::new(case.entry).unwrap();
    let (mut module, mut function) = (null_mut(), null_mut());
    // SAFETY: the text and the name end in NUL, the other pointers are to locals; no options are given.
    unsafe {
        let image = text.as_ptr().cast();
        let code = ffi::cuModuleLoadDataEx(&mut module, image, 0, null_mut(), null_mut());
        done("cuModuleLoadDataEx", code);
        let code = ffi::cuModuleGetFunction(&mut function, module, entry.as_ptr());
        done("cuModuleGetFunction", code);
    }
    let mut values: Vec<u64> = Vec::new();
    for arg in &case.args {
        values.push(match arg {
            Arg::U32(value) => u64::from(*value),
            Arg::Buffer(bytes) => {
                let mut address = 0;
                // SAFETY: the copy is of the buffer's length, from memory that outlives the synchronisation below.
                unsafe {
                    done("cuMemAlloc", ffi::cuMemAlloc_v2(&mut address, bytes.len()));
                    let from = bytes.as_ptr().cast();
                    let code = ffi::cuMemcpyHtoDAsync_v2(address, from, bytes.len(), null_mut());
                    done("cuMemcpyHtoDAsync", code);
                }
                address
            }
        });
    }
    // A value of 4 bytes is the low half of its 8.
    let mut pointers: Vec<*mut c_void> = values
        .iter_mut()
        .map(|value| std::ptr::from_mut(value).cast())
        .collect();
    let ([x, y, z], [bx, by, bz]) = (case.grid, case.block);
    let (stream, params) = (null_mut(), pointers.as_mut_ptr());
    // SAFETY: the kernel has these parameters (the emulator checks their number and sizes on the same text), and its buffers the
    // lengths that it accesses (the emulator finds any access beyond them).
    let code = unsafe {
        if case.cooperative {
            ffi::cuLaunchCooperativeKernel(function, x, y, z, bx, by, bz, 0, stream, params)
        } else {
            ffi::cuLaunchKernel(function, x, y, z, bx, by, bz, 0, stream, params, null_mut())
        }
    };
    done("cuLaunchKernel", code);
    let mut outputs = Vec::new();
    for (arg, &address) in case.args.iter().zip(&values) {
        if let Arg::Buffer(bytes) = arg {
            let mut out = vec![0; bytes.len()];
            // SAFETY: the copy is of the buffer's length, into memory that outlives the synchronisation.
            unsafe {
                let to = out.as_mut_ptr().cast();
                let code = ffi::cuMemcpyDtoHAsync_v2(to, address, bytes.len(), null_mut());
                done("cuMemcpyDtoHAsync", code);
                done("cuCtxSynchronize", ffi::cuCtxSynchronize());
                done("cuMemFree", ffi::cuMemFree_v2(address));
            }
            outputs.push(out);
        }
    }
    // SAFETY: all work with the module is done.
    done("cuModuleUnload", unsafe { ffi::cuModuleUnload(module) });
    outputs
}

/// The words of a buffer in ascending order.
fn sort_words(bytes: &mut [u8]) {
    let mut words: Vec<[u8; 4]> = bytes
        .chunks_exact(4)
        .map(|word| word.try_into().unwrap())
        .collect();
    words.sort_unstable();
    bytes.copy_from_slice(words.as_flattened());
}

/// What differs between two lists of buffers, in a line for each buffer.
fn differences(found: &[Vec<u8>], expected: &[Vec<u8>]) -> Vec<String> {
    assert_eq!(found.len(), expected.len());
    let mut lines = Vec::new();
    for (buffer, (found, expected)) in found.iter().zip(expected).enumerate() {
        let unequal: Vec<_> = (0..expected.len())
            .filter(|&at| found[at] != expected[at])
            .collect();
        if let Some(&first) = unequal.first() {
            lines.push(format!(
                "buffer {buffer}: {} of {} bytes differ, the first is byte {first}: {:#04x} on the GPU, {:#04x} in the emulator",
                unequal.len(),
                expected.len(),
                found[first],
                expected[first]
            ));
        }
    }
    lines
}

#[test]
fn every_kernel_gives_the_same_bits_on_the_gpu_and_in_the_emulator() {
    open_gpu();
    let mut differing = Vec::new();
    for case in cases(&mut random()) {
        let (mut gpu, mut emulator) = (on_the_gpu(&case), emulated(&case));
        if case.any_order {
            sort_words(&mut gpu[1]);
            sort_words(&mut emulator[1]);
        }
        let lines = differences(&gpu, &emulator);
        println!(
            "{}: {}",
            case.entry,
            if lines.is_empty() {
                "same"
            } else {
                "DIFFERENT"
            }
        );
        lines.iter().for_each(|line| println!("    {line}"));
        if !lines.is_empty() {
            differing.push(case.entry);
        }
        // A kernel that did nothing would compare equal.
        let before = case.args.iter().filter_map(|arg| match arg {
            Arg::Buffer(bytes) => Some(bytes),
            Arg::U32(_) => None,
        });
        assert!(
            before.zip(&emulator).any(|(before, after)| before != after),
            "{}",
            case.entry
        );
    }
    assert!(differing.is_empty(), "{differing:?}");
}

#[test]
fn a_flipped_bit_is_reported() {
    let lines = differences(&[vec![1, 2, 3], vec![7]], &[vec![1, 6, 2], vec![7]]);
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].starts_with("buffer 0: 2 of 3 bytes differ, the first is byte 1: 0x02"),
        "{}",
        lines[0]
    );
}
