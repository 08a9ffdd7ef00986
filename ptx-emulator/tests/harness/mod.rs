//! Runs one instruction on many operands.
//!
//! A form is an instruction with `{d}` for its result and `{a}`, `{b}`, `{c}`, `{e}` for its operands. Each thread of a kernel built
//! around it takes one tuple of operands. With `PTX_EMULATOR_PTXAS` set to the path of NVIDIA's `ptxas`, every such
//! kernel is assembled as well, so that no test accepts what the real assembler refuses.

#![allow(dead_code)]

pub mod exact;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use ptx_emulator::{Checks, Config, Emulator, LaunchConfig, LaunchError, Module, Report};

/// Up to four operands, in the low bits.
pub type Operands = [u64; 4];

/// One instruction form: its text, and the bits of its result (1 for a predicate) and operands.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    pub text: &'static str,
    pub result: u32,
    pub operands: &'static [u32],
}

pub const HEADER: &str = ".version 9.5\n.target sm_90\n.address_size 64\n";

/// All checks but one.
pub const EACH_CHECK_OFF: [Checks; 4] = {
    let all = Checks::ALL;
    [
        Checks {
            memory: false,
            ..all
        },
        Checks {
            initialization: false,
            ..all
        },
        Checks {
            races: false,
            ..all
        },
        Checks {
            synchronization: false,
            ..all
        },
    ]
};

pub fn parse(ptx: &str) -> Arc<Module> {
    assemble(ptx);
    match Module::parse(ptx) {
        Ok(module) => Arc::new(module),
        Err(error) => panic!("{error}\n{ptx}"),
    }
}

/// Has `ptxas` assemble a text, where there is one.
fn assemble(ptx: &str) {
    static SEEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let Some(ptxas) = std::env::var_os("PTX_EMULATOR_PTXAS") else {
        return;
    };
    if !SEEN.lock().unwrap().insert(ptx.to_owned()) {
        return;
    }
    let output = run_ptxas(&ptxas, ptx);
    assert!(
        output.status.success(),
        "ptxas: {}\n{ptx}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What `ptxas` says of a text.
pub fn run_ptxas(ptxas: &OsStr, ptx: &str) -> Output {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(ptx.as_bytes()).expect("room for a file");
    Command::new(ptxas)
        .args(["-arch=sm_90", "-O0", "-o", "/dev/null"])
        .arg(file.path())
        .output()
        .expect("ptxas runs")
}

pub fn line(threads: u32) -> LaunchConfig {
    LaunchConfig {
        grid: [1, 1, 1],
        block: [threads, 1, 1],
        dynamic_shared: 0,
        cooperative: false,
    }
}

impl Form {
    fn kernel(&self) -> String {
        let mut body = String::new();
        let mut text = self.text.to_owned();
        for (index, &bits) in self.operands.iter().enumerate() {
            let name = ["a", "b", "c", "e"][index];
            writeln!(body, "ld.global.b64 %rd4, [%rd3+{}];", 8 * index).unwrap();
            match bits {
                1 => writeln!(body, "setp.ne.b64 %p_{name}, %rd4, 0;"),
                64 => writeln!(body, "mov.b64 %x_{name}, %rd4;"),
                bits => writeln!(body, "cvt.u{bits}.u64 %x_{name}, %rd4;"),
            }
            .unwrap();
            let register = if bits == 1 {
                writeln!(body, ".reg .pred %p_{name};").unwrap();
                format!("%p_{name}")
            } else {
                writeln!(body, ".reg .b{bits} %x_{name};").unwrap();
                format!("%x_{name}")
            };
            text = text.replace(&format!("{{{name}}}"), &register);
        }
        // Declarations first.
        let (declarations, rest): (Vec<&str>, Vec<&str>) =
            body.lines().partition(|line| line.starts_with(".reg"));
        let (result, store) = match self.result {
            1 => ("%p_d", "selp.b64 %rd5, 1, 0, %p_d;"),
            64 => ("%x_d", "mov.b64 %rd5, %x_d;"),
            32 => ("%x_d", "cvt.u64.u32 %rd5, %x_d;"),
            _ => ("%x_d", "cvt.u64.u16 %rd5, %x_d;"),
        };
        let declare = match self.result {
            1 => ".reg .pred %p_d;".to_owned(),
            bits => format!(".reg .b{bits} %x_d;"),
        };
        let text = text.replace("{d}", result);
        format!(
            "{HEADER}
.visible .entry form(.param .u64 input, .param .u64 output, .param .u32 count)
{{
.reg .pred %p1;
.reg .b32 %r<6>;
.reg .b64 %rd<9>;
{declare}
{}
ld.param.u64 %rd1, [input];
ld.param.u64 %rd2, [output];
ld.param.u32 %r5, [count];
mov.u32 %r1, %tid.x;
mov.u32 %r2, %ctaid.x;
mov.u32 %r3, %ntid.x;
mad.lo.u32 %r4, %r2, %r3, %r1;
setp.ge.u32 %p1, %r4, %r5;
@%p1 exit;
mul.wide.u32 %rd3, %r4, 32;
add.u64 %rd3, %rd1, %rd3;
{}
{text}
{store}
mul.wide.u32 %rd6, %r4, 8;
add.u64 %rd6, %rd2, %rd6;
st.global.b64 [%rd6], %rd5;
ret;
}}
",
            declarations.join("\n"),
            rest.join("\n"),
        )
    }

    /// The result for each tuple of operands.
    pub fn run(&self, operands: &[Operands]) -> Vec<u64> {
        let module = parse(&self.kernel());
        let device = Emulator::new(Config::default());
        let loaded = device.load(&module).unwrap();
        let input = device.alloc(32 * operands.len()).unwrap();
        let output = device.alloc(8 * operands.len()).unwrap();
        let bytes: Vec<u8> = operands
            .iter()
            .flatten()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        device.write(input, &bytes).unwrap();
        let count = operands.len() as u32;
        let shape = LaunchConfig {
            grid: [count.div_ceil(64), 1, 1],
            ..line(64)
        };
        let args: [&[u8]; 3] = [
            &input.to_le_bytes(),
            &output.to_le_bytes(),
            &count.to_le_bytes(),
        ];
        if let Err(error) = device.launch(&loaded, "form", &shape, &args) {
            panic!("{}: {error}", self.text);
        }
        let mut bytes = vec![0; 8 * operands.len()];
        device.read(output, &mut bytes).unwrap();
        bytes
            .chunks_exact(8)
            .map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap()))
            .collect()
    }

    /// Compares results with what a plain function says.
    pub fn check(&self, operands: &[Operands], expected: impl Fn(Operands) -> u64) {
        for (operands, got) in operands.iter().zip(self.run(operands)) {
            let want = expected(*operands);
            assert_eq!(
                got, want,
                "{}: operands {operands:x?} give {got:#x}, expected {want:#x}",
                self.text
            );
        }
    }
}

