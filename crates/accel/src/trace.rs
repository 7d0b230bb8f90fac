//! How long each operator of training takes.

use crate::dispatch::{Kernel, Level, Simd, unroll};
use crate::element::{Element, LANES, Line};
use crate::geometry::Geometry;
use crate::map::Precision;
use crate::norm::Extent;
use core::time::Duration;
use half::bf16;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// One call of an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What it computes, and of which sizes.
    pub operator: String,
    /// Multiply-accumulates.
    pub macs: u64,
    /// It computes gradients.
    pub backward: bool,
    /// From its start to its end.
    pub time: Duration,
}

static CALLS: Mutex<Option<Vec<Call>>> = Mutex::new(None);

fn calls() -> MutexGuard<'static, Option<Vec<Call>>> {
    CALLS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The calls since the last time, in order; the first time none, for only then they begin to be
/// noted, in the whole process.
pub fn take() -> Vec<Call> {
    calls().replace(Vec::new()).unwrap_or_default()
}

/// What a call is noted as.
pub(super) struct Note {
    operator: String,
    macs: usize,
    backward: bool,
}

impl Note {
    /// A convolution or, of which `backward` says the number, gradients of it.
    pub(super) fn conv(g: &Geometry, backward: Option<usize>) -> Self {
        let [height, width] = g.out;
        let (k, kind) = (g.filter, if g.depthwise { "depthwise" } else { "conv" });
        let operator =
            format!("{kind} {k}x{k}/{} {}>{} to {height}x{width}", g.stride, g.c_in, g.c_out);
        let macs = g.images * g.c_out * g.per_filter() * height * width;
        let macs = macs * backward.unwrap_or(1);
        Self { operator, macs, backward: backward.is_some() }
    }

    /// Another operator on a map.
    pub(super) fn map(kind: &str, extent: &Extent, backward: bool) -> Self {
        let (height, width) = (extent.planes.height, extent.planes.width);
        let operator = format!("{kind} {} of {height}x{width}", extent.channels);
        Self { operator, macs: 0, backward }
    }

    /// An optimizer's step.
    pub(super) fn step() -> Self {
        Self { operator: "optimizer".into(), macs: 0, backward: false }
    }
}

/// `work`, noted where calls are.
pub(super) fn noted<T>(note: impl FnOnce() -> Note, work: impl FnOnce() -> T) -> T {
    if calls().is_none() {
        return work();
    }
    let started = Instant::now();
    let result = work();
    let time = started.elapsed();
    let Note { operator, macs, backward } = note();
    if let Some(calls) = calls().as_mut() {
        calls.push(Call { operator, macs: macs as u64, backward, time });
    }
    result
}

/// 10⁹ multiply-accumulates a second of the inner loop of convolutions alone, on all threads of the
/// pool in force: the best of some trials.
pub fn peak_gmacs(precision: Precision) -> f64 {
    const TRIALS: usize = 20;
    const ROUNDS: usize = 100_000;

    let level = Level::detect();
    let trial = || {
        let started = Instant::now();
        let macs: usize = rayon::broadcast(|_| match precision {
            Precision::F32 => rounds::<f32>(level, ROUNDS),
            Precision::Bf16 => rounds::<bf16>(level, ROUNDS),
        })
        .into_iter()
        .sum();
        macs as f64 / 1e9 / started.elapsed().as_secs_f64()
    };
    (0..TRIALS).map(|_| trial()).fold(0.0, f64::max)
}

/// The multiply-accumulates of `rounds` rounds, each of as many sums as registers hold.
fn rounds<E: Element>(level: Level, rounds: usize) -> usize {
    match level.tile().blocks {
        1 => Rounds::<E, 5>::run_at(level, rounds),
        _ => Rounds::<E, 12>::run_at(level, rounds),
    }
}

struct Rounds<'a, E: Element, const N: usize> {
    rounds: usize,
    operand: E::Operand,
    sums: &'a mut [Line; N],
}

impl<E: Element, const N: usize> Rounds<'_, E, N> {
    fn run_at(level: Level, rounds: usize) -> usize {
        let mut sums = [[0.0; LANES]; N];
        level.run(Rounds::<E, N> { rounds, operand: E::operand([0.5; 2]), sums: &mut sums });
        core::hint::black_box(sums);
        rounds * N * LANES * E::DEPTH
    }
}

impl<E: Element, const N: usize> Kernel for Rounds<'_, E, N> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let w = core::hint::black_box([self.operand; LANES]);
        let mut sums = [simd.load(&[0.0; LANES]); N];
        for _ in 0..self.rounds {
            unroll!(n < N, { sums[n] = E::dot(simd, sums[n], self.operand, &w) });
        }
        unroll!(n < N, { self.sums[n] = simd.store(sums[n]) });
    }
}
