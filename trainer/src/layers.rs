//! Where the time of a training step goes, operator by operator.

use accel::trace::Call;
use core::time::Duration;
use std::collections::BTreeMap;
use std::io::Write;

/// Operators in the order of their first calls.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    lines: Vec<Line>,
    /// Numbers of the lines.
    places: BTreeMap<String, usize>,
    /// What of a step is in none; of the fastest.
    rest: Option<Duration>,
}

/// All calls of one operator.
#[derive(Debug, Default)]
struct Line {
    operator: String,
    /// Forward and backward.
    passes: [Pass; 2],
}

/// Of one step.
#[derive(Debug, Default, Clone, Copy)]
struct Pass {
    calls: usize,
    macs: u64,
    /// Of the fastest step.
    time: Option<Duration>,
}

impl Pass {
    fn ms(self) -> f64 {
        1e3 * self.time.unwrap_or_default().as_secs_f64()
    }
}

impl Layers {
    /// Adds the calls of a step that took `whole`; of each operator the fastest step counts.
    pub(crate) fn add(&mut self, calls: &[Call], whole: Duration) {
        let rest = whole.saturating_sub(calls.iter().map(|call| call.time).sum());
        self.rest = Some(self.rest.map_or(rest, |least| least.min(rest)));
        let mut sums: BTreeMap<(&str, bool), Pass> = BTreeMap::new();
        for call in calls {
            let sum = sums.entry((&call.operator, call.backward)).or_default();
            sum.calls += 1;
            sum.macs += call.macs;
            sum.time = Some(sum.time.unwrap_or_default() + call.time);
            self.places.entry(call.operator.clone()).or_insert_with(|| {
                self.lines.push(Line { operator: call.operator.clone(), ..Line::default() });
                self.lines.len() - 1
            });
        }
        for ((operator, backward), sum) in sums {
            let pass = &mut self.lines[self.places[operator]].passes[usize::from(backward)];
            if pass.time.is_none_or(|time| sum.time.is_some_and(|own| own < time)) {
                *pass = sum;
            }
        }
    }

    /// Prints a table, with the share that each line reaches of `peak` 10⁹ multiply-accumulates a
    /// second.
    pub(crate) fn write(&self, peak: f64, out: &mut dyn Write) -> anyhow::Result<()> {
        writeln!(out, "inner loop alone: {peak:.1} GMAC/s")?;
        writeln!(
            out,
            "{:<36} {:>5} {:>9} {:>9} {:>8} {:>8} {:>8}",
            "operator", "calls", "forward", "backward", "GMAC/s", "GMAC/s", "of peak"
        )?;
        let mut total = [0.0, 0.0];
        for Line { operator, passes } in &self.lines {
            let ms = passes.map(Pass::ms);
            total = [total[0] + ms[0], total[1] + ms[1]];
            let macs = passes.map(|pass| pass.macs as f64 / 1e6);
            let calls = passes[0].calls.max(passes[1].calls);
            write!(out, "{operator:<36} {calls:>5} {:>9.2} {:>9.2}", ms[0], ms[1])?;
            if macs[0] + macs[1] > 0.0 {
                let rates = [0, 1].map(|pass| macs[pass] / ms[pass].max(1e-9));
                let all = (macs[0] + macs[1]) / (ms[0] + ms[1]).max(1e-9);
                let share = 100.0 * all / peak;
                write!(out, " {:>8.1} {:>8.1} {share:>6.0} %", rates[0], rates[1])?;
            }
            writeln!(out)?;
        }
        let rest = 1e3 * self.rest.unwrap_or_default().as_secs_f64();
        writeln!(out, "{:<36} {:>5} {:>9.2} {:>9.2}", "all in ms", "", total[0], total[1])?;
        writeln!(out, "{:<36} {:>5} {rest:>9.2}", "between them", "")?;
        Ok(())
    }
}
