//! Instructions of one pass of each term; made by `firmware-demo/costs.sh`.

use super::Terms;

pub(super) const CORTEX_M0PLUS: Terms = [0.0; 24];
pub(super) const CORTEX_M3: Terms = [0.0; 24];
pub(super) const CORTEX_M4: Terms = [0.0; 24];
pub(super) const CORTEX_M33: Terms = [0.0; 24];
pub(super) const RISCV32: Terms = [0.0; 24];
