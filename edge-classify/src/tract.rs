//! Times tract on an ONNX model, for `bench --compare`.

use anyhow::Result;
use std::path::Path;
use tract_onnx::prelude::*;

/// Optimizes a model and returns what runs it on a fixed pattern.
pub(crate) fn load(path: &Path) -> Result<impl FnMut() -> Result<()>> {
    let model = tract_onnx::onnx().model_for_path(path)?.into_optimized()?.into_runnable()?;
    let fact = model.model().input_fact(0)?;
    let shape = fact.shape.as_concrete().map(<[usize]>::to_vec);
    let shape = shape.ok_or_else(|| anyhow::anyhow!("the input's shape is not fixed"))?;
    let len = shape.iter().product();
    let values: Vec<f32> = (0..len).map(|i: usize| (i % 255) as f32 / 127.0 - 1.0).collect();
    let input = Tensor::from_shape(&shape, &values)?.cast_to_dt(fact.datum_type)?.into_owned();
    Ok(move || {
        model.run(tvec!(input.clone().into_tvalue()))?;
        Ok(())
    })
}
