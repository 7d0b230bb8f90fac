//! Networks as values: architectures, graphs with weights, checkpoints, and what all of them count on.
pub mod checkpoint;
pub mod evaluate;
pub mod graph;
pub mod imagenet;
pub mod init;
pub mod int8;
pub mod model;
pub mod padding;
pub mod random;
pub mod resnet;
