//! Batch-norm statistics over the pictures of all processes ("synchronized batch-norm").
//!
//! A kernel computes its sums over its own pictures, calls one of these functions where
//! [`others`](crate::processes::others) names other processes, and goes on with what comes back, as if it
//! had seen all pictures. Gradients of γ and β stay sums over its own pictures, because the
//! gradients of all parameters are summed over the processes at the end of the step.

use crate::processes::AllReduce;

/// Joins the moments of each channel: `mean: [C]` and `squares: [C]`, the sum of squares around
/// the mean, over `population` values of this process, become those over all processes'. Returns
/// the number of values of all processes.
///
/// Squares around each process's own mean are moved to zero and, after the sum, to the common
/// mean. That loses digits where the mean is large, but f64 has them to spare: with a mean of
/// 10⁴ standard deviations, 8 of 16.
pub fn join_moments(
    processes: &dyn AllReduce,
    population: f64,
    mean: &mut [f64],
    squares: &mut [f64],
) -> f64 {
    let own = mean.iter().zip(&*squares);
    let mut sums: Vec<f64> = own
        .flat_map(|(mean, squares)| [mean * population, squares + mean * mean * population])
        .chain([population])
        .collect();
    processes.sum(&mut sums);
    let population = sums.pop().unwrap_or(population);
    let (pairs, _) = sums.as_chunks::<2>();
    for ((mean, squares), [sum, all]) in mean.iter_mut().zip(squares).zip(pairs) {
        *mean = sum / population;
        let around = all - *mean * sum;
        // Rounding may end below zero; NaN stays.
        *squares = if around < 0.0 { 0.0 } else { around };
    }
    population
}

/// Joins what the gradient of each channel needs: `sums` of any number of values, over
/// `population` values of this process, become those over all processes'. Returns the number of
/// values of all processes.
pub fn join_sums(processes: &dyn AllReduce, population: f64, sums: &mut Vec<f64>) -> f64 {
    sums.push(population);
    processes.sum(sums);
    sums.pop().unwrap_or(population)
}
