//! What slides over a map: filters, pools and their borders.

use super::call::Call;
use super::{Border, Importer, Layout, Map, Value};
use crate::graph::{Conv, NodeOp};
use crate::padding::same_padding;
use artifact::{Padding, PoolKind};

impl Importer<'_> {
    /// Filter, strides and padding of a window over `x`, whose border must have the value `outside`.
    pub(super) fn window(
        &self,
        call: &Call<'_>,
        x: Map,
        filter: Option<[i64; 2]>,
        outside: f32,
    ) -> Result<([u16; 2], [u16; 2], Padding), String> {
        let pair = |name: &str, default: [i64; 2]| match call.ints(name) {
            None => Ok(default),
            Some(&[a, b]) => Ok([a, b]),
            Some(other) => Err(format!("{name} {other:?}, but two numbers are wanted")),
        };
        let filter = match filter {
            Some(filter) => filter,
            None => pair("kernel_shape", [0, 0])?,
        };
        let small = |name: &str, pair: [i64; 2]| match pair.map(u16::try_from) {
            [Ok(a), Ok(b)] if a > 0 && b > 0 => Ok([a, b]),
            _ => Err(format!("{name} {pair:?}")),
        };
        let filter = small("filter", filter)?;
        let stride = small("strides", pair("strides", [1, 1])?)?;
        if pair("dilations", [1, 1])? != [1, 1] {
            return Err("dilated windows are not read".into());
        }
        let shape = self.shape(x);
        let sides = [shape.h, shape.w].map(usize::from);
        let same =
            |axis: usize| same_padding(sides[axis], filter[axis].into(), stride[axis].into());
        let automatic = call.attribute("auto_pad").map_or(&b"NOTSET"[..], |a| &a.s);
        // Before and after, of rows and columns.
        let [rows, columns] = match automatic {
            b"SAME_UPPER" => [same(0), same(1)],
            b"SAME_LOWER" => [same(0), same(1)].map(|(a, b)| (b, a)),
            b"VALID" => [(0, 0); 2],
            _ => match call.ints("pads").map(|p| p.iter().map(|&v| small_pad(v)).collect()) {
                None => [(0, 0); 2],
                Some(Some::<Vec<usize>>(p)) if p.len() == 4 => [(p[0], p[2]), (p[1], p[3])],
                Some(_) => return Err(format!("pads {:?}", call.ints("pads").unwrap_or(&[]))),
            },
        };
        let mut sums = [rows.0, columns.0, rows.1, columns.1];
        if let Some(Border { padding: p, value }) = x.border {
            let unseen = outside == f32::NEG_INFINITY && self.hides_zeros(x, PoolKind::Max);
            if value != outside && !(value == 0.0 && unseen) {
                return Err(format!("reads a map padded with {value}"));
            }
            for (sum, more) in sums.iter_mut().zip([p.top, p.left, p.bottom, p.right]) {
                *sum += usize::from(more);
            }
        }
        if call.int("ceil_mode", 0) != 0 {
            // As many windows as start inside: a border behind, which pools do not see.
            for axis in 0..2 {
                let (filter, stride) = (usize::from(filter[axis]), usize::from(stride[axis]));
                let padded = sides[axis] + sums[axis] + sums[axis + 2];
                let mut windows = padded.saturating_sub(filter).div_ceil(stride) + 1;
                if (windows - 1) * stride >= sides[axis] + sums[axis] {
                    windows -= 1;
                }
                let wanted = (windows - 1) * stride + filter;
                sums[axis + 2] += wanted.saturating_sub(padded);
            }
        }
        let [Ok(top), Ok(left), Ok(bottom), Ok(right)] = sums.map(u8::try_from) else {
            return Err(format!("padding {sums:?}"));
        };
        Ok((filter, stride, Padding { top, left, bottom, right }))
    }

    /// Whether a pool of this kind does not see zeros around a map: a maximum of values that are not
    /// negative.
    pub(super) fn hides_zeros(&self, x: Map, kind: PoolKind) -> bool {
        kind == PoolKind::Max && matches!(self.graph.nodes[x.id].op, NodeOp::Relu)
    }

    /// `x` with as many of the zeros around it as a window sees: a convolution with one tap for each
    /// channel, since only convolutions pad with zeros here.
    pub(super) fn padded(
        &mut self,
        call: &Call<'_>,
        x: Map,
        (filter, stride, padding): ([u16; 2], [u16; 2], Padding),
    ) -> Result<Map, String> {
        let shape = self.shape(x);
        let c = usize::from(shape.c);
        // Of rows and columns: filter, tap, and padding before and after.
        let axis = |len: u16, before: u8, after: u8, i: usize| {
            let padded = usize::from(len) + usize::from(before) + usize::from(after);
            let (filter, stride) = (usize::from(filter[i]), usize::from(stride[i]));
            let seen = padded.checked_sub(filter).map(|rest| rest / stride * stride + filter);
            let after = usize::from(after).saturating_sub(padded - seen.unwrap_or(padded));
            let before = usize::from(before);
            // The output is as long as the padded map where the filter is one longer than the
            // border; its tap stands where the border before it ends.
            let size = before + after + 1;
            (size, after, (before + after, after + before))
        };
        let rows = axis(shape.h, padding.top, padding.bottom, 0);
        let columns = axis(shape.w, padding.left, padding.right, 1);
        let (sizes, taps) = ([rows.0, columns.0], [rows.1, columns.1]);
        let mut weights = vec![0.0; c * sizes[0] * sizes[1] * c];
        for o in 0..c {
            weights[((o * sizes[0] + taps[0]) * sizes[1] + taps[1]) * c + o] = 1.0;
        }
        let side = |value: usize| u8::try_from(value).map_err(|_| format!("padding {value}"));
        let conv = Conv {
            weights,
            bias: vec![0.0; c],
            filter: sizes.map(|s| s as u16),
            stride: [1; 2],
            padding: Padding {
                top: side(rows.2.0)?,
                left: side(columns.2.0)?,
                bottom: side(rows.2.1)?,
                right: side(columns.2.1)?,
            },
            relu: false,
            residual: false,
            // Ones are of any steps.
            weight_scales: vec![0.0; c],
        };
        let quant = self.graph.nodes[x.id].quant;
        let Value::Map(map) = self.push(call, NodeOp::Conv2d(conv), &[x], x.layout)? else {
            return Err("no map".into());
        };
        let node = &mut self.graph.nodes[map.id];
        node.name.push_str(".pad");
        node.quant = quant;
        Ok(map)
    }

    pub(super) fn pool(&mut self, call: &Call<'_>, kind: PoolKind) -> Result<Value, String> {
        let x = call.bordered(0)?;
        if x.layout != Layout::Nchw {
            return Err("its input is no map of [1, channels, height, width]".into());
        }
        if kind == PoolKind::Max && call.has_output(1) {
            return Err("the places of maxima are not read".into());
        }
        let outside = match kind {
            PoolKind::Max => f32::NEG_INFINITY,
            PoolKind::Average => f32::NAN,
        };
        let counts_padding = call.int("count_include_pad", 0) != 0;
        // Zeros around a map that a pool does see, unlike those that it only skips.
        let zeros = match x.border {
            Some(Border { padding, value: 0.0 }) if !self.hides_zeros(x, kind) => Some(padding),
            _ => None,
        };
        let (mut x, mut window) = match zeros {
            Some(zeros) => {
                let bare = Map { border: None, ..x };
                let mut window = self.window(call, bare, None, outside)?;
                if window.2 != Padding::default() {
                    return Err("pads a map twice".into());
                }
                window.2 = zeros;
                (bare, window)
            }
            None => (x, self.window(call, x, None, outside)?),
        };
        if window.2 != Padding::default()
            && (zeros.is_some() || (counts_padding && kind == PoolKind::Average))
        {
            x = self.padded(call, x, window)?;
            window.2 = Padding::default();
        }
        let (filter, stride, padding) = window;
        self.push(call, NodeOp::Pool2d { kind, filter, stride, padding }, &[x], x.layout)
    }

    /// A pool of the whole map, whose dimensions stay where `keep`.
    pub(super) fn global_pool(
        &mut self,
        call: &Call<'_>,
        kind: PoolKind,
        axes: Option<Vec<i64>>,
        keep: bool,
    ) -> Result<Value, String> {
        let x = call.map(0)?;
        let (shape, wanted) = (
            self.shape(x),
            match x.layout {
                Layout::Nchw => [2, 3],
                Layout::Nhwc => [1, 2],
                Layout::FlatChw | Layout::FlatHwc => return Err("its input is no map".into()),
            },
        );
        if let Some(axes) = axes {
            let mut axes: Vec<i64> = axes.iter().map(|&a| if a < 0 { a + 4 } else { a }).collect();
            axes.sort_unstable();
            if axes != wanted {
                return Err(format!("reduces the axes {axes:?}, but {wanted:?} are read"));
            }
        }
        let (filter, stride) = ([shape.h, shape.w], [1, 1]);
        let op = NodeOp::Pool2d { kind, filter, stride, padding: Padding::default() };
        let layout = if keep { x.layout } else { Layout::FlatChw };
        self.push(call, op, &[x], layout)
    }

    pub(super) fn reduce(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let kind = match call.node.op_type.as_str() {
            "ReduceMean" => PoolKind::Average,
            _ => PoolKind::Max,
        };
        let axes = call.numbers("axes", 1)?.ok_or("reduces all axes")?;
        self.global_pool(call, kind, Some(axes), call.int("keepdims", 1) != 0)
    }

    pub(super) fn pad(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let x = call.map(0)?;
        let mode = call.attribute("mode").map_or(&b"constant"[..], |a| &a.s);
        if mode != b"constant" {
            return Err(format!(
                "pads by `{}`, but only constants are read",
                String::from_utf8_lossy(mode)
            ));
        }
        let pads = call.numbers("pads", 1)?.unwrap_or_default();
        let value = match call.optional(2)? {
            Some(constant) => constant.to_floats().first().copied().unwrap_or(0.0),
            None => call.float("value", 0.0),
        };
        // The least number stands for −∞.
        let value = if value == f32::MIN { f32::NEG_INFINITY } else { value };
        let pads: Result<Vec<u8>, _> = pads.iter().map(|&p| u8::try_from(p)).collect();
        let pads = pads.map_err(|_| "pads that are negative or too large")?;
        let (padding, others) = match (x.layout, &pads[..]) {
            (Layout::Nchw, &[a, b, top, left, c, d, bottom, right]) => {
                (Padding { top, left, bottom, right }, [a, b, c, d])
            }
            (Layout::Nhwc, &[a, top, left, b, c, bottom, right, d]) => {
                (Padding { top, left, bottom, right }, [a, b, c, d])
            }
            _ => return Err(format!("pads {pads:?}")),
        };
        if others != [0; 4] {
            return Err("pads channels".into());
        }
        let border = (padding != Padding::default()).then_some(Border { padding, value });
        Ok(Value::Map(Map { border, ..x }))
    }
}

fn small_pad(pad: i64) -> Option<usize> {
    u8::try_from(pad).ok().map(usize::from)
}
