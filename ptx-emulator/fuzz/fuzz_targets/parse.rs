//! Any text is parsed or refused, with a line of the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ptx_emulator::Module;

fuzz_target!(|text: &str| {
    match Module::parse(text) {
        Ok(module) => {
            for entry in module.entries() {
                assert!(entry.line >= 1 && entry.line <= text.lines().count());
            }
        }
        Err(error) => {
            assert!(error.line <= text.lines().count() + 1, "{error}");
            assert!(!error.message.is_empty());
        }
    }
});
