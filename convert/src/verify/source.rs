//! The whole network against the file that it was read from, which tract reads by itself.

use super::{Check, SHARE, VerifyError, inputs, share_of_largest};
use crate::pipeline::Converted;
use crate::quantize::logits;
use artifact::Shape;
use artifact::text::AsPlain;
use core::panic::AssertUnwindSafe;
use formats::onnx as proto;
use network::model::{FloatModel, OnnxSource, Source};
use std::panic::catch_unwind;
use tract_onnx::prelude::{
    DatumType, Framework, InferenceFact, InferenceModelExt, IntoRunnable, IntoTValue, Tensor,
    TractResult, TypedRunnableModel, tvec,
};

/// What floats may differ by.
const LIMIT: f64 = 1e-3;
/// What numbers of 16 bits may, which tract computes with as such.
const HALF_LIMIT: f64 = 5e-2;
/// What int8 may. Sums that are rounded once here and twice there leave a deep network (ResNet-50 with
/// random weights) a fifth apart; what an importer gets wrong is more.
const INT8_LIMIT: f64 = 0.5;

/// Compares the scores of `pictures`, or of noise where there are none, with those of the source in
/// tract. `Err` says why that cannot be done, `None` that there is nothing to compare with.
///
/// # Errors
/// A device file that does not run.
pub fn compare(
    model: &FloatModel,
    converted: &Converted,
    pictures: &[Vec<f32>],
) -> Result<Option<Result<Check, String>>, VerifyError> {
    let source = match &model.source {
        Source::Own => return Ok(None),
        Source::Unread(format) => return Ok(Some(Err(format!("reads no {format}")))),
        Source::Onnx(source) => source,
    };
    // What a quantized file computes is what the int8 network does, of pictures like those that it was
    // quantized for: of others, both cut off most.
    let (edge, limit) = match &converted.int8 {
        _ if model.graph.nodes.iter().all(|n| n.quant.is_none()) => {
            (&converted.float.bytes, if source.is_half { HALF_LIMIT } else { LIMIT })
        }
        None => return Ok(Some(Err("rounds what is quantized, which floats here do not".into()))),
        Some(_) if pictures.is_empty() => {
            let why = "would need pictures like those that it was quantized for: --calibration";
            return Ok(Some(Err(why.into())));
        }
        Some(_) => (&converted.emitted.bytes, INT8_LIMIT),
    };
    let engine = match guarded(|| Engine::new(source)) {
        Ok(engine) => engine,
        Err(why) => return Ok(Some(Err(why))),
    };
    let mut check = Check::new("the source file in tract", limit, SHARE);
    for picture in &inputs(converted, &model.preprocess, pictures) {
        let picture = given(source, picture);
        let wanted = match guarded(|| engine.run(&picture, model.graph.input_shape())) {
            Ok(wanted) => wanted,
            Err(why) => return Ok(Some(Err(why))),
        };
        let found = logits(edge, core::slice::from_ref(&picture))?;
        let difference =
            if wanted.len() == found.len() { share_of_largest(&wanted, &found) } else { f64::NAN };
        check.see(&source.scores, difference);
    }
    Ok(Some(Ok(check)))
}

/// What tract does not do, in a line. Its panics on strange files are such, too.
fn guarded<T>(run: impl FnOnce() -> TractResult<T>) -> Result<T, String> {
    let result = catch_unwind(AssertUnwindSafe(run)).map_err(|_| "panics".to_owned())?;
    result.map_err(|e| {
        let text = format!("{e:#}");
        let line: String = text.chars().take(200).collect();
        format!("cannot read it ({})", line.plain())
    })
}

/// A picture as the file can be given it: whole numbers, where it takes those.
fn given(source: &OnnxSource, picture: &[f32]) -> Vec<f32> {
    let whole = matches!(source.input_type, proto::UINT8 | proto::INT32 | proto::INT64);
    let given = |v: &f32| if whole { v.round().clamp(0.0, 255.0) } else { *v };
    picture.iter().map(given).collect()
}

/// The source, ready to run.
struct Engine<'a> {
    source: &'a OnnxSource,
    data_type: DatumType,
    model: std::sync::Arc<TypedRunnableModel>,
}

