//! Trains and fine-tunes networks with Burn, and measures them.
//!
//! ```no_run
//! let args = ["trainer", "train", "--arch", "resnet_8_cifar", "--data", "cifar"];
//! let status = trainer::run(args, &mut std::io::stdout());
//! ```
//!
//! | module | does |
//! |---|---|
//! | [`net`] | networks as Burn modules, to and from checkpoints |
//! | [`data`] | pictures from folders and CIFAR files, augmentation, batches |
//! | [`distributed`] | several processes that train together |
//! | `doctor` | what is to be mended in a data set |
//! | `fit` | the network that suits a board |
//! | [`train`] | loop, optimizer, schedule, resuming, evaluation |
//! | `report` | pages and charts of runs and data sets |
//!
//! | feature | adds |
//! |---|---|
//! | `ndarray` | `--backend ndarray`, Burn's other CPU backend |
//! | `cuda`, `vulkan`, `wgpu` | `--backend` of the same name: Burn's on GPUs, with its own operators |
//! | `mpi` | training in several processes, started by `mpirun` |

mod bench;
mod builtin;
mod classify;
mod cli;
pub mod data;
mod distill;
pub mod distributed;
mod doctor;
mod fit;
mod heat;
mod layers;
mod learning;
mod memory;
pub mod net;
mod options;
mod report;
pub mod train;

pub use cli::{command, run};
