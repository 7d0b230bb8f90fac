//! What stands behind the logits: a softmax, and what stores, copies or lays out its probabilities.

use super::call::Call;
use super::{Importer, Map, Value};

/// Why probabilities are no operand.
pub(super) const PROBABILITIES: &str =
    "computes with what a softmax gives, which is only read at the end";

impl Importer<'_> {
    pub(super) fn softmax(&self, call: &Call<'_>) -> Result<Value, String> {
        let x = call.map(0)?;
        let classes = x.layout.channel_axis() as i64;
        let axis = call.int("axis", classes);
        let axis = if axis < 0 { axis + x.layout.rank() as i64 } else { axis };
        if axis != classes {
            return Err(format!("over the axis {axis}, but one over the classes is read"));
        }
        Ok(Value::Probabilities(x))
    }

    /// What is done with the probabilities of `x`.
    pub(super) fn tail(&mut self, call: &Call<'_>, x: Map) -> Result<Value, String> {
        match call.node.op_type.as_str() {
            "Identity" | "Dropout" | "Cast" | "QuantizeLinear" | "DequantizeLinear" => {
                Ok(Value::Probabilities(x))
            }
            "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" => {
                let mut operands = call.operands.clone();
                operands[0] = Some(Value::Map(x));
                match self.layer(&Call { operands, ..*call })? {
                    Value::Map(map) => Ok(Value::Probabilities(map)),
                    other => Ok(other),
                }
            }
            _ => Err(PROBABILITIES.into()),
        }
    }
}