/// A kernel with buffers and numbers as arguments.
pub struct Bench {
    pub device: Emulator,
    pub module: Arc<Module>,
}

/// An argument of [`Bench::run`].
pub enum Arg<'a> {
    /// A buffer with these bytes at start; read back afterwards.
    Bytes(&'a mut Vec<u8>),
    /// A buffer of 32-bit words.
    Words(&'a mut Vec<u32>),
    /// A new buffer of that many words, none of them written.
    Fresh(&'a mut Vec<u32>),
    U32(u32),
    U64(u64),
}

impl Bench {
    pub fn new(ptx: &str) -> Self {
        Self::with(ptx, Config::default())
    }

    pub fn with(ptx: &str, config: Config) -> Self {
        Self {
            device: Emulator::new(config),
            module: parse(ptx),
        }
    }

    pub fn run(
        &self,
        entry: &str,
        shape: LaunchConfig,
        args: &mut [Arg<'_>],
    ) -> Result<Report, LaunchError> {
        let loaded = self.device.load(&self.module).unwrap();
        let mut packed = Vec::new();
        let mut buffers = Vec::new();
        for arg in args.iter() {
            let bytes = match arg {
                Arg::Bytes(bytes) => (*bytes).clone(),
                Arg::Words(words) | Arg::Fresh(words) => {
                    words.iter().flat_map(|word| word.to_le_bytes()).collect()
                }
                Arg::U32(value) => {
                    packed.push(value.to_le_bytes().to_vec());
                    buffers.push(0);
                    continue;
                }
                Arg::U64(value) => {
                    packed.push(value.to_le_bytes().to_vec());
                    buffers.push(0);
                    continue;
                }
            };
            let address = self.device.alloc(bytes.len()).unwrap();
            if !matches!(arg, Arg::Fresh(_)) {
                self.device.write(address, &bytes).unwrap();
            }
            packed.push(address.to_le_bytes().to_vec());
            buffers.push(address);
        }
        let slices: Vec<_> = packed.iter().map(Vec::as_slice).collect();
        let outcome = self.device.launch(&loaded, entry, &shape, &slices);
        for (arg, address) in args.iter_mut().zip(buffers) {
            match arg {
                Arg::Bytes(bytes) => self.device.read(address, bytes).unwrap(),
                Arg::Words(words) | Arg::Fresh(words) => {
                    let mut bytes = vec![0; 4 * words.len()];
                    self.device.read(address, &mut bytes).unwrap();
                    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
                        *word = u32::from_le_bytes(chunk.try_into().unwrap());
                    }
                }
                Arg::U32(_) | Arg::U64(_) => continue,
            }
            self.device.free(address).unwrap();
        }
        outcome
    }
}

/// Numbers at which integer instructions go wrong, and random ones.
pub fn operand() -> impl proptest::strategy::Strategy<Value = u64> {
    use proptest::prelude::*;
    let near = prop_oneof![
        Just(0u64),
        Just(1),
        Just(1 << 7),
        Just(1 << 8),
        Just(1 << 15),
        Just(1 << 16),
        Just(1 << 23),
        Just(1 << 24),
        Just(1 << 31),
        Just(1 << 32),
        Just(1 << 63),
        Just(u64::MAX),
    ];
    prop_oneof![
        (near, -2i64..3).prop_map(|(base, offset)| base.wrapping_add_signed(offset)),
        0u64..70,
        any::<u64>(),
        any::<u32>().prop_map(|bits| u64::from(bits) << 32 | u64::from(bits)),
        any::<i32>().prop_map(|value| i64::from(value) as u64),
    ]
}

/// Many tuples of operands.
pub fn many() -> impl proptest::strategy::Strategy<Value = Vec<Operands>> {
    proptest::collection::vec([operand(), operand(), operand(), operand()], 96)
}
