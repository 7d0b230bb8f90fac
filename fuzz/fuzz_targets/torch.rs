//! Any bytes as PyTorch's, `.pt`, `.th` or `.safetensors`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| edge_fuzz::import(data, "pt"));
