//! `ptx-emu list`.

use std::path::Path;

use serde_json::json;

use crate::output::put;
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
        let version = format!("{major}.{minor}");
        let object = json!({"target": module.target(), "version": version, "entries": entries});
        put(&format!("{object}\n"))?;
        return Ok(Outcome::Ran);
    }
    let mut text = format!("sm_{}\n", module.target());
    for entry in module.entries() {
        let sizes: Vec<_> = entry
            .params
            .iter()
            .map(|param| param.size.to_string())
            .collect();
        text += &format!(
            "{}  line {}, parameters of {} bytes, {} bytes of static shared memory\n",
            entry.name,
            entry.line,
            sizes.join(" "),
            entry.static_shared
        );
    }
    put(&text)?;
    Ok(Outcome::Ran)
}
