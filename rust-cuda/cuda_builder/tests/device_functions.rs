//! Every device function of `cuda_std` compiles for each architecture that its documentation names, to the PTX
//! instruction that its documentation names, and NVIDIA's assembler takes the result.
//!
//! The claims are read from `cuda_std`'s sources; the kernels that call the functions are the crate
//! `device_functions` beside this file.

mod machine;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use cuda_builder::{CudaBuilder, NvvmArch};

/// What a function's documentation says it compiles to.
#[derive(Debug)]
struct Claim {
    /// The words of the instruction: `["mov.u32", "%tid.x"]`.
    words: Vec<String>,
    /// The lowest architecture with that instruction; 0 for any.
    capability: u32,
    /// Whether the function exists below that architecture as well, as other instructions.
    always_there: bool,
}

/// Methods that only pass on to a documented function or move no data.
const WITHOUT_AN_INSTRUCTION: [&str; 12] = [
    "from_address",
    "address",
    "add",
    "cast",
    "clone",
    "load_shared",
    "store_shared",
    "to_lane_bits",
    "from_lane_bits",
    "segment",
    "compute_capability",
    "panic",
];

#[test]
fn every_function_is_the_instruction_it_claims_to_be() {
    let Some(compiler) = machine::compiler() else {
        return;
    };
    let claims = claims();
    assert!(
        claims.len() > 100,
        "only {} claims found in cuda_std's sources",
        claims.len()
    );
    let mut wrong = Vec::new();
    for arch in NvvmArch::ALL {
        let output = CudaBuilder::new(fixture())
            .arch(arch)
            .compiler(compiler.clone())
            .target_dir(machine::scratch())
            .build()
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(output.warnings, [""; 0], "{arch}");
        let ptx = std::fs::read_to_string(&output.ptx).expect("just written");
        let bodies = bodies(&ptx);
        for (function, claim) in &claims {
            let available = arch.capability() >= claim.capability;
            match bodies.get(function.as_str()) {
                None if available || claim.always_there => {
                    wrong.push(format!(
                        "{arch}: no kernel of the fixture calls `{function}`"
                    ));
                }
                Some(body) if available && !has_instruction(body, &claim.words) => {
                    wrong.push(format!(
                        "{arch}: `{function}` has no `{}`:\n{body}",
                        claim.words.join(" ")
                    ));
                }
                _ => {}
            }
        }
        assemble(&output.ptx, arch.target_cpu());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn shared_accesses_are_as_wide_as_their_type() {
    let Some(bodies) = compiled(NvvmArch::Compute75) else {
        return;
    };
    for (suffix, instruction) in [
        ("u8", "u8"),
        ("i8", "s8"),
        ("u16", "u16"),
        ("i16", "s16"),
        ("i32", "s32"),
        ("f32", "f32"),
        ("u64", "u64"),
        ("v2", "v2.u32"),
        ("v4", "v4.u32"),
    ] {
        for (kernel, load_or_store) in [("read", "ld"), ("write", "st")] {
            let body = &bodies[&format!("{kernel}_{suffix}")];
            let expected = format!("{load_or_store}.shared.{instruction}");
            assert!(
                has_instruction(body, std::slice::from_ref(&expected)),
                "no `{expected}`:\n{body}"
            );
        }
    }
}

#[test]
fn a_plain_read_of_four_words_is_one_instruction() {
    let Some(bodies) = compiled(NvvmArch::Compute75) else {
        return;
    };
    let body = &bodies["plain_read_v4"];
    assert!(
        has_instruction(body, &["ld.global.v4.b32".to_owned()]),
        "{body}"
    );
}

#[test]
fn a_vote_stays_on_its_side_of_a_branch() {
    let Some(bodies) = compiled(NvvmArch::Compute90) else {
        return;
    };
    let body = &bodies["vote_in_a_branch"];
    let position = |what: &str| {
        body.find(what)
            .unwrap_or_else(|| panic!("no `{what}`:\n{body}"))
    };
    assert!(position("bra") < position("vote.sync.ballot"), "{body}");
    assert!(
        !body
            .lines()
            .any(|line| line.contains('@') && line.contains("vote")),
        "{body}"
    );
}

#[test]
fn barriers_and_votes_between_branches_are_not_copied_into_them() {
    for arch in NvvmArch::ALL {
        let Some(bodies) = compiled(arch) else {
            return;
        };
        let body = &bodies["between_branches"];
        for instruction in ["bar.sync", "vote.sync.ballot"] {
            assert_eq!(
                body.matches(instruction).count(),
                1,
                "{instruction}\n{body}"
            );
        }
    }
}

#[test]
fn launch_bounds_alignment_and_architecture_reach_the_ptx() {
    let Some(compiler) = machine::compiler() else {
        return;
    };
    for arch in NvvmArch::ALL {
        let output = CudaBuilder::new(fixture())
            .arch(arch)
            .compiler(compiler.clone())
            .target_dir(machine::scratch())
            .build()
            .unwrap_or_else(|error| panic!("{error}"));
        let ptx = std::fs::read_to_string(&output.ptx).expect("just written");
        let bodies = bodies(&ptx);
        assert!(
            bodies["vote_in_a_branch"].contains(".maxntid 128, 1, 1\n{"),
            "{}",
            bodies["vote_in_a_branch"]
        );
        assert!(bodies["checked_index"].contains(".maxntid 256, 1, 1\n.minnctapersm 2\n{"));
        assert!(!bodies["plain_read_v4"].contains(".maxntid"));
        assert!(
            bodies["compute_capability"].contains(&format!(" {};", arch.capability())),
            "{arch}"
        );
        for declaration in [
            "shared_array_device_functions_0_0_0_0[3];",
            "shared_array_device_functions_0_0_0_1[96];",
            "shared_array_device_functions_0_0_0_2[5];",
            "shared_array_device_functions_0_0_0_3[6];",
            ".target sm_",
        ] {
            assert!(ptx.contains(declaration), "no `{declaration}`");
        }
        assert!(ptx.contains(".shared .align 16 .b8 shared_array_device_functions_0_0_0_0"));
        assert!(ptx.contains(".shared .align 32 .b8 shared_array_device_functions_0_0_0_1"));
        assert!(ptx.contains("trap;"), "the bounds check ends in no trap");
    }
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/device_functions")
}

fn compiled(arch: NvvmArch) -> Option<BTreeMap<String, String>> {
    let output = CudaBuilder::new(fixture())
        .arch(arch)
        .compiler(machine::compiler()?)
        .target_dir(machine::scratch())
        .build()
        .unwrap_or_else(|error| panic!("{error}"));
    let ptx = std::fs::read_to_string(&output.ptx).expect("just written");
    Some(bodies(&ptx))
}

/// The text of each entry, from its name to its closing brace.
fn bodies(ptx: &str) -> BTreeMap<String, String> {
    ptx.split(".visible .entry ")
        .skip(1)
        .map(|text| {
            let name = text.split(['(', '\n']).next().unwrap_or_default();
            let end = text.find("\n}").unwrap_or(text.len());
            (name.to_owned(), text[..end].to_owned())
        })
        .collect()
}

/// Whether one line has all the words, the first as its instruction (with or without further modifiers).
fn has_instruction(body: &str, words: &[String]) -> bool {
    body.lines().any(|line| {
        let parts: Vec<&str> = line
            .split(|c: char| c.is_whitespace() || matches!(c, ',' | ';'))
            .filter(|part| !part.is_empty() && !part.starts_with('@'))
            .collect();
        let Some((instruction, operands)) = parts.split_first() else {
            return false;
        };
        let rest = instruction.strip_prefix(words[0].as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            && words[1..]
                .iter()
                .all(|word| operands.contains(&word.as_str()))
    })
}

/// The claims in the documentation of `cuda_std`'s functions: `PTX: `instruction`; sm_80.`
fn claims() -> BTreeMap<String, Claim> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cuda_std/src");
    let mut claims = BTreeMap::new();
    for entry in std::fs::read_dir(sources).expect("cuda_std is beside this crate") {
        let path = entry.expect("readable").path();
        if path.ends_with("llvm.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("readable");
        let mut documentation = String::new();
        for line in text.lines().map(str::trim) {
            if let Some(doc) = line.strip_prefix("///") {
                documentation.push_str(doc);
            } else if let Some(function) = function_name(line) {
                let documentation = std::mem::take(&mut documentation);
                if WITHOUT_AN_INSTRUCTION.contains(&function) {
                    continue;
                }
                match claim(&documentation) {
                    Some(claim) => {
                        claims.insert(function.to_owned(), claim);
                    }
                    // The implementation of a trait's method, documented at the trait.
                    None if documentation.is_empty() => {}
                    None => panic!("{}: `{function}` names no PTX instruction", path.display()),
                }
            } else if !line.starts_with("#[") {
                documentation.clear();
            }
        }
    }
    claims
}

fn function_name(line: &str) -> Option<&str> {
    let line = line.strip_prefix("pub ").unwrap_or(line);
    let line = line.strip_prefix("const ").unwrap_or(line);
    let line = line.strip_prefix("unsafe ").unwrap_or(line);
    let rest = line.strip_prefix("fn ")?;
    let name = rest.split(['(', '<']).next()?;
    (!name.starts_with('$')).then_some(name)
}

fn claim(documentation: &str) -> Option<Claim> {
    let (_, rest) = documentation.split_once("PTX: `")?;
    let (instruction, rest) = rest.split_once('`')?;
    let always_there = rest.starts_with(" from sm_");
    let architecture = rest.find("sm_").map(|at| &rest[at + 3..]);
    let capability = match architecture {
        _ if rest.contains("any architecture") => 0,
        Some(number) => number
            .split(|c: char| !c.is_ascii_digit())
            .next()?
            .parse()
            .ok()?,
        None => return None,
    };
    Some(Claim {
        words: instruction.split(' ').map(str::to_owned).collect(),
        capability,
        always_there,
    })
}

fn assemble(ptx: &Path, arch: &str) {
    let Some(ptxas) = machine::ptxas() else {
        return;
    };
    let output = Command::new(ptxas)
        .args([
            "--gpu-name",
            arch,
            "--warning-as-error",
            "--output-file",
            "/dev/null",
        ])
        .arg(ptx)
        .output()
        .expect("ptxas starts");
    assert!(
        output.status.success(),
        "{arch}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_claim_is_read_as_it_is_meant() {
    let read = |text| claim(text).expect("a claim");
    let plain = read(" Does a thing. PTX: `mov.u32 %tid.x`; any architecture.");
    assert_eq!(
        (plain.words.len(), plain.capability, plain.always_there),
        (2, 0, false)
    );
    let newer = read(" PTX: `redux.sync.add.s32`; sm_80.");
    assert_eq!(
        (newer.words.len(), newer.capability, newer.always_there),
        (1, 80, false)
    );
    let both = read(" PTX: `cvt.rn.bf16.f32` from sm_80; before, integer instructions.");
    assert_eq!((both.capability, both.always_there), (80, true));
    assert!(claim(" Says nothing of PTX.").is_none());
    assert!(has_instruction(
        "\t@%p1 bar.sync \t0;",
        &["bar.sync".to_owned(), "0".to_owned()]
    ));
    assert!(!has_instruction(
        "\tbar.sync 1;",
        &["bar.sync".to_owned(), "0".to_owned()]
    ));
    assert!(!has_instruction(
        "\tdp4a.u32.s32 %r1, %r2;",
        &["dp4a.u32.s".to_owned()]
    ));
}
