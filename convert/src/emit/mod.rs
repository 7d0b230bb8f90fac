//! Writers of model files.

pub mod edge;
pub mod onnx;
