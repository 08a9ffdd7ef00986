//! `printf` and `assert` of device code.

mod harness;

use harness::{Arg, Bench, HEADER, line};
use ptx_emulator::{Config, FaultKind, LaunchConfig, LaunchError, Report};

/// What the C library prints (made by `printf/cases.c`).
const CASES: &str = include_str!("printf/cases.tsv");

const DECLARATIONS: &str = "
.extern .func (.param .b32 func_retval0) vprintf (.param .b64 vprintf_param_0, .param .b64 vprintf_param_1);
.extern .func __assertfail (.param .b64 p0, .param .b64 p1, .param .b32 p2, .param .b64 p3, .param .b64 p4);
";

/// Calls `vprintf` with the format in `%rd1` and the arguments in `%rd2`; the result is in `%r1`.
const CALL: &str = "
{ .param .b64 p0; .param .b64 p1; .param .b32 r;
st.param.b64 [p0], %rd1; st.param.b64 [p1], %rd2;
call.uni (r), vprintf, (p0, p1);
ld.param.b32 %r1, [r]; }
";

fn kernel(variables: &str, body: &str) -> String {
    format!(
        "{HEADER}{DECLARATIONS}{variables}
.visible .entry k(.param .u64 first, .param .u64 second)
{{
.reg .pred %p<4>;
.reg .b32 %r<16>;
.reg .b64 %rd<16>;
.reg .f64 %fd<4>;
.local .align 8 .b8 depot[64];
.reg .b64 %SP;
mov.u64 %rd9, depot;
cvta.local.u64 %rd2, %rd9;
mov.u32 %r2, %tid.x;
mov.u32 %r3, %ctaid.x;
mov.u32 %r4, %ntid.x;
mad.lo.u32 %r5, %r3, %r4, %r2;
{body}
ret;
}}
"
    )
}

fn run(ptx: &str, shape: LaunchConfig, config: Config) -> Result<Report, LaunchError> {
    Bench::with(ptx, config).run("k", shape, &mut [Arg::U64(0), Arg::U64(0)])
}

fn bytes(text: &str) -> String {
    let bytes: Vec<_> = text
        .bytes()
        .chain([0])
        .map(|byte| byte.to_string())
        .collect();
    format!("[{}] = {{{}}}", bytes.len(), bytes.join(", "))
}

/// Every conversion, flag, width and precision: one thread for each case.
#[test]
fn conversions_are_those_of_c() {
    let mut formats = Vec::new();
    let mut table = Vec::new();
    let mut want = String::new();
    for case in CASES.lines() {
        let [format, bits, text] = case.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{case}");
        };
        table.extend((formats.len() as u64).to_le_bytes());
        table.extend(u64::from_str_radix(bits, 16).unwrap().to_le_bytes());
        formats.extend(format!("[{format}]\n\0").bytes());
        want += text;
        want.push('\n');
    }
    let ptx = kernel(
        "",
        &format!(
            "ld.param.u64 %rd3, [first];
ld.param.u64 %rd4, [second];
mul.wide.u32 %rd5, %r5, 16;
add.u64 %rd4, %rd4, %rd5;
ld.global.v2.u64 {{%rd6, %rd7}}, [%rd4];
add.u64 %rd1, %rd3, %rd6;
st.local.u64 [%rd9], %rd7;
{CALL}"
        ),
    );
    let count = CASES.lines().count() as u32;
    for threads in [1, 2] {
        let config = Config {
            threads,
            ..Config::default()
        };
        let shape = LaunchConfig {
            grid: [count / 20, 1, 1],
            ..line(20)
        };
        let report = Bench::with(&ptx, config)
            .run(
                "k",
                shape,
                &mut [Arg::Bytes(&mut formats), Arg::Bytes(&mut table)],
            )
            .unwrap_or_else(|error| panic!("{error}"));
        for ((got, want), case) in report.printed.lines().zip(want.lines()).zip(CASES.lines()) {
            assert_eq!(got, want, "{case}");
        }
        assert_eq!(report.printed, want);
    }
}

