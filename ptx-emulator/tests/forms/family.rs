//! Instructions run on many operands, and their results judged.

use std::fmt::Write as _;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use ptx_emulator::{Config, Emulator, LaunchConfig};

use super::harness::{HEADER, Operands, parse};
use super::syntax::{Form, expand};

/// Threads of the kernel, one for each tuple of operands: two warps.
pub const THREADS: usize = 64;

/// Forms in one kernel.
const BATCH: usize = 96;

/// What the standard kernel of [`kernel`] declares for every thread beside its tuple: addresses of 64 bytes of its own, aligned to 64.
const SPACES: &str = "
.reg .b32 %shared, %local;
.reg .b64 %global, %shared_generic, %local_generic;
";

/// What calls call, a function a line.
const FUNCTIONS: &str = "
.global .align 4 .b32 noted[64];
.func (.param .b32 y) twice(.param .b32 x) { .reg .b32 %r; ld.param.b32 %r, [x]; mul.lo.u32 %r, %r, 2; st.param.b32 [y], %r; ret; }
.func (.param .b32 y) thrice(.param .b32 x) { .reg .b32 %r; ld.param.b32 %r, [x]; mul.lo.u32 %r, %r, 3; st.param.b32 [y], %r; ret; }
.func (.param .b32 y) seven() { .reg .b32 %r; mov.b32 %r, 7; st.param.b32 [y], %r; ret; }
.func store(.param .b64 place, .param .b32 x) { .reg .b32 %r; .reg .b64 %rd; ld.param.b32 %r, [x]; ld.param.b64 %rd, [place]; st.global.b32 [%rd], %r; ret; }
.func (.param .align 16 .b8 y[16]) same(.param .align 16 .b8 x[16]) { .reg .b64 %rd<2>; ld.param.v2.b64 {%rd0, %rd1}, [x]; st.param.v2.b64 [y], {%rd0, %rd1}; ret; }
.func (.reg .b32 y) reduced(.reg .b32 x, .reg .b64 by) { .reg .pred %p; .reg .b32 %r; cvt.u32.u64 %r, by; setp.lt.u32 %p, x, %r; mov.b32 y, 0; @%p ret; sub.u32 y, x, %r; ret; }
.func note() { .reg .b32 %r; .reg .b64 %rd; mov.u32 %r, %tid.x; mov.u64 %rd, noted; mad.wide.u32 %rd, %r, 4, %rd; add.u32 %r, %r, 100; st.global.b32 [%rd], %r; ret; }
";

/// What the standard kernel has in the constant `constants`, and in its parameter `block`.
pub fn fixed_bytes() -> [u8; 64] {
    std::array::from_fn(|index| (37 * index + 11) as u8)
}

/// An instruction among those that bring its operands and store its results.
pub struct Code {
    /// `{a}`, `{b}`, `{c}`, `{e}` are operands, `{d}`, `{d1}`, `{d2}`, `{d3}` results, `{form}` the instruction's name with its modifiers,
    /// `{input}` the address of the operands in global memory.
    text: String,
    /// Bits of results and operands; 1 is a predicate.
    results: Vec<u32>,
    operands: Vec<u32>,
}

const OPERANDS: [&str; 4] = ["a", "b", "c", "e"];
const RESULTS: [&str; 4] = ["d", "d1", "d2", "d3"];

impl Code {
    pub fn new(text: impl Into<String>, results: &[u32], operands: &[u32]) -> Self {
        Self {
            text: text.into(),
            results: results.to_vec(),
            operands: operands.to_vec(),
        }
    }

    /// The registers of a scope, and the instruction, for the `index`th form of a kernel.
    fn parts(&self, form: &Form, index: usize) -> (String, String) {
        let mut registers = String::new();
        let input = format!("%input+{}", 32 * THREADS * index);
        let text = self.text.replace("{input}", &input);
        let mut text = text.replace("{form}", &form.to_string());
        let names = RESULTS
            .iter()
            .zip(&self.results)
            .chain(OPERANDS.iter().zip(&self.operands));
        for (name, bits) in names {
            match bits {
                1 => writeln!(registers, ".reg .pred %{name};"),
                bits => writeln!(registers, ".reg .b{bits} %{name};"),
            }
            .unwrap();
            text = text.replace(&format!("{{{name}}}"), &format!("%{name}"));
        }
        (registers, text)
    }

