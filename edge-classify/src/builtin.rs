//! The model that is compiled into the program.

/// MobileNetV2 for the 1,000 classes of ImageNet.
static BUILTIN: &[u8] = runtime::include_artifact!("../../models/mobilenet_v2.edge");

/// The built-in model's file; `None` in a build made without one.
pub(crate) fn model() -> Option<&'static [u8]> {
    (!BUILTIN.is_empty()).then_some(BUILTIN)
}
