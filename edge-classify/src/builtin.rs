//! The model that is compiled into the program.

/// ResNet-20 for CIFAR-10's ten classes.
static BUILTIN: &[u8] = runtime::include_artifact!("../../models/resnet_20_cifar10.edge");

/// The built-in model's file; `None` in a build made without one.
pub(crate) fn model() -> Option<&'static [u8]> {
    (!BUILTIN.is_empty()).then_some(BUILTIN)
}
