//! Imports, optimizes, quantizes and plans models.
pub mod accuracy;
pub mod budget;
pub mod checkpoint;
pub mod cli;
pub mod data;
pub mod emit;
pub mod graph;
pub mod hub;
pub mod import;
pub mod init;
pub mod inspect;
pub mod model;
mod onnx_proto;
pub mod optimize;
pub mod padding;
pub mod page;
pub mod pipeline;
pub mod plan;
pub mod progress;
pub mod quantize;
pub mod random;
pub mod resnet;
pub mod stripes;
pub mod terminal;
#[cfg(feature = "verify")]
pub mod verify;
