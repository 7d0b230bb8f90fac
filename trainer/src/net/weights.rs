//! Between Burn tensors and the checkpoint's named tensors.
//!
//! The checkpoint stores filters OHWI, Burn computes with OIHW; dense weights are
//! (out, in) in both.

use super::{Network, Role, Tensors, Visitor, is_head, replace, set_statistic};
use burn::module::{Param, RunningState};
use burn::tensor::{Tensor, TensorData};
use network::checkpoint;
use std::collections::BTreeMap;

/// Why a checkpoint's tensors do not fit a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A tensor that the network has and the checkpoint lacks.
    #[error("tensor `{0}` is missing from the checkpoint")]
    Missing(String),
    /// Another shape.
    #[error("tensor `{name}` has shape {found:?} in the checkpoint, the network needs {wanted:?}")]
    Shape {
        /// Tensor.
        name: String,
        /// In the checkpoint.
        found: Vec<usize>,
        /// In the network, checkpoint layout.
        wanted: Vec<usize>,
    },
}

/// Copies the checkpoint's tensors into the network.
///
/// With `skip_head` the head keeps its own weights (fine-tuning to other classes).
///
/// # Errors
/// Tensors that are missing or of another shape; the network is then partly overwritten.
pub fn load_tensors(
    net: &mut Network,
    tensors: &BTreeMap<String, checkpoint::Tensor>,
    skip_head: bool,
) -> Result<(), LoadError> {
    struct Load<'a> {
        tensors: &'a BTreeMap<String, checkpoint::Tensor>,
        skip_head: bool,
        error: Option<LoadError>,
    }
    impl Load<'_> {
        fn find(&mut self, name: &str, wanted: &[usize]) -> Option<Vec<f32>> {
            let found = match self.tensors.get(name) {
                Some(t) if t.shape == wanted => return Some(t.to_f32()),
                Some(t) => LoadError::Shape {
                    name: name.into(),
                    found: t.shape.clone(),
                    wanted: wanted.to_vec(),
                },
                None => LoadError::Missing(name.into()),
            };
            self.error.get_or_insert(found);
            None
        }
    }
    impl Visitor for Load<'_> {
        fn parameter<const D: usize>(&mut self, name: &str, _: Role, value: &mut Param<Tensor<D>>) {
            if self.skip_head && is_head(name) {
                return;
            }
            let old = value.val();
            let wanted = stored_shape(&old.dims());
            let Some(values) = self.find(name, &wanted) else { return };
            let data = TensorData::new(values, wanted);
            let new = Tensor::<D>::from_data(data, &old.device());
            // OHWI to OIHW.
            let new = if D == 4 { new.swap_dims(2, 3).swap_dims(1, 2) } else { new };
            // Permuted tensors are views; a fresh one keeps the kernels on their fast path.
            let new = Tensor::<D>::from_data(new.into_data(), &old.device());
            replace(value, new);
        }
        fn statistic(&mut self, name: &str, value: &RunningState<Tensor<1>>) {
            let old = value.value();
            let Some(values) = self.find(name, &old.dims()) else { return };
            let data = TensorData::new(values, old.dims());
            set_statistic(value, Tensor::from_data(data, &old.device()));
        }
    }
    let mut load = Load { tensors, skip_head, error: None };
    net.visit_tensors(&mut load);
    load.error.map_or(Ok(()), Err)
}

/// Every tensor of the network in the checkpoint's layout.
pub fn save_tensors(net: &Network) -> BTreeMap<String, checkpoint::Tensor> {
    struct Save(BTreeMap<String, checkpoint::Tensor>);
    impl Visitor for Save {
        fn parameter<const D: usize>(&mut self, name: &str, _: Role, value: &mut Param<Tensor<D>>) {
            let value = value.val().inner();
            // OIHW to OHWI.
            let value = if D == 4 { value.swap_dims(1, 2).swap_dims(2, 3) } else { value };
            self.0.insert(name.into(), stored(value));
        }
        fn statistic(&mut self, name: &str, value: &RunningState<Tensor<1>>) {
            self.0.insert(name.into(), stored(value.value().inner()));
        }
    }
    let mut save = Save(BTreeMap::new());
    // Cloning copies handles, not numbers; visiting wants `&mut` for the loader's sake.
    net.clone().visit_tensors(&mut save);
    save.0
}

fn stored<const D: usize>(value: Tensor<D>) -> checkpoint::Tensor {
    let shape = value.dims();
    let values: Vec<f32> = value.into_data().iter::<f32>().collect();
    checkpoint::Tensor::from_f32(&shape, &values)
}

/// A Burn shape in the checkpoint's layout: OIHW becomes OHWI.
fn stored_shape(dims: &[usize]) -> Vec<usize> {
    match *dims {
        [o, i, h, w] => vec![o, h, w, i],
        _ => dims.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Init;
    use burn::module::Module;
    use burn::tensor::Device;
    use network::architecture::Architecture;
    use network::architecture::resnet::BlockType;

    fn small(block_type: BlockType, use_pre_activation: bool) -> Architecture {
        let mut config = Architecture::by_name("resnet_8_cifar", 3).unwrap();
        let resnet = config.family.resnet_mut().unwrap();
        resnet.input_conv_filters = vec![8];
        resnet.stackwise_num_filters = vec![8, 8, 16];
        resnet.block_type = block_type;
        resnet.use_pre_activation = use_pre_activation;
        config
    }

    #[test]
    fn saved_tensors_have_the_architectures_names_and_shapes_and_load_again() {
        use BlockType::{BasicBlock, BasicBlockVd, BottleneckBlock, BottleneckBlockVd};
        for block in [BasicBlock, BottleneckBlock, BasicBlockVd, BottleneckBlockVd] {
            for v2 in [false, true] {
                let config = small(block, v2);
                if config.check().is_err() {
                    // vd has no second version.
                    assert!(v2 && matches!(block, BasicBlockVd | BottleneckBlockVd));
                    continue;
                }
                let device = Device::flex();
                let net = Network::new(&config, Init::he(1), &device).unwrap();
                let saved = save_tensors(&net);
                let shapes: BTreeMap<_, _> =
                    saved.iter().map(|(n, t)| (n.clone(), t.shape.clone())).collect();
                assert_eq!(shapes, config.blueprint().tensors().collect());
                let mut other = Network::new(&config, Init::he(2), &device).unwrap();
                load_tensors(&mut other, &saved, false).unwrap();
                assert_eq!(save_tensors(&other), saved);
                let x = Tensor::<4>::ones([2, 3, 16, 16], &device);
                let y = net.valid().forward(x.clone()).into_data();
                assert_eq!(y, other.forward(x).into_data());
            }
        }
    }

    #[test]
    fn wrong_tensors_are_named() {
        let config = small(BlockType::BasicBlock, false);
        let device = Device::flex();
        let mut net = Network::new(&config, Init::he(1), &device).unwrap();
        let mut saved = save_tensors(&net);
        saved.remove("conv1_bn.mean");
        let missing = Err(LoadError::Missing("conv1_bn.mean".into()));
        assert_eq!(load_tensors(&mut net, &saved, false), missing);
        let mut saved = save_tensors(&net);
        saved.insert("predictions.bias".into(), checkpoint::Tensor::from_f32(&[2], &[0.0; 2]));
        assert!(matches!(
            load_tensors(&mut net, &saved, false),
            Err(LoadError::Shape { found, .. }) if found == [2]
        ));
        assert_eq!(load_tensors(&mut net, &saved, true), Ok(()));
    }
}
