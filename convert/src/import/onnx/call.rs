//! A node with the values that it reads.

use super::constant::Constant;
use super::tail::PROBABILITIES;
use super::{Map, Value};
use crate::onnx_proto as proto;

/// A node's attributes and operands.
pub(super) struct Call<'a> {
    pub(super) node: &'a proto::Node,
    pub(super) operands: Vec<Option<Value>>,
}

impl Call<'_> {
    pub(super) fn attribute(&self, name: &str) -> Option<&proto::Attribute> {
        self.node.attribute.iter().find(|a| a.name == name)
    }

    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).and_then(|a| a.i).unwrap_or(default)
    }

    pub(super) fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).and_then(|a| a.f).unwrap_or(default)
    }

    pub(super) fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attribute(name).map(|a| a.ints.as_slice())
    }

    pub(super) fn operand(&self, i: usize) -> Option<&Value> {
        self.operands.get(i)?.as_ref()
    }

    /// Operand `i`, which must depend on the picture, without a border.
    pub(super) fn map(&self, i: usize) -> Result<Map, String> {
        match self.bordered(i)? {
            Map { border: Some(_), .. } => Err("reads a padded map, which only windows do".into()),
            map => Ok(map),
        }
    }

    pub(super) fn bordered(&self, i: usize) -> Result<Map, String> {
        match self.operand(i) {
            Some(Value::Map(map)) => Ok(*map),
            Some(Value::Probabilities(_)) => Err(PROBABILITIES.into()),
            _ => Err(format!("operand {i} does not depend on the picture")),
        }
    }

    /// Operand `i`, which must be a constant.
    pub(super) fn constant(&self, i: usize) -> Result<&Constant, String> {
        match self.operand(i) {
            Some(Value::Constant(constant)) => Ok(constant),
            Some(_) => Err(format!("operand {i} is no constant")),
            None => Err(format!("operand {i} is missing")),
        }
    }

    pub(super) fn optional(&self, i: usize) -> Result<Option<&Constant>, String> {
        if self.operand(i).is_none() { Ok(None) } else { self.constant(i).map(Some) }
    }

    /// Numbers that were an attribute in older versions, and are an operand in newer ones.
    pub(super) fn numbers(&self, name: &str, operand: usize) -> Result<Option<Vec<i64>>, String> {
        if let Some(ints) = self.ints(name) {
            return Ok(Some(ints.to_vec()));
        }
        let Some(constant) = self.optional(operand)? else { return Ok(None) };
        let ints = constant.to_ints().ok_or_else(|| format!("{name} are no integers"))?;
        Ok(Some(ints.to_vec()))
    }

    /// Whether the output with this index is named.
    pub(super) fn has_output(&self, i: usize) -> bool {
        self.node.output.get(i).is_some_and(|name| !name.is_empty())
    }
}