    /// A scope around the instruction, for the `index`th form of a kernel.
    fn scope(&self, form: &Form, index: usize) -> String {
        let (registers, text) = self.parts(form, index);
        let mut scope = format!("{{\n{registers}");
        for (place, (name, bits)) in OPERANDS.iter().zip(&self.operands).enumerate() {
            let at = 32 * THREADS * index + 8 * place;
            writeln!(scope, "ld.global.b64 %wide, [%input+{at}];").unwrap();
            match bits {
                1 => writeln!(scope, "setp.ne.b64 %{name}, %wide, 0;"),
                64 => writeln!(scope, "mov.b64 %{name}, %wide;"),
                bits => writeln!(scope, "cvt.u{bits}.u64 %{name}, %wide;"),
            }
            .unwrap();
        }
        writeln!(scope, "{text}").unwrap();
        for (place, (name, bits)) in RESULTS.iter().zip(&self.results).enumerate() {
            let at = 32 * THREADS * index + 8 * place;
            match bits {
                1 => writeln!(scope, "selp.b64 %wide, 1, 0, %{name};"),
                64 => writeln!(scope, "mov.b64 %wide, %{name};"),
                bits => writeln!(scope, "cvt.u64.u{bits} %wide, %{name};"),
            }
            .unwrap();
            writeln!(scope, "st.global.b64 [%output+{at}], %wide;").unwrap();
        }
        scope.push_str("}\n");
        scope
    }
}

/// A kernel with one scope for each form.
pub fn kernel(scopes: &str) -> String {
    declared(&format!(
        "mov.u32 %thread, %tid.x;
ld.param.u64 %input, [inputs];
mad.wide.u32 %input, %thread, 32, %input;
ld.param.u64 %output, [outputs];
mad.wide.u32 %output, %thread, 32, %output;
ld.param.u64 %global, [scratch];
mad.wide.u32 %global, %thread, 64, %global;
mov.u32 %shared, tile;
mad.lo.u32 %shared, %thread, 64, %shared;
cvt.u64.u32 %shared_generic, %shared;
cvta.shared.u64 %shared_generic, %shared_generic;
mov.u32 %local, own;
cvt.u64.u32 %local_generic, %local;
cvta.local.u64 %local_generic, %local_generic;
{scopes}"
    ))
}

/// What [`kernel`] declares, functions where there are calls, and then some text.
pub fn declared(text: &str) -> String {
    let functions = if text.contains("call") { FUNCTIONS } else { "" };
    let constants = fixed_bytes().map(|byte| byte.to_string()).join(", ");
    format!(
        "{HEADER}{functions}
.const .align 16 .b8 constants[64] = {{{constants}}};
.visible .entry forms(.param .u64 inputs, .param .u64 outputs, .param .u64 scratch, .param .align 16 .b8 block[64])
{{
.shared .align 64 .b8 tile[{tile}];
.local .align 64 .b8 own[64];
.reg .b32 %thread;
.reg .b64 %input, %output, %wide;
{SPACES}
{text}
ret;
}}
",
        tile = 64 * THREADS
    )
}

/// Whether one form's results, a tuple for each thread, are right: `Err` says what is not.
type Judge = dyn Fn(&Form, &[Operands], &[Operands]) -> Result<(), String>;

/// A tuple of operands for each thread.
type Inputs = dyn Fn(&Form) -> Vec<Operands>;

/// Forms with one syntax and one meaning.
pub struct Family {
    pub syntax: &'static str,
    code: Box<dyn Fn(&Form) -> Code>,
    check: Check,
}

enum Check {
    /// Many forms in one kernel, on the inputs of each.
    Values {
        inputs: Box<Inputs>,
        judge: Box<Judge>,
    },
    /// Each form by itself, in a kernel that is made for it.
    Apart(Box<dyn Fn(&Form)>),
}

impl Family {
    pub fn new(
        syntax: &'static str,
        code: impl Fn(&Form) -> Code + 'static,
        inputs: impl Fn(&Form) -> Vec<Operands> + 'static,
        judge: impl Fn(&Form, &[Operands], &[Operands]) -> Result<(), String> + 'static,
    ) -> Self {
        Self {
            syntax,
            code: Box::new(code),
            check: Check::Values {
                inputs: Box::new(inputs),
                judge: Box::new(judge),
            },
        }
    }

    /// Forms whose results do not fit in four registers of a thread, or that end the kernel. `code` is for the loader and `ptxas` only.
    pub fn apart(
        syntax: &'static str,
        code: impl Fn(&Form) -> Code + 'static,
        check: impl Fn(&Form) + 'static,
    ) -> Self {
        Self {
            syntax,
            code: Box::new(code),
            check: Check::Apart(Box::new(check)),
        }
    }

    pub fn forms(&self) -> Vec<Form> {
        expand(self.syntax)
    }

    /// What is before and behind the name of one form by itself, for [`declared`]: nothing brings its operands.
    pub fn around(&self, form: &Form) -> (String, String) {
        let mut code = (self.code)(form);
        let (before, behind) = code.text.split_once("{form}").expect("a form's name");
        let behind = behind.to_owned();
        code.text = before.to_owned();
        let (registers, before) = code.parts(form, 0);
        code.text = behind;
        let (_, behind) = code.parts(form, 0);
        (
            format!("{{\n{registers}{before}"),
            format!("{behind}\n}}\n"),
        )
    }

