//! What int8 costs, layer by layer and picture by picture.

use super::QuantizeError;
use super::calibrate::{values, with_session};
use super::post_training::Quantized;
use crate::emit::edge::{Attributes, Format, to_edge};
use artifact::Quant;
use network::graph::{Graph, NodeOp};
use serde::Serialize;

/// What int8 does to one layer's output.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerError {
    /// Name of the layer.
    pub name: String,
    /// Operation.
    pub operation: &'static str,
    /// Height, width, channels.
    pub shape: [u16; 3],
    /// Signal to quantization noise, `10·log₁₀(Σ x² / Σ (x − q)²)` decibels, of all layers up to
    /// this one; nothing where they are equal.
    pub sqnr_db: Option<f64>,
    /// How much of that was lost since the worst of its inputs; negative where it is better, nothing
    /// where that is the picture.
    pub lost_db: Option<f64>,
    /// Cosine of the angle between the float values and those of int8.
    pub cosine: f64,
    /// Share of the float values outside of the range, 0..=1.
    pub saturated: f64,
    /// How int8 stores it; nothing where the layer is computed in floats.
    pub int8: Option<Int8Range>,
    /// What chose the range; nothing where the file or the format did.
    pub method: Option<&'static str>,
}

/// Which numbers int8 has.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Int8Range {
    /// Smallest value.
    pub low: f32,
    /// Largest value.
    pub high: f32,
    /// Size of a step.
    pub scale: f32,
    /// What stands for zero.
    pub zero_point: i8,
}

impl Int8Range {
    fn new(quant: Quant) -> Option<Self> {
        let Quant { scale, zero_point } = quant;
        let [low, high] = [-128, 127].map(|q| quant.dequantize(q));
        (!quant.is_float()).then_some(Self { low, high, scale, zero_point })
    }
}

/// What int8 does to one picture's classes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PictureError {
    /// Index among the pictures.
    pub picture: usize,
    /// Class in floats.
    pub float_class: usize,
    /// Its probability there.
    pub float_probability: f32,
    /// Class in int8.
    pub int8_class: usize,
    /// Its probability there.
    pub int8_probability: f32,
    /// Root of the mean squared difference of the logits, in units of the logits' deviation.
    pub error: f64,
}

/// What int8 does to a network.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// Layer by layer.
    pub layers: Vec<LayerError>,
    /// Picture by picture.
    pub pictures: Vec<PictureError>,
}

impl Measured {
    /// Share of the pictures of which both name the same class, 0..=1.
    pub fn agreement(&self) -> f64 {
        let same = self.pictures.iter().filter(|p| p.float_class == p.int8_class).count();
        same as f64 / self.pictures.len().max(1) as f64
    }
}

/// Sums over all values of a layer.
#[derive(Clone, Copy, Default)]
struct Sums {
    float: f64,
    int8: f64,
    product: f64,
    noise: f64,
    outside: u64,
    count: u64,
}

impl Sums {
    fn add(&mut self, float: &[f32], int8: &[f32], quant: Quant) {
        // Half a step beyond is still rounded to the last one.
        let (low, high) = match Int8Range::new(quant) {
            Some(r) => (r.low - r.scale / 2.0, r.high + r.scale / 2.0),
            None => (f32::NEG_INFINITY, f32::INFINITY),
        };
        for (&f, &q) in float.iter().zip(int8) {
            self.outside += u64::from(f < low || f > high);
            let (f, q) = (f64::from(f), f64::from(q));
            self.float += f * f;
            self.int8 += q * q;
            self.product += f * q;
            self.noise += (f - q) * (f - q);
        }
        self.count += float.len() as u64;
    }

    fn decibels(&self) -> Option<f64> {
        (self.noise > 0.0 && self.float > 0.0).then(|| 10.0 * (self.float / self.noise).log10())
    }
}

/// Measures an int8 network on normalized `pictures` against the float network that it was made
/// of: `graph`, or what equalization made of it.
///
/// # Errors
/// A network that cannot be written or does not run.
pub fn measure(
    graph: &Graph,
    int8: &Quantized,
    pictures: &[Vec<f32>],
    attributes: &Attributes<'_>,
    mut progress: impl FnMut(usize, usize),
) -> Result<Measured, QuantizeError> {
    // Equalized maps have other units. Corrected biases are part of int8, not of the yardstick.
    let graph = int8.equalized.as_ref().unwrap_or(graph);
    let float = to_edge(graph, Format::F32, attributes)?.bytes;
    let fixed = to_edge(&int8.graph, Format::I8(&int8.quants), attributes)?.bytes;
    let mut sums = vec![Sums::default(); graph.nodes.len()];
    let mut logits: Vec<[Vec<f32>; 2]> = Vec::new();
    with_session(&float, |float| {
        with_session(&fixed, |fixed| {
            for (done, picture) in pictures.iter().enumerate() {
                let [mut a, mut b] = [values(float, picture), values(fixed, picture)];
                for (id, sums) in sums.iter_mut().enumerate() {
                    sums.add(&a[id], &b[id], int8.quants[id]);
                }
                logits.push([a.pop().unwrap_or_default(), b.pop().unwrap_or_default()]);
                progress(done + 1, pictures.len());
            }
            Ok::<(), QuantizeError>(())
        })
    })?;
    let decibels: Vec<Option<f64>> = sums.iter().map(Sums::decibels).collect();
    let layer = |(id, sums): (usize, &Sums)| {
        let node = &graph.nodes[id];
        let quant = int8.quants[id];
        // Pictures are bytes already, so hardly anything is lost of them.
        let inputs = node.inputs.iter().filter(|&&i| i > 0);
        let worst = inputs.filter_map(|&i| decibels[i]).reduce(f64::min);
        LayerError {
            name: node.name.clone(),
            operation: match &node.op {
                NodeOp::Conv2d(conv) if conv.residual => "conv2d + residual",
                op => op.name(),
            },
            shape: [node.shape.h, node.shape.w, node.shape.c],
            sqnr_db: decibels[id],
            lost_db: worst.zip(decibels[id]).map(|(before, after)| before - after),
            cosine: sums.product / (sums.float * sums.int8).sqrt().max(f64::MIN_POSITIVE),
            saturated: sums.outside as f64 / sums.count.max(1) as f64,
            int8: Int8Range::new(quant),
            method: int8.methods[id].map(super::Method::name),
        }
    };
    let layers = sums.iter().enumerate().map(layer).collect();
    let numbers = || logits.iter().flat_map(|[float, _]| float);
    let count = numbers().count().max(1) as f64;
    let mean = numbers().map(|v| f64::from(*v)).sum::<f64>() / count;
    let deviation = numbers().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / count;
    let picture = |(picture, [float, int8]): (usize, &[Vec<f32>; 2])| {
        let [(float_class, float_probability), (int8_class, int8_probability)] =
            [best(float), best(int8)];
        let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
        let error = float.iter().zip(int8).map(square).sum::<f64>() / float.len().max(1) as f64;
        let error = (error / deviation.max(f64::MIN_POSITIVE)).sqrt();
        PictureError {
            picture,
            float_class,
            float_probability,
            int8_class,
            int8_probability,
            error,
        }
    };
    Ok(Measured { layers, pictures: logits.iter().enumerate().map(picture).collect() })
}

/// The best class and its probability.
fn best(logits: &[f32]) -> (usize, f32) {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|x| (x - largest).exp()).sum();
    (logits.iter().position(|&x| x == largest).unwrap_or(0), 1.0 / sum)
}
