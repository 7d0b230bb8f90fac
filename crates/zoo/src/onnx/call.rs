//! A node with the values that it reads.

use super::constant::{Constant, count};
use super::groups::Groups;
use super::{Map, Value};
use formats::onnx as proto;

/// A node's attributes and operands.
pub(super) struct Call<'a> {
    pub(super) node: &'a proto::Node,
    pub(super) operands: Vec<Option<Value>>,
    /// How many numbers it may make.
    pub(super) room: usize,
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

    /// Operand `i`, which must depend on the picture.
    pub(super) fn any(&self, i: usize) -> Result<Map, String> {
        match self.operand(i) {
            Some(Value::Map(map)) => Ok(map.clone()),
            Some(Value::Groups(groups)) => Err(format!(
                "operand {i} has channels in groups, {:?}; only their order is read",
                groups.dims()
            )),
            _ => Err(format!("operand {i} does not depend on the picture")),
        }
    }

    /// Operand 0, where its channels are in groups.
    pub(super) fn groups(&self) -> Option<&Groups> {
        match self.operand(0) {
            Some(Value::Groups(groups)) => Some(groups),
            _ => None,
        }
    }

    /// [`Self::any`], which must not be what a softmax gives.
    pub(super) fn bordered(&self, i: usize) -> Result<Map, String> {
        match self.any(i)? {
            Map { is_softmax: true, .. } => Err(
                "computes with what a softmax gives, which is read at the end alone; export the \
                     network with its last softmax, or without"
                    .into(),
            ),
            map => Ok(map),
        }
    }

    /// [`Self::bordered`], without a border.
    pub(super) fn map(&self, i: usize) -> Result<Map, String> {
        match self.bordered(i)? {
            Map { border: Some(_), .. } => Err("reads a padded map, which only windows do".into()),
            map => Ok(map),
        }
    }

    /// Operand `i`, which must be a constant.
    pub(super) fn constant(&self, i: usize) -> Result<&Constant, String> {
        match self.operand(i) {
            Some(Value::Constant(constant)) => Ok(constant),
            Some(Value::Map(_) | Value::Groups(_)) => Err(format!("operand {i} is no constant")),
            None => Err(format!("operand {i} is missing")),
        }
    }

    /// The numbers of operand `i`, which must be a constant of integers.
    pub(super) fn constant_ints(&self, i: usize) -> Result<&[i64], String> {
        let ints = self.constant(i)?.to_ints();
        ints.ok_or_else(|| "a constant that is computed of no integers".into())
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

    /// The dimensions of `rank` that [`Self::numbers`] name, which may count from the end; in rising
    /// order, each once.
    pub(super) fn axes(
        &self,
        name: &str,
        operand: usize,
        rank: usize,
    ) -> Result<Option<Vec<usize>>, String> {
        let Some(axes) = self.numbers(name, operand)? else { return Ok(None) };
        let axes: Result<Vec<usize>, String> = axes.iter().map(|&a| place(a, rank)).collect();
        let mut axes = axes?;
        axes.sort_unstable();
        axes.dedup();
        Ok(Some(axes))
    }

    /// The dimension of `rank` that attribute `name` names.
    pub(super) fn axis(&self, name: &str, default: i64, rank: usize) -> Result<usize, String> {
        place(self.int(name, default), rank)
    }

    /// The order of a Transpose of `rank` dimensions.
    pub(super) fn order(&self, rank: usize) -> Result<Vec<usize>, String> {
        match self.ints("perm") {
            Some(order) => order.iter().map(|&i| place(i, rank)).collect(),
            None => Ok((0..rank).rev().collect()),
        }
    }

    /// The dimensions that a Reshape makes of `dims`: a zero stands for the same dimension, −1 for what
    /// is left.
    pub(super) fn shape(&self, dims: &[usize]) -> Result<Vec<usize>, String> {
        let wanted = self.numbers("shape", 1)?.ok_or("without a shape")?;
        let wrong = || format!("makes {wanted:?} of {dims:?}");
        let len: usize = dims.iter().product();
        let keep = self.int("allowzero", 0) == 0;
        let mut known: Vec<Option<usize>> = Vec::with_capacity(wanted.len());
        for (i, &d) in wanted.iter().enumerate() {
            known.push(match d {
                0 if keep => Some(*dims.get(i).ok_or_else(wrong)?),
                -1 => None,
                d => Some(usize::try_from(d).map_err(|_| wrong())?),
            });
        }
        if let Some(at) = known.iter().position(Option::is_none) {
            let others: Vec<usize> = known.iter().flatten().copied().collect();
            let others = count(&others, len).filter(|&others| others > 0).ok_or_else(wrong)?;
            known[at] = Some(len / others);
        }
        let shape: Option<Vec<usize>> = known.into_iter().collect();
        shape.filter(|shape| count(shape, len.max(1)) == Some(len)).ok_or_else(wrong)
    }
}

/// Place `i` of `len`, where negative ones count from the end.
pub(super) fn place(i: i64, len: usize) -> Result<usize, String> {
    let at = if i < 0 { i.saturating_add_unsigned(len as u64) } else { i };
    let at = usize::try_from(at).ok().filter(|&at| at < len);
    at.ok_or_else(|| format!("place {i} of {len}"))
}
