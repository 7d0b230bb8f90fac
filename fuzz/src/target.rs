//! The target that the program is named for.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    const NAME: &str = env!("CARGO_BIN_NAME");
    let target = edge_fuzz::TARGETS.iter().find(|(name, ..)| *name == NAME);
    target.expect("a target of that name").2(data);
});
