//! Classes of devices.

use artifact::Dtype;
use artifact::layout::has_columns;

/// Where the model will run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Target {
    /// PC or Raspberry Pi: panels of 16 output channels.
    #[default]
    Host,
    /// Microcontroller: panels of 4.
    CortexM,
}

impl Target {
    /// Panel width NR.
    pub const fn nr(self) -> usize {
        match self {
            Self::Host => 16,
            Self::CortexM => 4,
        }
    }

    /// Whether it has kernels for files of `dtype`: firmware, which is built without the runtime's
    /// feature `host`, refuses all others.
    pub const fn runs(self, dtype: Dtype) -> bool {
        match self {
            Self::Host => true,
            Self::CortexM => has_columns(dtype, self.nr()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use artifact::Header;

    #[test]
    fn targets_run_what_their_runtime_accepts() {
        let file = include_bytes!("../../models/resnet_8_cifar10.edge");
        let header = Header::parse(file).unwrap();
        for target in [Target::Host, Target::CortexM] {
            for dtype in [Dtype::I8, Dtype::F16, Dtype::Bf16, Dtype::F32] {
                let header = Header { dtype, nr: target.nr(), ..header };
                let refused = runtime::refusal(&header, target == Target::Host, true);
                assert_eq!(target.runs(dtype), refused.is_none(), "{target:?} {dtype:?}");
            }
        }
    }
}
