//! Keeps the library's own interface the only thing that it exports.

fn main() {
    // The crates that this one is made of define functions of the CUDA driver's names (docs/driver.md). Exported, they would
    // take the place of the driver's own in a program that links both.
    println!("cargo::rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libbitnet.so");
    // Under AddressSanitizer, the library takes the runtime from the test program that loads it.
    println!("cargo::rustc-link-arg-tests=-rdynamic");
    println!("cargo::rerun-if-changed=build.rs");
}