impl<'a> Engine<'a> {
    fn new(source: &'a OnnxSource) -> TractResult<Self> {
        let onnx = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_types(true);
        let data_type = match source.input_type {
            proto::UINT8 => DatumType::U8,
            proto::INT32 => DatumType::I32,
            proto::INT64 => DatumType::I64,
            proto::FLOAT16 => DatumType::F16,
            proto::DOUBLE => DatumType::F64,
            _ => DatumType::F32,
        };
        let proto = onnx.proto_model_for_read(&mut &*source.bytes)?;
        let mut model = onnx.parse(&proto, source.folder.to_str())?.model;
        model.select_outputs_by_name([&source.scores])?;
        let model = model
            .with_input_fact(0, InferenceFact::dt_shape(data_type, &source.input_dims))?
            .eliminate_dead_branches()?
            .into_optimized()?
            .into_runnable()?;
        Ok(Self { source, data_type, model })
    }

    /// What the file gives for a picture (NHWC).
    fn run(&self, picture: &[f32], shape: Shape) -> TractResult<Vec<f32>> {
        let (pixels, c) = (shape.pixels(), usize::from(shape.c));
        let channel = |c_file: usize| if self.source.is_reversed { c - 1 - c_file } else { c_file };
        let value = |i: usize| match self.source.is_nchw {
            true => picture[i % pixels * c + channel(i / pixels)],
            false => picture[i / c * c + channel(i % c)],
        };
        let values: Vec<f32> = (0..picture.len()).map(value).collect();
        let input = Tensor::from_shape(&self.source.input_dims, &values)?;
        let input = input.cast_to_dt(self.data_type)?.into_owned();
        let outputs = self.model.run(tvec!(input.into_tvalue()))?;
        let output = outputs[0].cast_to::<f32>()?;
        Ok(output.to_plain_array_view::<f32>()?.iter().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emit::edge::Format;
    use crate::emit::onnx::{Form, to_onnx};
    use crate::pipeline::{Options, Quantize, convert};
    use network::architecture::Architecture;
    use network::graph::NodeOp;
    use network::init::random_checkpoint;
    use std::path::Path;
    use zoo::{Channels, Head, Hints, open_any};

    fn model(path: &Path, hints: &Hints) -> FloatModel {
        let mut config = Architecture::named("resnet_8_cifar", 4).unwrap();
        config.classes = 5;
        let checkpoint = random_checkpoint(config, 16, 7).unwrap();
        let model = FloatModel::from_checkpoint(&checkpoint).unwrap();
        let bytes = to_onnx(&model.graph, Format::F32, Form::Qdq, &model.labels, &model.preprocess);
        std::fs::write(path, bytes).unwrap();
        open_any(path, Head::Required, hints).unwrap().to_float_model().unwrap()
    }

    fn compared(model: &FloatModel, quantize: Quantize) -> Result<Check, String> {
        let picture: Vec<f32> = (0..16 * 16 * 3).map(|i| (i % 23) as f32 / 9.0 - 1.0).collect();
        let options = Options { quantize, ..Options::default() };
        let pictures = [picture];
        let converted = convert(model, &pictures, options, |_, _| ()).unwrap();
        compare(model, &converted, &pictures).unwrap().unwrap()
    }

    /// A weight that the importer got wrong is found, which a comparison with our own export cannot.
    #[test]
    fn what_the_importer_gets_wrong_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.onnx");
        for channels in [Channels::Rgb, Channels::Bgr] {
            let hints = Hints { channels: Some(channels), ..Hints::default() };
            let mut model = model(&path, &hints);
            for quantize in [Quantize::None, Quantize::Int8] {
                let check = compared(&model, quantize).unwrap();
                assert!(check.is_passed() && check.worst < 1e-4, "{check:?}");
            }
            let conv = model.graph.nodes.iter_mut().find_map(|n| match &mut n.op {
                NodeOp::Conv2d(conv) => Some(conv),
                _ => None,
            });
            conv.unwrap().weights[3] += 0.5;
            assert!(!compared(&model, Quantize::None).unwrap().is_passed());
        }
    }

    #[test]
    fn what_tract_does_not_read_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.onnx");
        let mut model = model(&path, &Hints::default());
        let Source::Onnx(source) = &mut model.source else { panic!("an ONNX file") };
        source.bytes = [8, 8].into();
        assert!(compared(&model, Quantize::None).unwrap_err().contains("cannot read it"));
        model.source = Source::Unread("TensorFlow Lite");
        assert_eq!(compared(&model, Quantize::None).unwrap_err(), "reads no TensorFlow Lite");
    }
}
