//! Networks as values: architectures, graphs with weights, checkpoints, and what all of them count on.
//!
//! | module | is about |
//! |---|---|
//! | [`architecture`] | families of networks, by name and config; one file each, such as [`architecture::resnet`] |
//! | [`blueprint`] | a topology without weights, of which all else follows |
//! | [`checkpoint`] | the `.mpk` file: an architecture with weights, labels and preprocessing |
//! | [`graph`], [`evaluate`](mod@evaluate) | a network as a list of operations with numbers, and what it means |
//! | [`model`] | a graph and what belongs to it, wherever it came from |
//! | [`int8`] | numbers of int8 |
//! | [`init`] | models with random weights |
//! | [`restate`] | the same function with other statistics in its batch-norms |
//! | [`nearest`] | names that were misspelled |
//! | [`random`], [`file`](mod@file), [`padding`], [`activation`], [`imagenet`] | what all of these count on |

pub mod activation;
pub mod architecture;
pub mod blueprint;
pub mod checkpoint;
pub mod evaluate;
pub mod file;
pub mod graph;
pub mod imagenet;
pub mod init;
pub mod int8;
pub mod model;
pub mod nearest;
pub mod padding;
pub mod random;
pub mod restate;
pub mod shortened;