    /// Runs every form and compares.
    pub fn check(&self) {
        match &self.check {
            Check::Apart(check) => self.forms().iter().for_each(check),
            Check::Values { inputs, judge } => {
                for forms in self.forms().chunks(BATCH) {
                    self.check_batch(forms, inputs, judge);
                }
            }
        }
    }

    fn check_batch(&self, forms: &[Form], inputs: &Inputs, judge: &Judge) {
        let scopes: String = forms
            .iter()
            .enumerate()
            .map(|(index, form)| (self.code)(form).scope(form, index))
            .collect();
        let inputs: Vec<Operands> = forms
            .iter()
            .flat_map(|form| {
                let inputs = inputs(form);
                assert_eq!(inputs.len(), THREADS, "{form}");
                inputs
            })
            .collect();
        let outputs = launch(&kernel(&scopes), &inputs);
        for (index, form) in forms.iter().enumerate() {
            let own = THREADS * index..THREADS * (index + 1);
            if let Err(error) = judge(form, &inputs[own.clone()], &outputs[own]) {
                panic!("{form}: {error}");
            }
        }
    }
}

/// Four results for each thread and form; those that a form lacks are 0.
fn launch(ptx: &str, inputs: &[Operands]) -> Vec<Operands> {
    let module = parse(ptx);
    let device = Emulator::new(Config::default());
    let loaded = device.load(&module).unwrap();
    let bytes: Vec<u8> = inputs
        .iter()
        .flatten()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let buffer = |bytes: &[u8]| {
        let address = device.alloc(bytes.len()).unwrap();
        device.write(address, bytes).unwrap();
        address
    };
    let mut outputs = vec![0; bytes.len()];
    let addresses = [buffer(&bytes), buffer(&outputs), buffer(&[0; 64 * THREADS])];
    let arguments = addresses.map(u64::to_le_bytes);
    let shape = LaunchConfig {
        grid: [1, 1, 1],
        block: [THREADS as u32, 1, 1],
        dynamic_shared: 0,
        cooperative: false,
    };
    let block = fixed_bytes();
    let mut arguments: Vec<&[u8]> = arguments.iter().map(<[u8; 8]>::as_slice).collect();
    arguments.push(&block);
    if let Err(error) = device.launch(&loaded, "forms", &shape, &arguments) {
        panic!("{error}");
    }
    device.read(addresses[1], &mut outputs).unwrap();
    let numbers: Vec<u64> = outputs
        .chunks_exact(8)
        .map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    numbers.as_chunks::<4>().0.to_vec()
}

/// One result, which must be exactly what a plain function makes of the operands.
pub fn gives(
    expected: impl Fn(&Form, Operands) -> u64 + 'static,
) -> impl Fn(&Form, &[Operands], &[Operands]) -> Result<(), String> + 'static {
    gives_all(move |form, operands| [expected(form, operands), 0, 0, 0])
}

/// As [`gives`], for several results; 0 for those that the form lacks.
pub fn gives_all(
    expected: impl Fn(&Form, Operands) -> Operands + 'static,
) -> impl Fn(&Form, &[Operands], &[Operands]) -> Result<(), String> + 'static {
    move |form, inputs, outputs| {
        for (operands, got) in inputs.iter().zip(outputs) {
            let want = expected(form, *operands);
            if *got != want {
                return Err(format!("{operands:x?} give {got:x?}, expected {want:x?}"));
            }
        }
        Ok(())
    }
}

/// `{form} {d}, {a}, …` with `count` operands, all of the form's type.
pub fn uniform(count: usize) -> impl Fn(&Form) -> Code {
    move |form| {
        let bits = form.ty().register();
        let list: String = OPERANDS[..count]
            .iter()
            .map(|name| format!(", {{{name}}}"))
            .collect();
        Code::new(
            format!("{{form}} {{d}}{list};"),
            &[bits],
            &vec![bits; count],
        )
    }
}

/// A value of a strategy, another one in each run of the tests; failures print their operands.
pub fn random<T: std::fmt::Debug>(strategy: impl Strategy<Value = T>) -> T {
    strategy
        .new_tree(&mut TestRunner::default())
        .expect("a value")
        .current()
}

/// Tuples of any bits, those around powers of two among them.
pub fn integers(_: &Form) -> Vec<Operands> {
    let one = super::harness::operand;
    random(proptest::collection::vec(
        [one(), one(), one(), one()],
        THREADS,
    ))
}

/// [`integers`], drawn once and the same for all forms: where there are thousands of them.
pub fn shared_integers() -> impl Fn(&Form) -> Vec<Operands> {
    let drawn = std::cell::OnceCell::new();
    move |form| drawn.get_or_init(|| integers(form)).clone()
}
