//! A model small enough to be known by heart.

use artifact::writer::{Blob, Contents, write};
use artifact::{
    Dtype, Fit, Interpolation, Meta, Op, Padding, Place, Pool2d, PoolKind, Preprocess, Quant,
    Requant, Shape,
};

/// A model that names the color in the upper left: 2 × 2 nearest pixels, of which a pool with
/// a window of one takes the first. Logits are `20 · (v / 255) − 10`. Grey with one label.
pub(crate) fn corner_model<const N: usize>(labels: [&str; N]) -> Vec<u8> {
    let shape = |side| Shape::new(side, side, N as u16);
    let place = |offset, side| Place { offset, shape: shape(side), quant: Quant::NONE };
    let (input, output) = (place(0, 2), place(128, 1));
    let pool = Pool2d {
        kind: PoolKind::Max,
        input,
        output,
        filter: [1, 1],
        stride: [2, 2],
        padding: Padding::same(0),
        requant: Requant::new(1.0).unwrap(),
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
        dtype: Dtype::F32,
        nr: 16,
        arena_len: 256,
        meta,
        labels: &labels,
        ops: &[Op::Pool2d(pool)],
        blob: Blob::new(),
    })
    .unwrap()
}
