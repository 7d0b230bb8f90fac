//! Finds out which instructions the target has: DSP instructions of Arm, which stable Rust does
//! not tell, and WebAssembly's vectors.

use std::env::var;

fn main() {
    println!("cargo:rustc-check-cfg=cfg(edge_dsp, edge_armv8m, edge_thumb2, edge_simd128)");
    println!("cargo:rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    let target = var("TARGET").unwrap_or_default();
    let flags = var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    // Armv7E-M is Armv7-M with them; on Armv8-M they are an option of the core.
    let names_core =
        ["m33", "m35p", "m55", "m85"].iter().any(|m| flags.contains(&format!("cortex-{m}")));
    let is_armv8m = target.starts_with("thumbv8m.main-") && (names_core || flags.contains("+dsp"));
    if is_armv8m {
        println!("cargo:rustc-cfg=edge_armv8m");
    }
    if is_armv8m || target.starts_with("thumbv7em-") {
        println!("cargo:rustc-cfg=edge_dsp");
    } else if target.starts_with("thumbv7m-") || target.starts_with("thumbv8m.main-") {
        println!("cargo:rustc-cfg=edge_thumb2");
    }
    let features = var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    if target.starts_with("wasm32-") && features.split(',').any(|f| f == "simd128") {
        println!("cargo:rustc-cfg=edge_simd128");
    }
}
