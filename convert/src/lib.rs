//! Optimizes, quantizes, plans, writes and verifies models.
pub mod accuracy;
pub mod board;
pub mod budget;
pub mod cli;
pub mod cost;
pub mod emit;
pub mod inspect;
pub mod int8;
pub mod optimize;
pub mod pipeline;
pub mod plan;
pub mod quantize;
pub mod target;
pub mod verify;
