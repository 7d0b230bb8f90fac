//! Writers of model files.

pub mod edge;
pub mod keras;
pub mod onnx;
mod onnx_proto;
pub mod torch;
mod winograd;