/// Arguments of several kinds, each at a multiple of its size, and what comes back.
#[test]
fn arguments_and_result() {
    let variables = format!(
        ".global .align 1 .b8 format{};\n.global .align 1 .b8 word{};\n",
        bytes("%c%d %s %.3s %*d|%-*.*f|%p %% %5c %k %n %hhu 100%"),
        bytes("word")
    );
    let body = format!(
        "mov.u64 %rd1, format; mov.u64 %rd3, word;
mov.u32 %r6, 65; st.local.u32 [%rd9], %r6;
mov.u32 %r6, -7; st.local.u32 [%rd9+4], %r6;
st.local.u64 [%rd9+8], %rd3; st.local.u64 [%rd9+16], %rd3;
mov.u32 %r6, 6; st.local.u32 [%rd9+24], %r6;
mov.u32 %r6, 42; st.local.u32 [%rd9+28], %r6;
mov.u32 %r6, 8; st.local.u32 [%rd9+32], %r6;
mov.u32 %r6, 2; st.local.u32 [%rd9+36], %r6;
mov.f64 %fd1, 0d400921FB54442D18; st.local.f64 [%rd9+40], %fd1;
mov.u64 %rd4, 4096; st.local.u64 [%rd9+48], %rd4;
mov.u32 %r6, 66; st.local.u32 [%rd9+56], %r6;
mov.u32 %r6, 511; st.local.u32 [%rd9+60], %r6;
{CALL}
setp.ne.u32 %p1, %r1, 12; @%p1 trap;
mov.u64 %rd1, 0; {CALL} setp.ne.s32 %p1, %r1, -1; @%p1 trap;"
    );
    let report = run(&kernel(&variables, &body), line(1), Config::default()).unwrap();
    assert_eq!(
        report.printed,
        "A-7 word wor     42|3.14    |0x1000 %     B %k %n 255 100%"
    );
}

const PRINT_THREAD: &str = "mov.u64 %rd1, format; st.local.v2.u32 [%rd9], {%r3, %r2};";

/// Blocks print in their order on any number of cores, and in the order that they run in where a seed says so.
#[test]
fn order() {
    let variables = format!(".global .align 1 .b8 format{};", bytes("%d.%d "));
    let ptx = kernel(&variables, &format!("{PRINT_THREAD}\n{CALL}"));
    let shape = LaunchConfig {
        grid: [7, 1, 1],
        ..line(3)
    };
    let want: Vec<String> = (0..21).map(|i| format!("{}.{}", i / 3, i % 3)).collect();
    for threads in [1, 3] {
        let config = Config {
            threads,
            ..Config::default()
        };
        let report = run(&ptx, shape, config).unwrap();
        assert_eq!(report.printed.trim_end(), want.join(" "));
    }
    let config = Config {
        seed: Some(5),
        ..Config::default()
    };
    let printed = run(&ptx, shape, config).unwrap().printed;
    let mut got: Vec<_> = printed.split_whitespace().collect();
    assert_ne!(got, want);
    got.sort_unstable();
    assert_eq!(got, want);
}

/// A buffer's worth is kept, the same on any number of cores.
#[test]
fn output_is_limited() {
    let variables = format!(".global .align 1 .b8 format{};", bytes("%4000d,%d;"));
    let ptx = kernel(&variables, &format!("{PRINT_THREAD}\n{CALL}"));
    let shape = LaunchConfig {
        grid: [20, 1, 1],
        ..line(32)
    };
    let outputs = [1, 3].map(|threads| {
        let config = Config {
            threads,
            ..Config::default()
        };
        run(&ptx, shape, config).unwrap().printed
    });
    assert_eq!(outputs[0].len(), 1 << 20);
    assert!(outputs[0] == outputs[1]);
    assert!(outputs[0].starts_with(&format!("{:4000},0;{:4000},1;", 0, 0)));
}

