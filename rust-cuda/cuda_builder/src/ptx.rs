//! From rustc's assembly file to the PTX that is loaded.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::ops::Range;

use crate::CudaBuilderError;

/// What `#[kernel(launch_bounds(..))]` leaves in the module's assembly: this, the kernel's name, the most threads in a
/// block, and the least blocks on a multiprocessor (0: none asked for).
const LAUNCH_BOUNDS: &str = "//cuda_builder.launch_bounds ";

struct LaunchBounds {
    max_threads: u32,
    min_blocks: u32,
    line: usize,
}

/// The functions that every driver defines: a module may call them without a definition of its own.
const DEVICE_RUNTIME: [&str; 4] = ["vprintf", "malloc", "free", "__assertfail"];

/// Turns launch-bound comments into directives of the entries they name, drops the comments that only tell which lines
/// were inline assembly, and takes from the symbols what depends on who built the compiler.
pub fn finish(asm: &str) -> Result<String, CudaBuilderError> {
    reject_undefined_functions(asm)?;
    let asm = &clear_crate_hashes(asm);
    let mut bounds = launch_bounds(asm)?;
    let mut text = String::with_capacity(asm.len());
    let mut entry: Option<&str> = None;
    for line in asm.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with(LAUNCH_BOUNDS)
            || matches!(trimmed, "// begin inline asm" | "// end inline asm")
        {
            continue;
        }
        if let Some(name) = entry_name(trimmed) {
            entry = Some(name);
        }
        if trimmed == "{"
            && let Some(name) = entry.take()
            && let Some(found) = bounds.remove(name)
        {
            let _ = writeln!(text, ".maxntid {}, 1, 1", found.max_threads);
            if found.min_blocks > 0 {
                let _ = writeln!(text, ".minnctapersm {}", found.min_blocks);
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if let Some((name, left)) = bounds.into_iter().min_by_key(|(_, bounds)| bounds.line) {
        return Err(CudaBuilderError::Ptx {
            line: left.line,
            what: format!("launch bounds for `{name}`, which is not an entry of the module"),
        });
    }
    Ok(text)
}

/// Nothing is linked to the module, so the driver would refuse it where it calls a function that it does not define.
fn reject_undefined_functions(asm: &str) -> Result<(), CudaBuilderError> {
    for (index, line) in asm.lines().enumerate() {
        if let Some(name) = undefined_function(line.trim())
            && !DEVICE_RUNTIME.contains(&name)
        {
            return Err(CudaBuilderError::Ptx {
                line: index + 1,
                what: format!(
                    "`{name}` is called, and nothing defines it. Define it in the kernel crate \
                     (`#[unsafe(no_mangle)] extern \"C\" fn {name}`), or avoid what calls it: comparing slices of bytes or \
                     integers calls `memcmp`"
                ),
            });
        }
    }
    Ok(())
}

/// The name in `.extern .func  (.param .b32 func_retval0) memcmp`.
fn undefined_function(line: &str) -> Option<&str> {
    let rest = line.strip_prefix(".extern .func")?.trim_start();
    let rest = match rest.strip_prefix('(') {
        Some(result) => result.split_once(')')?.1.trim_start(),
        None => rest,
    };
    rest.split(['(', ' ', ';']).next()
}

/// Names of the entries, in order.
pub fn entries(ptx: &str) -> Vec<String> {
    ptx.lines()
        .filter_map(|line| entry_name(line.trim()))
        .map(str::to_owned)
        .collect()
}

fn entry_name(line: &str) -> Option<&str> {
    let rest = line.strip_prefix(".visible ").unwrap_or(line);
    let rest = rest.strip_prefix(".entry ")?;
    Some(rest.split(['(', ' ']).next().unwrap_or(rest))
}

fn launch_bounds(asm: &str) -> Result<HashMap<&str, LaunchBounds>, CudaBuilderError> {
    let mut all = HashMap::new();
    for (index, line) in asm.lines().enumerate() {
        let Some(rest) = line.trim().strip_prefix(LAUNCH_BOUNDS) else {
            continue;
        };
        let line = index + 1;
        let error = |what: String| CudaBuilderError::Ptx { line, what };
        let mut fields = rest.split_whitespace();
        let (Some(name), Some(threads), Some(blocks), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(error(format!(
                "launch bounds `{rest}` are not `name threads blocks`"
            )));
        };
        let number = |text: &str| {
            text.parse::<u32>()
                .map_err(|_| error(format!("launch bound `{text}` of `{name}` is not a number")))
        };
        let max_threads = number(threads)?;
        if !(1..=1024).contains(&max_threads) {
            return Err(error(format!(
                "launch_bounds({max_threads}, ..) of `{name}`: a block has 1 to 1024 threads"
            )));
        }
        let found = LaunchBounds {
            max_threads,
            min_blocks: number(blocks)?,
            line,
        };
        if all.insert(name, found).is_some() {
            return Err(error(format!("`{name}` has launch bounds twice")));
        }
    }
    Ok(all)
}

/// Overwrites with zeros the hashes that tell crates of one name apart in mangled symbols (`_RNvNtCs1a2b3c_4core...`), so
/// that two builds of one rustc release give the same PTX. A crate that appears with two hashes keeps them. The length
/// stays, because later parts of a symbol refer back to earlier ones by position.
fn clear_crate_hashes(asm: &str) -> String {
    let mut hashes: HashMap<&str, HashSet<&str>> = HashMap::new();
    let mut places = Vec::new();
    for (start, symbol) in symbols(asm) {
        for (hash, name) in crate_roots(symbol) {
            hashes
                .entry(&symbol[name.clone()])
                .or_default()
                .insert(&symbol[hash.clone()]);
            places.push((start + hash.start..start + hash.end, &symbol[name]));
        }
    }
    let mut bytes = asm.as_bytes().to_vec();
    for (place, name) in places {
        if hashes[name].len() == 1 {
            bytes[place].fill(b'0');
        }
    }
    String::from_utf8(bytes).expect("ASCII was replaced by ASCII")
}

/// The symbols in rustc's v0 mangling, with where they start.
fn symbols(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
    let mut end = 0;
    text.match_indices("_R").filter_map(move |(start, _)| {
        if start < end || text[..start].ends_with(is_part) {
            return None;
        }
        let symbol = &text[start..];
        let symbol = &symbol[..symbol.find(|c| !is_part(c)).unwrap_or(symbol.len())];
        end = start + symbol.len();
        Some((start, symbol))
    })
}

/// Where a symbol has a crate's hash and name: `Cs` hash `_` length name.
fn crate_roots(symbol: &str) -> Vec<(Range<usize>, Range<usize>)> {
    let mut roots = Vec::new();
    for (found, _) in symbol.match_indices("Cs") {
        let hash = found + 2;
        let Some(hash_len) = symbol[hash..].find('_') else {
            continue;
        };
        let digits = hash + hash_len + 1;
        let count = symbol[digits..]
            .bytes()
            .take_while(u8::is_ascii_digit)
            .count();
        let Ok(name_len) = symbol[digits..digits + count].parse::<usize>() else {
            continue;
        };
        let name = digits + count;
        let hash = hash..hash + hash_len;
        if name + name_len <= symbol.len()
            && symbol[hash.clone()]
                .bytes()
                .all(|b| b.is_ascii_alphanumeric())
        {
            roots.push((hash, name..name + name_len));
        }
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASM: &str = "\
.version 7.8
//cuda_builder.launch_bounds gemv 128 4
//cuda_builder.launch_bounds norm 256 0
.visible .entry gemv(
\t.param .u32 gemv_param_0
)
{
\t// begin inline asm
\tlop3.b32 %r1, %r2, %r3, %r4, 128;
\t// end inline asm
\t{
\tret;
\t}
}
.visible .entry norm()
{
\tret;
}
.entry plain()
{
\tret;
}
";

    #[test]
    fn launch_bounds_become_directives_of_their_entry() {
        let expected = "\
.version 7.8
.visible .entry gemv(
\t.param .u32 gemv_param_0
)
.maxntid 128, 1, 1
.minnctapersm 4
{
\tlop3.b32 %r1, %r2, %r3, %r4, 128;
\t{
\tret;
\t}
}
.visible .entry norm()
.maxntid 256, 1, 1
{
\tret;
}
.entry plain()
{
\tret;
}
";
        assert_eq!(finish(ASM).expect("well-formed"), expected);
        assert_eq!(entries(expected), ["gemv", "norm", "plain"]);
    }

    #[test]
    fn launch_bounds_that_fit_nothing_are_errors() {
        for (comment, part) in [
            ("gemm 128 4", "`gemm`, which is not an entry"),
            ("gemv 128", "are not `name threads blocks`"),
            ("gemv x 4", "`x` of `gemv` is not a number"),
            ("gemv 0 4", "1 to 1024 threads"),
            ("gemv 1025 4", "1 to 1024 threads"),
        ] {
            let asm = format!(
                "\n//cuda_builder.launch_bounds {comment}\n.visible .entry gemv()\n{{\n}}\n"
            );
            let error = finish(&asm).expect_err(comment).to_string();
            assert!(
                error.contains(part) && error.starts_with("line 2"),
                "{comment}: {error}"
            );
        }
        let twice = ASM.replace("norm 256 0", "gemv 64 1");
        let error = finish(&twice).expect_err("twice").to_string();
        assert!(error.contains("`gemv` has launch bounds twice"), "{error}");
    }

    #[test]
    fn a_function_that_nothing_defines_is_an_error_that_names_it() {
        for declaration in [
            ".extern .func  (.param .b32 func_retval0) memcmp",
            ".extern .func memcmp",
            ".extern .func memcmp(",
        ] {
            let asm = format!("\n{declaration}\n(\n\t.param .b64 memcmp_param_0\n)\n;\n");
            let error = finish(&asm).expect_err(declaration).to_string();
            assert!(
                error.starts_with("line 2") && error.contains("`memcmp` is called"),
                "{declaration}: {error}"
            );
        }
        for defined in [
            ".extern .func  (.param .b32 func_retval0) vprintf",
            ".extern .func __assertfail",
            ".func  (.param .b32 func_retval0) memcmp(",
            ".visible .func memcmp(",
            ".extern .shared .align 16 .b8 cuda_std_dynamic_shared[];",
        ] {
            finish(&format!("{defined}\n")).expect(defined);
        }
    }

    #[test]
    fn crate_hashes_are_cleared_in_place() {
        assert_eq!(
            clear_crate_hashes("call _RNvNtCsanIojcP8aaR_4core9panicking5panic, ();"),
            "call _RNvNtCs00000000000_4core9panicking5panic, ();"
        );
        // Two crates in one symbol.
        assert_eq!(
            clear_crate_hashes("_RINvNtCsab1_4core3ptr4readNtCsZ9_4half4bf16E"),
            "_RINvNtCs000_4core3ptr4readNtCs00_4half4bf16E"
        );
    }

    #[test]
    fn crates_that_only_their_hashes_tell_apart_keep_them() {
        let two = "_RNvCsab1_4half3fooB _RNvCscd2_4half3foo _RNvCsef3_4core3foo";
        assert_eq!(
            clear_crate_hashes(two),
            "_RNvCsab1_4half3fooB _RNvCscd2_4half3foo _RNvCs000_4core3foo"
        );
    }

    #[test]
    fn what_only_looks_like_a_hash_is_left() {
        for text in [
            "Csab1_4core",
            "x_RNvCsab1_4core3foo",
            "_RNvCsab1_9core",
            "_RNvCsab1_core",
            "_RNvCsab1",
        ] {
            assert_eq!(clear_crate_hashes(text), text);
        }
    }
}
