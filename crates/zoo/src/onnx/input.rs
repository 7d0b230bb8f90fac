//! The picture that a file takes.

use super::view::View;
use artifact::Shape;
use artifact::text::AsPlain;
use formats::onnx as proto;
use std::collections::HashSet;

/// The picture.
pub(super) struct Input<'a> {
    pub(super) name: &'a str,
    pub(super) view: View,
    pub(super) shape: Shape,
    pub(super) is_nhwc: bool,
    pub(super) data_type: i32,
}

impl Input<'_> {
    /// Whether it comes in integers, as pictures are stored.
    pub(super) const fn has_bytes(&self) -> bool {
        matches!(self.data_type, proto::UINT8 | proto::INT32 | proto::INT64)
    }
}

/// Finds the picture; `size` is its height and width, where the file leaves them open.
pub(super) fn input(file: &proto::Graph, size: Option<u16>) -> Result<Input<'_>, String> {
    let constants: HashSet<&str> = file.initializer.iter().map(|t| t.name.as_str()).collect();
    let inputs: Vec<_> =
        file.input.iter().filter(|i| !constants.contains(i.name.as_str())).collect();
    let [input] = inputs[..] else {
        let names: Vec<&str> = inputs.iter().map(|i| i.name.as_str()).collect();
        return Err(format!("inputs {names:?}, but one picture is wanted"));
    };
    let tensor_type = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let shape = tensor_type.and_then(|t| t.shape.as_ref());
    let dims: Vec<Option<u16>> = shape.map_or(Vec::new(), |s| {
        s.dim.iter().map(|d| d.dim_value.and_then(|v| u16::try_from(v).ok())).collect()
    });
    let wrong = || {
        format!(
            "the input `{}` of shape {dims:?}, but [1, 3, height, width] or [1, height, width, 3] \
             is wanted, or 1 channel instead of 3",
            input.name.plain()
        )
    };
    let (is_nchw, c, sides) = match dims[..] {
        [_, Some(3), h, w] | [Some(3), h, w] => (true, 3, [h, w]),
        [_, h, w, Some(3)] | [h, w, Some(3)] => (false, 3, [h, w]),
        [_, Some(1), h, w] => (true, 1, [h, w]),
        [_, h, w, Some(1)] | [h, w, Some(1)] => (false, 1, [h, w]),
        // Where pictures or one channel are counted, or neither.
        [None | Some(1), h, w] => (true, 1, [h, w]),
        [_, a, b, c] => match open_channels(file, &input.name).ok_or_else(wrong)? {
            (true, channels) if a.is_none() => (true, channels, [b, c]),
            (false, channels) if c.is_none() => (false, channels, [a, b]),
            _ => return Err(wrong()),
        },
        _ => return Err(wrong()),
    };
    let has_pictures = dims.len() == 4;
    if has_pictures && dims[0].is_some_and(|n| n > 1) {
        return Err(format!("{}; export it for one picture", wrong()));
    }
    let [Some(h), Some(w)] = sides.map(|side| side.filter(|&s| s > 0).or(size)) else {
        return Err(format!("{}; name height and width by --input-size", wrong()));
    };
    let shape = Shape::new(h, w, c);
    let view = if is_nchw { View::nchw(shape) } else { View::nhwc(shape) };
    let view = if has_pictures { Some(view) } else { view.without(&[0]) };
    Ok(Input {
        name: &input.name,
        view: view.ok_or_else(wrong)?,
        shape,
        is_nhwc: !is_nchw,
        data_type: tensor_type.and_then(|t| t.elem_type).unwrap_or(proto::FLOAT),
    })
}

/// Whether channels come first, and how many, of a picture whose shape is open, as its first
/// convolution has them.
fn open_channels(file: &proto::Graph, input: &str) -> Option<(bool, u16)> {
    let conv = file.node.iter().find(|n| n.op_type == "Conv")?;
    let mut weights = conv.input.get(1)?;
    let quantized = file.node.iter().find(|n| n.output.first() == Some(weights));
    if let Some(node) = quantized.filter(|n| n.op_type == "DequantizeLinear") {
        weights = node.input.first()?;
    }
    let weights = file.initializer.iter().find(|t| t.name == *weights)?;
    let group = conv.attribute.iter().find(|a| a.name == "group").and_then(|a| a.i).unwrap_or(1);
    let channels = weights.dims.get(1)?.checked_mul(group)?;
    let mut readers = file.node.iter().filter(|n| n.input.iter().any(|name| name == input));
    let is_nchw = !readers.any(|n| n.op_type == "Transpose");
    u16::try_from(channels).ok().filter(|c| [1, 3].contains(c)).map(|c| (is_nchw, c))
}
