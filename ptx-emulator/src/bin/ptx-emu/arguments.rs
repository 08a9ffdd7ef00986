//! Kernel arguments from the command line.

use std::path::PathBuf;

use anyhow::{Context, bail};
use ptx_emulator::Emulator;

/// A kernel argument, and the file that its buffer goes to afterwards.
pub struct Argument {
    pub bytes: Vec<u8>,
    /// Address and length, where it is a buffer.
    pub buffer: Option<(u64, usize)>,
    /// Address, length and file.
    pub output: Option<(u64, usize, PathBuf)>,
}

pub fn argument(device: &Emulator, text: &str) -> anyhow::Result<Argument> {
    let (kind, rest) = text
        .split_once(':')
        .with_context(|| format!("argument `{text}`: write it as KIND:VALUE"))?;
    let buffer = |bytes: usize| {
        device
            .alloc(bytes)
            .with_context(|| format!("argument `{text}`"))
    };
    macro_rules! number {
        ($ty:ty) => {
            rest.parse::<$ty>()
                .with_context(|| format!("argument `{text}`: `{rest}` is not a {kind}"))?
                .to_le_bytes()
                .to_vec()
        };
    }
    let bytes = match kind {
        "buf" => {
            let (input, output) = match rest.split_once(':') {
                Some((input, output)) => (input, Some(PathBuf::from(output))),
                None => (rest, None),
            };
            let data = std::fs::read(input).with_context(|| format!("cannot read {input}"))?;
            let address = buffer(data.len())?;
            device.write(address, &data)?;
            return Ok(Argument {
                bytes: address.to_le_bytes().to_vec(),
                buffer: Some((address, data.len())),
                output: output.map(|path| (address, data.len(), path)),
            });
        }
        "out" => {
            let (size, path) = rest
                .split_once(':')
                .with_context(|| format!("argument `{text}`: write it as out:BYTES:FILE"))?;
            let size = size
                .parse()
                .with_context(|| format!("argument `{text}`: `{size}` is not a number"))?;
            let address = buffer(size)?;
            return Ok(Argument {
                bytes: address.to_le_bytes().to_vec(),
                buffer: Some((address, size)),
                output: Some((address, size, PathBuf::from(path))),
            });
        }
        "u8" => number!(u8),
        "u16" => number!(u16),
        "u32" => number!(u32),
        "u64" => number!(u64),
        "s8" => number!(i8),
        "s16" => number!(i16),
        "s32" => number!(i32),
        "s64" => number!(i64),
        "f32" => number!(f32),
        "f64" => number!(f64),
        _ => bail!(
            "argument `{text}`: `{kind}` is not one of buf, out, u8 to u64, s8 to s64, f32, f64"
        ),
    };
    Ok(Argument {
        bytes,
        buffer: None,
        output: None,
    })
}
