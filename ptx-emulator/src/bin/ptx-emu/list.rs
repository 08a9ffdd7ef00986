//! `ptx-emu list`.

use std::path::Path;

use serde_json::json;

use crate::{Outcome, load};

pub fn list(file: &Path, as_json: bool) -> anyhow::Result<Outcome> {
    let module = load(file)?;
    if as_json {
        let entries: Vec<_> = module
            .entries()
            .map(|entry| {
                let params: Vec<_> = entry
                    .params
                    .iter()
                    .map(|param| json!({"name": param.name, "size": param.size, "align": param.align}))
                    .collect();
                json!({
                    "name": entry.name,
                    "line": entry.line,
                    "params": params,
                    "max_threads": entry.max_threads,
                    "required_threads": entry.required_threads,
                    "static_shared": entry.static_shared,
                })
            })
            .collect();
        let (major, minor) = module.ptx_version();
        println!(
            "{}",
            json!({"target": module.target(), "version": format!("{major}.{minor}"), "entries": entries})
        );
        return Ok(Outcome::Ran);
    }
    println!("sm_{}", module.target());
    for entry in module.entries() {
        let sizes: Vec<_> = entry
            .params
            .iter()
            .map(|param| param.size.to_string())
            .collect();
        println!(
            "{}  line {}, parameters of {} bytes, {} bytes of static shared memory",
            entry.name,
            entry.line,
            sizes.join(" "),
            entry.static_shared
        );
    }
    Ok(Outcome::Ran)
}
