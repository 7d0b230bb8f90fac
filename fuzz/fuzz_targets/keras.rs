//! Any bytes as a saved model of Keras, `.keras` or `.h5`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| edge_fuzz::import(data, "keras"));
