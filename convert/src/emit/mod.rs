//! Writers of model files.

pub mod edge;
pub mod keras;
pub mod onnx;
pub mod torch;
mod winograd;
