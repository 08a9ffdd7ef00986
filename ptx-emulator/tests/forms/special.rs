//! Special registers, against the shape of a launch.

use super::harness::{Arg, Bench, HEADER, line};
use super::neighbours::wrong_lines;
use ptx_emulator::{Config, LaunchConfig, Module};

const GRID: [u32; 3] = [3, 2, 2];
const BLOCK: [u32; 3] = [5, 4, 3];
const THREADS: u32 = 60;
const DYNAMIC: u32 = 48;
/// With which a block takes 300 bytes, and thus three units of 128.
const STATIC: u32 = 252;

/// Where a thread is.
struct Place {
    block: [u32; 3],
    thread: [u32; 3],
    /// Within the block.
    linear: u32,
}

impl Place {
    fn lane(&self) -> u32 {
        self.linear % 32
    }
}

type Value = Box<dyn Fn(&Place) -> u64>;

const WORD: &[u32] = &[32];
const LONG: &[u32] = &[64];
const WORD_OR_HALF: &[u32] = &[16, 32];

/// Every special register that does not change while a thread runs: its name, bits of the types that read it, and value.
fn registers() -> Vec<(String, &'static [u32], Value)> {
    let mut list: Vec<(String, &'static [u32], Value)> = Vec::new();
    let mut vector = |name: &str, sizes, value: fn(&Place) -> [u32; 3]| {
        for (axis, letters) in ["xr", "yg", "zb"].iter().enumerate() {
            for letter in letters.chars() {
                let value = Box::new(move |place: &Place| value(place)[axis].into());
                list.push((format!("{name}.{letter}"), sizes, value));
            }
        }
        for letter in ["w", "a"] {
            list.push((format!("{name}.{letter}"), sizes, Box::new(|_| 0)));
        }
    };
    vector("%tid", WORD_OR_HALF, |place| place.thread);
    vector("%ntid", WORD_OR_HALF, |_| BLOCK);
    vector("%ctaid", WORD_OR_HALF, |place| place.block);
    vector("%nctaid", WORD_OR_HALF, |_| GRID);
    // Each block is a cluster of its own.
    vector("%clusterid", WORD, |place| place.block);
    vector("%nclusterid", WORD, |_| GRID);
    vector("%cluster_ctaid", WORD, |_| [0; 3]);
    vector("%cluster_nctaid", WORD, |_| [1; 3]);
    let mut scalar = |name: &str, sizes, value: fn(&Place) -> u64| {
        list.push((name.to_owned(), sizes, Box::new(value)));
    };
    scalar("%cluster_ctarank", WORD, |_| 0);
    scalar("%cluster_nctarank", WORD, |_| 1);
    scalar("%is_explicit_cluster", &[1], |_| 0);
    scalar("%laneid", WORD, |place| place.lane().into());
    scalar("%warpid", WORD, |place| (place.linear / 32).into());
    scalar("%nwarpid", WORD, |_| 2);
    scalar("%smid", WORD, |_| 0);
    scalar("%nsmid", WORD, |_| 1);
    scalar("%gridid", &[16, 32, 64], |_| 0);
    scalar("%lanemask_eq", WORD, |place| 1 << place.lane());
    scalar("%lanemask_le", WORD, |place| (2 << place.lane()) - 1);
    scalar("%lanemask_lt", WORD, |place| (1 << place.lane()) - 1);
    scalar("%lanemask_ge", WORD, |place| {
        (1 << 32) - (1 << place.lane())
    });
    scalar("%lanemask_gt", WORD, |place| {
        (1 << 32) - (2 << place.lane())
    });
    scalar("%dynamic_smem_size", WORD, |_| DYNAMIC.into());
    scalar("%total_smem_size", WORD, |_| 384);
    scalar("%aggr_smem_size", WORD, |_| 384 + 1024);
    scalar("%current_graph_exec", LONG, |_| 0);
    for number in 0..32 {
        scalar(&format!("%envreg{number}"), WORD, |_| 0);
    }
    list
}

/// Those that count, and those that are refused.
const CLOCKS: [(&str, &[u32]); 6] = [
    ("%clock", WORD),
    ("%clock_hi", WORD),
    ("%globaltimer_lo", WORD),
    ("%globaltimer_hi", WORD),
    ("%clock64", LONG),
    ("%globaltimer", LONG),
];
const REFUSED: [&str; 8] = [
    "%pm0",
    "%pm7",
    "%pm0_64",
    "%pm7_64",
    "%reserved_smem_offset_begin",
    "%reserved_smem_offset_end",
    "%reserved_smem_offset_cap",
    "%reserved_smem_offset_1",
];

/// Types of `mov`, with the register that takes the result.
const TYPES: [(&str, u32); 12] = [
    ("pred", 1),
    ("b16", 16),
    ("u16", 16),
    ("s16", 16),
    ("b32", 32),
    ("u32", 32),
    ("s32", 32),
    ("b64", 64),
    ("u64", 64),
    ("s64", 64),
    ("f32", 0),
    ("f64", 0),
];

fn kernel(body: &str) -> String {
    format!(
        "{HEADER}
.extern .shared .align 4 .b8 more[];
.visible .entry k(.param .u64 output)
{{
.shared .align 4 .b8 cells[{STATIC}];
.reg .pred %p<4>;
.reg .b16 %h<4>;
.reg .b32 %r<8>;
.reg .b64 %rd<8>;
.reg .f32 %f1;
.reg .f64 %d1;
{body}
ret;
}}
"
    )
}

/// A `mov` of the register's value to one of the type, which is then in `%rd4`.
fn read(ty: &str, bits: u32, name: &str) -> String {
    match bits {
        1 => format!("mov.{ty} %p1, {name};\nselp.b64 %rd4, 1, 0, %p1;\n"),
        16 => format!("mov.{ty} %h1, {name};\ncvt.u64.u16 %rd4, %h1;\n"),
        32 => format!("mov.{ty} %r1, {name};\ncvt.u64.u32 %rd4, %r1;\n"),
        _ => format!("mov.{ty} %rd4, {name};\n"),
    }
}

/// Each register by each of its types, in every thread of blocks and of a grid of three dimensions.
#[test]
fn by_the_shape_of_the_launch() {
    let registers = registers();
    let reads: Vec<_> = registers
        .iter()
        .flat_map(|(name, sizes, value)| {
            let types = TYPES.iter().filter(|(_, bits)| sizes.contains(bits));
            types.map(move |(ty, bits)| (name, *ty, *bits, value))
        })
        .collect();
    let mut body = format!(
        "mov.u32 %r1, cells;\nmov.u32 %r1, more;
mov.u32 %r1, %ctaid.z;
mov.u32 %r2, %ctaid.y;
mad.lo.u32 %r1, %r1, {}, %r2;
mov.u32 %r2, %ctaid.x;
mad.lo.u32 %r1, %r1, {}, %r2;
mov.u32 %r2, %tid.z;
mad.lo.u32 %r1, %r1, {}, %r2;
mov.u32 %r2, %tid.y;
mad.lo.u32 %r1, %r1, {}, %r2;
mov.u32 %r2, %tid.x;
mad.lo.u32 %r1, %r1, {}, %r2;
ld.param.u64 %rd1, [output];
mad.wide.u32 %rd1, %r1, {}, %rd1;
",
        GRID[1],
        GRID[0],
        BLOCK[2],
        BLOCK[1],
        BLOCK[0],
        8 * reads.len()
    );
    for (at, (name, ty, bits, _)) in reads.iter().enumerate() {
        body += &read(ty, *bits, name);
        body += &format!("st.global.b64 [%rd1+{}], %rd4;\n", 8 * at);
    }
    let shape = LaunchConfig {
        grid: GRID,
        block: BLOCK,
        dynamic_shared: DYNAMIC,
        cooperative: false,
    };
    let blocks = GRID.iter().product::<u32>();
    let mut output = vec![0; (blocks * THREADS) as usize * 8 * reads.len()];
    Bench::new(&kernel(&body))
        .run("k", shape, &mut [Arg::Bytes(&mut output)])
        .unwrap();
    let mut numbers = output.chunks_exact(8);
    for block in 0..blocks {
        for linear in 0..THREADS {
            let place = Place {
                block: [block % 3, block / 3 % 2, block / 6],
                thread: [linear % 5, linear / 5 % 4, linear / 20],
                linear,
            };
            for (name, ty, _, value) in &reads {
                let bytes = numbers.next().unwrap().try_into().unwrap();
                assert_eq!(
                    u64::from_le_bytes(bytes),
                    value(&place),
                    "mov.{ty} of {name}, block {block}, thread {linear}"
                );
            }
        }
    }
}

/// Types that are not the register's, and registers that are not there, are refused, by `ptxas` too where there is one.
#[test]
fn other_types_are_refused() {
    let readable: Vec<(String, Vec<u32>)> = registers()
        .iter()
        .map(|(name, sizes, _)| (name.clone(), sizes.to_vec()))
        .chain(CLOCKS.map(|(name, sizes)| (name.to_owned(), sizes.to_vec())))
        .chain(
            ["%tid", "%cluster_ctaid", "%envreg32", "%nothing"]
                .map(|name| (name.to_owned(), vec![])),
        )
        .collect();
    let mut refused = Vec::new();
    for (name, sizes) in &readable {
        for (ty, bits) in TYPES.iter().filter(|(_, bits)| !sizes.contains(bits)) {
            let register = match (*ty, bits) {
                ("f32", _) => "%f1",
                ("f64", _) => "%d1",
                (_, 1) => "%p1",
                (_, 16) => "%h1",
                (_, 32) => "%r1",
                _ => "%rd4",
            };
            refused.push(format!("mov.{ty} {register}, {name};\n"));
        }
    }
    for instruction in &refused {
        assert!(
            Module::parse(&kernel(instruction)).is_err(),
            "taken: {instruction}"
        );
    }
    for name in REFUSED {
        let bits = if name.ends_with("_64") { 64 } else { 32 };
        let error = Module::parse(&kernel(&read(&format!("u{bits}"), bits, name))).unwrap_err();
        let words = format!("special register `{name}` is not supported");
        assert!(error.message.contains(&words), "{error}");
    }
    if let Some(ptxas) = std::env::var_os("PTX_EMULATOR_PTXAS") {
        let before = kernel("").lines().position(|line| line == "ret;").unwrap() - 1;
        let wrong = wrong_lines(&ptxas, &kernel(&refused.concat()));
        for (at, instruction) in refused.iter().enumerate() {
            assert!(wrong.contains(&(before + at)), "ptxas takes {instruction}");
        }
    }
}

/// Only `mov` and `cvt` between integers read a special register; predicates are moved, or guard.
#[test]
fn where_they_are_refused() {
    for (instruction, words) in [
        (
            "add.u32 %r1, %tid.x, 1;",
            "`%tid.x` is a special register: read it with `mov`",
        ),
        ("setp.eq.u32 %p1, %laneid, 0;", "read it with `mov`"),
        ("st.shared.u32 [cells], %clock;", "read it with `mov`"),
        (
            "shfl.sync.idx.b32 %r1, %laneid, 0, 31, -1;",
            "read it with `mov`",
        ),
        ("cvt.rn.f32.u32 %f1, %tid.x;", "read it with `mov`"),
        ("cvt.u32.u64 %r1, %clock;", "cannot be read as .u64"),
        (
            "and.pred %p1, %p2, %is_explicit_cluster;",
            "not a predicate register",
        ),
        ("mov.u32 %r1, %ctaid;", "read `%ctaid.x`, `.y` or `.z`"),
        ("mov.u32 %r1, %tid.q;", "`%tid.q` is not declared"),
        ("mov.u32 %r1, %envreg32;", "`%envreg32` is not declared"),
        ("mov.u32 %r1, %is_explicit_cluster;", "`mov.pred`"),
        ("mov.u32 %r1, %laneid+4;", "special register"),
        ("mov.u32 %tid.x, %r1;", "must be a register"),
        ("mov.f32 %f1, WARP_SZ;", "integer literal"),
    ] {
        super::refused(
            &format!(
                ".reg .pred %p<3>; .reg .b32 %r<3>; .reg .f32 %f1; .shared .b32 cells; {instruction}"
            ),
            words,
        );
    }
}

/// As parts of what `mov` packs, through `cvt`, and as guards.
#[test]
fn other_readers() {
    let body = "mov.u32 %r1, cells;
ld.param.u64 %rd1, [output];
mov.u32 %r1, %tid.x;
mad.wide.u32 %rd1, %r1, 64, %rd1;
mov.b64 %rd2, {%tid.x, %ntid.x};
st.global.b64 [%rd1], %rd2;
mov.b32 {%h1, %h2}, %lanemask_ge;
st.global.b16 [%rd1+8], %h1;
st.global.b16 [%rd1+10], %h2;
cvt.u32.u8 %r2, %lanemask_gt;
st.global.b32 [%rd1+12], %r2;
cvt.s64.s32 %rd2, %lanemask_ge;
st.global.b64 [%rd1+16], %rd2;
cvt.u32.u64 %r2, %gridid;
st.global.b32 [%rd1+24], %r2;
mov.u32 %r2, 0;
@%is_explicit_cluster mov.u32 %r2, 1;
st.global.b32 [%rd1+28], %r2;
mov.pred %p1, %is_explicit_cluster;
selp.u32 %r2, 0, WARP_SZ, %p1;
st.global.b32 [%rd1+32], %r2;
sub.u32 %r2, 0, -WARP_SZ;
st.global.b32 [%rd1+36], %r2;
cvt.u64.u32 %rd2, %clock;
cvt.u32.u64 %r2, %clock64;
cvt.u64.u32 %rd3, %r2;
sub.u64 %rd2, %rd3, %rd2;
st.global.b64 [%rd1+40], %rd2;
mov.b64 {%r2, %r3}, %clock64;
st.global.b32 [%rd1+48], %r3;
mov.b64 %rd2, {%clock, %clock_hi};
cvt.u64.u32 %rd3, %r2;
sub.u64 %rd2, %rd2, %rd3;
st.global.b64 [%rd1+56], %rd2;
";
    let mut output = vec![0; 64 * 40];
    Bench::new(&kernel(body))
        .run("k", line(40), &mut [Arg::Bytes(&mut output)])
        .unwrap();
    for (thread, bytes) in output.chunks_exact(64).enumerate() {
        let number = |range: std::ops::Range<usize>| {
            let mut word = [0; 8];
            word[..range.len()].copy_from_slice(&bytes[range]);
            u64::from_le_bytes(word)
        };
        let lane = thread % 32;
        let from_here = u32::MAX << lane;
        let after = from_here & !(1 << lane);
        assert_eq!(number(0..8), 40 << 32 | thread as u64);
        assert_eq!(number(8..12), from_here.into());
        assert_eq!(number(12..16), (after & 0xff).into());
        // The highest lane is in every one of these masks.
        assert_eq!(number(16..24), from_here as i32 as u64);
        assert_eq!((number(24..28), number(28..32)), (0, 0));
        assert_eq!((number(32..36), number(36..40)), (32, 32));
        // Some ticks later, and fewer than there are instructions.
        assert!((1..200).contains(&number(40..48)), "{}", number(40..48));
        assert_eq!(number(48..52), 0);
        assert!((1..200).contains(&number(56..64)), "{}", number(56..64));
    }
}

/// Time goes on, and the halves of a clock are halves of the same one.
#[test]
fn clocks() {
    let mut body = "mov.u32 %r1, cells;\nld.param.u64 %rd1, [output];\n".to_owned();
    // Twice in turn, low halves between whole ones.
    let order = [
        "%clock64",
        "%clock",
        "%clock64",
        "%globaltimer",
        "%globaltimer_lo",
        "%globaltimer",
        "%clock_hi",
        "%globaltimer_hi",
    ];
    for (at, name) in order.iter().enumerate() {
        let (_, sizes) = CLOCKS.iter().find(|(clock, _)| clock == name).unwrap();
        body += &read(&format!("u{}", sizes[0]), sizes[0], name);
        body += &format!("st.global.b64 [%rd1+{}], %rd4;\n", 8 * at);
    }
    let mut output = vec![0; 64];
    Bench::new(&kernel(&body))
        .run("k", line(1), &mut [Arg::Bytes(&mut output)])
        .unwrap();
    let ticks: Vec<_> = output
        .chunks_exact(8)
        .map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    assert!(ticks[..3].is_sorted_by(|a, b| a < b), "{ticks:?}");
    assert!(ticks[3..6].is_sorted_by(|a, b| a < b), "{ticks:?}");
    // Such a short kernel stays far below 2^32.
    assert_eq!(ticks[6..], [0, 0]);
}

/// What 16 bits hold of a block's number.
#[test]
fn low_halves() {
    let body = "mov.u32 %r1, cells;
ld.param.u64 %rd1, [output];
mov.u32 %r1, %ctaid.x;
setp.lt.u32 %p1, %r1, 65534;
@%p1 exit;
sub.u32 %r1, %r1, 65534;
mad.wide.u32 %rd1, %r1, 4, %rd1;
mov.u16 %h1, %ctaid.x;
mov.b16 %h2, %nctaid.x;
st.global.b16 [%rd1], %h1;
st.global.b16 [%rd1+2], %h2;";
    let mut output = vec![0; 4];
    let shape = LaunchConfig {
        grid: [65538, 1, 1],
        ..line(1)
    };
    Bench::new(&kernel(body))
        .run("k", shape, &mut [Arg::Words(&mut output)])
        .unwrap();
    assert_eq!(output, [0x2_fffe, 0x2_ffff, 0x2_0000, 0x2_0001]);
}

/// Shared memory is given away in larger units on sm_75.
#[test]
fn shared_memory_of_sm_75() {
    let body = "mov.u32 %r1, cells;
mov.u32 %r1, more;
ld.param.u64 %rd1, [output];
mov.u32 %r1, %total_smem_size;
st.global.b32 [%rd1], %r1;";
    let config = Config {
        compute_capability: 75,
        ..Config::default()
    };
    let ptx = kernel(body).replace("sm_90", "sm_75");
    let shape = LaunchConfig {
        dynamic_shared: DYNAMIC,
        ..line(1)
    };
    let mut output = vec![0];
    Bench::with(&ptx, config)
        .run("k", shape, &mut [Arg::Words(&mut output)])
        .unwrap();
    assert_eq!(output, [512]);
}
