//! Gives the linker an empty `libcuda.a`, so that the `-lcuda` that `cust_raw` asks for is satisfied without a CUDA
//! toolkit. The functions themselves are in `src/trampolines.rs`.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let archive = folder.join("libcuda.a");
    if let Err(error) = fs::write(&archive, "!<arch>\n") {
        panic!("cannot write {}: {error}", archive.display());
    }
    println!("cargo::rustc-link-search=native={}", folder.display());
}