#[test]
fn output_before_a_fault_is_kept() {
    let variables = format!(".global .align 1 .b8 format{};", bytes("%d.%d "));
    let body = format!("{PRINT_THREAD}\n{CALL}\nsetp.eq.u32 %p1, %r3, 2; @%p1 trap;");
    let shape = LaunchConfig {
        grid: [6, 1, 1],
        ..line(1)
    };
    for threads in [1, 3] {
        let config = Config {
            threads,
            ..Config::default()
        };
        let Err(LaunchError::Fault(fault)) = run(&kernel(&variables, &body), shape, config) else {
            panic!("no fault");
        };
        assert_eq!(fault.kind, FaultKind::Trap);
        assert_eq!(fault.printed, "0.0 1.0 2.0 ");
    }
}

#[test]
fn bad_arguments() {
    let variables = format!(".global .align 1 .b8 format{};", bytes("%d %s"));
    let fault = |body: &str| match run(
        &kernel(&variables, &format!("{body}\n{CALL}")),
        line(1),
        Config::default(),
    ) {
        Err(LaunchError::Fault(fault)) => {
            assert!(fault.instruction.contains("call"), "{fault}");
            fault.kind
        }
        other => panic!("{other:?}"),
    };
    // A format that is nowhere, an argument that was not stored, and a text that is nowhere.
    assert_eq!(
        fault("mov.u64 %rd1, 64;"),
        FaultKind::OutOfBounds { size: 1 }
    );
    assert_eq!(
        fault("mov.u64 %rd1, format;"),
        FaultKind::UninitializedMemory { size: 4 }
    );
    assert_eq!(
        fault(
            "mov.u64 %rd1, format; mov.u64 %rd3, 77; st.local.u64 [%rd9], %rd3; st.local.u64 [%rd9+8], %rd3;"
        ),
        FaultKind::OutOfBounds { size: 1 }
    );
    assert_eq!(
        fault("mov.u64 %rd1, format; add.u64 %rd2, %rd2, 64;"),
        FaultKind::OutOfBounds { size: 4 }
    );
    assert_eq!(
        fault("mov.u64 %rd1, format; mov.u64 %rd2, -1;"),
        FaultKind::OutOfBounds { size: 4 }
    );
    // A null pointer is a text of its own.
    let null = "mov.u64 %rd1, format; mov.u64 %rd3, 0; st.local.u64 [%rd9], %rd3; st.local.u64 [%rd9+8], %rd3;";
    let report = run(
        &kernel(&variables, &format!("{null}\n{CALL}")),
        line(1),
        Config::default(),
    )
    .unwrap();
    assert_eq!(report.printed, "0 (null)");
}

#[test]
fn assertions() {
    let variables = format!(
        ".global .align 1 .b8 message{};\n.global .align 1 .b8 file{};\n.global .align 1 .b8 name{};\n",
        bytes("x < 5"),
        bytes("kernel.cu"),
        bytes("void k(int)")
    );
    let body = "setp.lt.u32 %p1, %r2, 5; @%p1 bra fine;
mov.u64 %rd1, message; mov.u64 %rd3, file; mov.u64 %rd4, name; mov.u32 %r6, 17; mov.u64 %rd5, 1;
{ .param .b64 a0; .param .b64 a1; .param .b32 a2; .param .b64 a3; .param .b64 a4;
st.param.b64 [a0], %rd1; st.param.b64 [a1], %rd3; st.param.b32 [a2], %r6; st.param.b64 [a3], %rd4; st.param.b64 [a4], %rd5;
call.uni __assertfail, (a0, a1, a2, a3, a4); }
fine: mov.u32 %r7, 0;";
    let ptx = kernel(&variables, body);
    run(&ptx, line(5), Config::default()).unwrap();
    let Err(LaunchError::Fault(fault)) = run(&ptx, line(9), Config::default()) else {
        panic!("no fault");
    };
    assert_eq!(
        fault.kind,
        FaultKind::AssertionFailed {
            message: "x < 5".into(),
            file: "kernel.cu".into(),
            line: 17,
            function: "void k(int)".into(),
        }
    );
    assert_eq!(fault.thread, [5, 0, 0]);
    let text = fault.to_string();
    assert!(
        text.starts_with("assertion `x < 5` failed in kernel.cu:17, `void k(int)`"),
        "{text}"
    );
}
