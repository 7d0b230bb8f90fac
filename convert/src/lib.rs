//! Imports, optimizes, quantizes and plans models.
pub mod accuracy;
pub mod checkpoint;
pub mod cli;
pub mod data;
pub mod emit;
pub mod graph;
pub mod hub;
pub mod import;
pub mod inspect;
pub mod optimize;
pub mod padding;
pub mod pipeline;
pub mod plan;
pub mod progress;
pub mod quantize;
pub mod random;
pub mod resnet;
