//! A model small enough to be known by heart.

use artifact::writer::{Blob, Contents, Statistics, with_known, write};
use artifact::{
    Dtype, Fit, Interpolation, Meta, Op, Padding, Place, Pool2d, PoolKind, Preprocess, Quant,
    Requant, Shape,
};

/// A model that names the color in the upper left: 2 × 2 nearest pixels, of which a pool with
/// a window of one takes the first. Logits are `20 · (v / 255) − 10`. Grey with one label.
pub(crate) fn corner_model<const N: usize>(labels: [&str; N]) -> Vec<u8> {
    model(labels, Dtype::F32, Quant::NONE)
}

/// The same in int8, of red, green and blue, which knows red alone.
pub(crate) fn red_model() -> Vec<u8> {
    red_model_of(["red", "green", "blue"])
}

/// The same with other names.
pub(crate) fn red_model_of(labels: [&str; 3]) -> Vec<u8> {
    let quant = Quant { scale: 20.0 / 255.0, zero_point: 0 };
    let (means, weights) = (vec![127, -128, -128], vec![1; 3]);
    let known = Statistics { means, weights, threshold: 100, usual: 10 };
    with_known(&model(labels, Dtype::I8, quant), &known).unwrap()
}

fn model<const N: usize>(labels: [&str; N], dtype: Dtype, quant: Quant) -> Vec<u8> {
    let shape = |side| Shape::new(side, side, N as u16);
    let place = |offset, side| Place { offset, shape: shape(side), quant };
    let (input, corner, output) = (place(0, 2), place(128, 1), place(256, 1));
    let pool = |input, output| {
        Op::Pool2d(Pool2d {
            kind: PoolKind::Max,
            input,
            output,
            filter: [1, 1],
            stride: [2, 2],
            padding: Padding::same(0),
            requant: Requant::new(1.0).unwrap(),
        })
    };
    let preprocess = Preprocess {
        fit: Fit::Stretch,
        interpolation: Interpolation::Nearest,
        scale: [20.0 / 255.0; 3],
        offset: [-10.0; 3],
        ..Preprocess::raw(2, 2)
    };
    let meta = Meta {
        name: "corner",
        input,
        output,
        preprocess,
        dataset: "none",
        metrics: "",
        tool: "test",
        label_count: N as u32,
    };
    write(Contents {
        dtype,
        nr: 16,
        arena_len: 384,
        meta,
        labels: &labels,
        ops: &[pool(input, corner), pool(corner, output)],
        blob: Blob::new(),
    })
    .unwrap()
}
