//! Any bytes as TensorFlow Lite.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| edge_fuzz::import(data, "tflite"));
