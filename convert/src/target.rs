//! Classes of devices.

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
}
