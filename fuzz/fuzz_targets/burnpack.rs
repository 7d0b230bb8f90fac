//! Any bytes as Burn's `.bpk`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| edge_fuzz::import(data, "bpk"));
