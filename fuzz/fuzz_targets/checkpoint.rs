//! Any bytes as an `.mpk` checkpoint: refused, or consistent.
#![no_main]

use libfuzzer_sys::fuzz_target;
use network::checkpoint::Checkpoint;

fuzz_target!(|data: &[u8]| {
    if let Ok(checkpoint) = Checkpoint::from_bytes(data, "fuzz.mpk") {
        checkpoint.fits().expect("reading has checked it");
    }
});
