//! Each layer in tract, on the numbers that the runtime's layer had.

use super::VerifyError;
use crate::emit::onnx::Layers;
use artifact::Shape;
use network::graph::{Graph, ValueId};
use tract_onnx::prelude::{
    Framework, InferenceModelExt, IntoRunnable, TValue, Tensor, TractResult, TypedRunnableModel,
};

/// The layers of a network, ready to run.
pub(super) struct Engine<'a> {
    layers: &'a Layers,
    shapes: Vec<Shape>,
    /// Whether a value is int8.
    int8: Vec<bool>,
    model: std::sync::Arc<TypedRunnableModel>,
}

impl<'a> Engine<'a> {
    /// `int8` tells which values are.
    pub(super) fn new(
        graph: &Graph,
        layers: &'a Layers,
        int8: Vec<bool>,
    ) -> Result<Self, VerifyError> {
        let build = || -> TractResult<_> {
            tract_onnx::onnx()
                .model_for_read(&mut layers.bytes.as_slice())?
                .into_optimized()?
                .into_runnable()
        };
        let model = build().map_err(|e| VerifyError::Tract(format!("{e:#}")))?;
        Ok(Self { layers, shapes: graph.nodes.iter().map(|n| n.shape).collect(), int8, model })
    }

    /// What each node computes of the values before it, NHWC; `values` are those of all nodes, of
    /// int8 the stored integers.
    pub(super) fn run(&self, values: &[Vec<f32>]) -> Result<Vec<(ValueId, Vec<f32>)>, VerifyError> {
        let run = || -> TractResult<_> {
            let inputs = self.layers.inputs.iter().map(|&id| {
                let shape = self.shapes[id];
                let (h, w, c) = (shape.h.into(), shape.w.into(), shape.c.into());
                let nchw: Vec<f32> = (0..values[id].len())
                    .map(|i| values[id][i % (h * w) * c + i / (h * w)])
                    .collect();
                let tensor = Tensor::from_shape(&[1, c, h, w], &nchw)?;
                Ok(TValue::from(match self.int8[id] {
                    true => tensor.cast_to::<i8>()?.into_owned(),
                    false => tensor,
                }))
            });
            let inputs: TractResult<_> = inputs.collect();
            let outputs = self.model.run(inputs?)?;
            let mut computed = Vec::with_capacity(outputs.len());
            for (&id, output) in self.layers.outputs.iter().zip(outputs.iter()) {
                let shape = self.shapes[id];
                let (pixels, c) = (shape.pixels(), usize::from(shape.c));
                let output = output.cast_to::<f32>()?;
                let nchw = output.to_plain_array_view::<f32>()?;
                let nchw = nchw.as_slice().unwrap_or(&[]);
                let nhwc = (0..nchw.len()).map(|i| nchw[i % c * pixels + i / c]).collect();
                computed.push((id, nhwc));
            }
            Ok(computed)
        };
        run().map_err(|e| VerifyError::Tract(format!("{e:#}")))
    }
}
