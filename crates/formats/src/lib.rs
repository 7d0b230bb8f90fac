//! Files of others, read into numbers and names: HDF5, pickles, archives, FlatBuffers, protobuf.
//!
//! Nothing here knows what a network is. Whatever a file holds, reading it ends, in memory of the
//! order of the file's, with numbers or with an error.
pub mod archive;
pub mod flatbuffer;
pub mod hdf5;
#[expect(missing_docs, reason = "fields are those of onnx.proto, which documents them")]
pub mod onnx;
pub mod pickle;

/// A numeric array as it lies in the source.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Values, row by row.
    pub values: Vec<f32>,
}
