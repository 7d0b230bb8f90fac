//! Other processes that train the same network, each on its share of every batch: what kernels need
//! of them.

use std::sync::OnceLock;

/// Sums over all processes.
pub trait AllReduce: core::fmt::Debug + Send + Sync {
    /// Sums element by element over all processes, in place; the same bits on every process.
    /// All must call it with as many values.
    fn sum(&self, values: &mut [f64]);
    /// How many there are, at least 1.
    fn processes(&self) -> usize;
}

static OTHERS: OnceLock<&'static dyn AllReduce> = OnceLock::new();

/// Lets batch statistics be summed over `processes` from now on; the first call decides.
pub fn join(processes: &'static dyn AllReduce) {
    OTHERS.get_or_init(|| processes);
}

/// What batch statistics are summed over; `None` where this process has the whole batch.
pub fn others() -> Option<&'static dyn AllReduce> {
    OTHERS.get().copied().filter(|all| all.processes() > 1)
}
