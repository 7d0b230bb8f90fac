//! Tests of whole paths: from files of every kind to classes, and against Keras, PyTorch and
//! tract. One program, because each links a training framework.

mod burnpack_import;
mod engines;
mod keras_augmentation;
mod keras_goldens;
mod keras_legacy;
mod keras_saved;
mod keras_training;
mod onnx_tract;
mod random_graphs;
mod tflite_import;
mod torch_import;
mod versions;
mod whole_path;
