//! What a device file takes on a microcontroller, before there is one: instructions, by a model that was fitted
//! to counts of emulated boards.
//!
//! Each operator is described by how often its loops run ([`Term`]), each core by what one pass takes
//! (`coefficients`). `firmware-demo/costs.sh` counts networks operator by operator and fits the
//! coefficients anew; `tests/costs.rs` holds the model to networks that it was not fitted to.

mod coefficients;
mod fit;
mod terms;

pub use fit::{Row, fit};
pub use terms::{TERMS, Term, Terms, counted};

use artifact::Artifact;

/// A core with kernels of its own, or instructions of its own.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Core {
    /// Armv6-M: no DSP instructions, few others
    #[serde(rename = "cortex-m0plus")]
    #[value(name = "cortex-m0plus")]
    CortexM0Plus,
    /// Armv7-M, without DSP instructions
    CortexM3,
    /// Armv7E-M
    CortexM4,
    /// Armv7E-M, up to two instructions at a time
    CortexM7,
    /// Armv8-M Mainline with DSP instructions
    CortexM33,
    /// RV32IMAC
    Riscv32,
    /// Of a Raspberry Pi 3 and Zero 2 W
    CortexA53,
    /// Of a Raspberry Pi 4
    CortexA72,
    /// Of a Raspberry Pi 5, with dot products
    CortexA76,
}

/// Where instructions of a core are from.
enum Cost {
    /// Instructions of one pass of each of the [`TERMS`], and cycles of one of them, about: flash and caches
    /// differ from chip to chip.
    ///
    /// A load of three words takes four cycles of a Cortex-M4, a taken branch three; a Cortex-M7 executes some
    /// instructions by twos.
    Counted(&'static Terms, f64),
    /// Multiply-accumulates of a cycle: of depthwise convolutions and of others. `docs/kernels.md` has those of
    /// the loops; this is what is left of them on smaller maps, about.
    Rates([f64; 2]),
}

impl Core {
    /// Name in files and on command lines.
    pub fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self).map_or(String::new(), |v| v.get_name().into())
    }

    /// Whether files for it are those of microcontrollers.
    pub const fn is_microcontroller(self) -> bool {
        matches!(self.cost(), Cost::Counted(..))
    }

    const fn cost(self) -> Cost {
        use coefficients::{CORTEX_M0PLUS, CORTEX_M3, CORTEX_M4, CORTEX_M33, RISCV32};
        match self {
            Self::CortexM0Plus => Cost::Counted(&CORTEX_M0PLUS, 1.4),
            Self::CortexM3 => Cost::Counted(&CORTEX_M3, 1.4),
            Self::CortexM4 => Cost::Counted(&CORTEX_M4, 1.35),
            // The same program.
            Self::CortexM7 => Cost::Counted(&CORTEX_M4, 0.75),
            Self::CortexM33 => Cost::Counted(&CORTEX_M33, 1.35),
            Self::Riscv32 => Cost::Counted(&RISCV32, 1.3),
            Self::CortexA53 => Cost::Rates([0.7, 2.5]),
            Self::CortexA72 => Cost::Rates([1.5, 4.0]),
            Self::CortexA76 => Cost::Rates([4.0, 16.0]),
        }
    }
}

/// Instructions of one run of a file for microcontrollers, about, without the scaling of the picture; `None` of
/// other cores.
pub fn instructions(artifact: &Artifact<'_>, core: Core) -> Option<f64> {
    let Cost::Counted(coefficients, _) = core.cost() else { return None };
    Some(counted(artifact).iter().map(|(_, terms)| dot(terms, coefficients)).sum())
}

/// Cycles of one run on `threads` cores of a kind, about.
pub fn cycles(artifact: &Artifact<'_>, core: Core, threads: u8) -> f64 {
    /// What each thread beyond the first adds.
    const SCALING: f64 = 0.8;
    match core.cost() {
        Cost::Counted(_, cycles) => instructions(artifact, core).unwrap_or_default() * cycles,
        Cost::Rates([depthwise, others]) => {
            let cycles = artifact.ops().map(|op| {
                let is_depthwise = op.grouped().is_some_and(|conv| conv.is_depthwise());
                // Cheap operators still read and write.
                let moved = (op.input().shape.len() + op.output().shape.len()) as f64 / 8.0;
                moved + op.macs() as f64 / if is_depthwise { depthwise } else { others }
            });
            cycles.sum::<f64>() / (1.0 + SCALING * f64::from(threads.saturating_sub(1)))
        }
    }
}

fn dot(terms: &Terms, coefficients: &Terms) -> f64 {
    terms.iter().zip(coefficients).map(|(a, b)| a * b).sum()
}
