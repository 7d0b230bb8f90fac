//! What slides over a map: filters, pools and their borders.

use super::call::Call;
use super::view::{Side, View, len};
use super::{Border, Importer, Map, Value};
use artifact::layout::padding_fits;
use artifact::text::AsPlain;
use artifact::{Padding, PoolKind};
use network::activation::Activation;
use network::graph::{Conv, NodeOp};
use network::padding::same_padding;

/// Most rows and columns of a filter with zeros between its taps.
const MAX_SPREAD: usize = 9;

/// A window, and the border that a file puts around the map that it slides over.
pub(super) struct Window {
    pub(super) filter: [u16; 2],
    pub(super) stride: [u16; 2],
    pub(super) padding: Padding,
    /// Of rows and columns, how much further the last window reaches (`ceil_mode`).
    further: [usize; 2],
}

impl Window {
    /// Whether every place of the window sees a part of the map.
    pub(super) const fn fits(&self) -> bool {
        padding_fits(self.padding, self.filter[0], self.filter[1])
    }

    /// The border with what the last windows need more.
    fn whole(&self) -> Result<Padding, String> {
        let Padding { top, left, bottom, right } = self.padding;
        let more = |side: u8, further: usize| {
            u8::try_from(usize::from(side) + further).map_err(|_| format!("a border of {further}"))
        };
        let (bottom, right) = (more(bottom, self.further[0])?, more(right, self.further[1])?);
        Ok(Padding { top, left, bottom, right })
    }
}

impl Importer<'_> {
    /// The window that a node slides over `x`, whose own border is left out.
    pub(super) fn window(
        &self,
        call: &Call<'_>,
        x: &Map,
        filter: Option<[i64; 2]>,
    ) -> Result<Window, String> {
        let shape = self.shape(x);
        if !x.view.is_nchw(shape) {
            return Err(format!(
                "its input is no map of [1, channels, height, width], but {:?}",
                self.dims(x)
            ));
        }
        let pair = |name: &str, default: [i64; 2]| match call.ints(name) {
            None => Ok(default),
            Some(&[a, b]) => Ok([a, b]),
            Some(other) => Err(format!("{name} {other:?}, but two numbers are wanted")),
        };
        let is_filter = filter.is_some();
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
        // Of a window of one nothing is dilated; filters have zeros between their taps.
        let dilations = pair("dilations", [1, 1])?;
        if !is_filter && (0..2).any(|axis| filter[axis] > 1 && dilations[axis] != 1) {
            return Err("dilated pools are not read; take a network without them".into());
        }
        let sides = [shape.h, shape.w].map(usize::from);
        let border = x.border.map_or([[0; 2]; 2], |b| {
            [[b.padding.top, b.padding.bottom], [b.padding.left, b.padding.right]]
                .map(|side| side.map(usize::from))
        });
        let sides: [usize; 2] = core::array::from_fn(|i| sides[i] + border[i][0] + border[i][1]);
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
        let mut further = [0; 2];
        if call.int("ceil_mode", 0) != 0 {
            // As many windows as start before the border behind.
            for (axis, (before, after)) in [rows, columns].into_iter().enumerate() {
                let (filter, stride) = (usize::from(filter[axis]), usize::from(stride[axis]));
                let padded = sides[axis] + before + after;
                let mut windows = padded.saturating_sub(filter).div_ceil(stride) + 1;
                if (windows - 1) * stride >= sides[axis] + before {
                    windows -= 1;
                }
                further[axis] = ((windows - 1) * stride + filter).saturating_sub(padded);
            }
        }
        let all = [rows.0, columns.0, rows.1, columns.1];
        let [Ok(top), Ok(left), Ok(bottom), Ok(right)] = all.map(u8::try_from) else {
            return Err(format!("padding {all:?}"));
        };
        Ok(Window { filter, stride, padding: Padding { top, left, bottom, right }, further })
    }

    /// The window of a convolution over `x`, whose border it then has itself.
    pub(super) fn filter_window(
        &self,
        call: &Call<'_>,
        x: &Map,
        filter: [i64; 2],
    ) -> Result<Window, String> {
        let mut window = self.window(call, x, Some(filter))?;
        if let Some(border) = x.border {
            window.padding = sum(window.padding, border.zeros()?)?;
        }
        Ok(window)
    }

    /// How far apart the taps of a filter are, of rows and columns.
    pub(super) fn dilations(
        &self,
        call: &Call<'_>,
        taps: [usize; 2],
    ) -> Result<[usize; 2], String> {
        let dilations = call.ints("dilations").unwrap_or(&[1, 1]);
        let &[rows, columns] = dilations else {
            return Err(format!("dilations {dilations:?}, but two numbers are wanted"));
        };
        let mut found = [1; 2];
        for (i, dilation) in [rows, columns].into_iter().enumerate().filter(|(i, _)| taps[*i] > 1) {
            let spread = usize::try_from(dilation).ok().filter(|&d| d > 0);
            // What is not dilated may be larger.
            let fits = |d: &usize| *d == 1 || (taps[i] - 1).saturating_mul(*d) < MAX_SPREAD;
            found[i] = spread.filter(fits).ok_or_else(|| {
                format!(
                    "a filter of {taps:?} dilated by {dilations:?}, but dilated ones of up to \
                     {MAX_SPREAD}×{MAX_SPREAD} pixels are read; take a network that is dilated less, such as one \
                     with an output stride of 32"
                )
            })?;
        }
        Ok(found)
    }

    /// OHWI weights of `outputs` filters, zeros between their taps where those are further apart than one.
    pub(super) fn spread(
        &mut self,
        weights: Vec<f32>,
        outputs: usize,
        [kh, kw]: [usize; 2],
        [dh, dw]: [usize; 2],
    ) -> Result<Vec<f32>, String> {
        let taps = outputs.saturating_mul(kh).saturating_mul(kw);
        if [dh, dw] == [1, 1] || taps == 0 {
            return Ok(weights);
        }
        let c = weights.len() / taps;
        let [h, w] = [(kh - 1) * dh + 1, (kw - 1) * dw + 1];
        let mut spread = self.zeros(&[outputs, h, w, c])?;
        for (tap, numbers) in weights.chunks_exact(c.max(1)).enumerate() {
            let (o, y, x) = (tap / (kh * kw), tap / kw % kh, tap % kw);
            let at = ((o * h + y * dh) * w + x * dw) * c;
            spread[at..at + c].copy_from_slice(numbers);
        }
        Ok(spread)
    }

    /// `x` with its border in the map.
    pub(super) fn bordered(&mut self, call: &Call<'_>, x: &Map) -> Result<Map, String> {
        match x.border {
            Some(border) => self.padded(call, x, border.zeros()?),
            None => Ok(x.clone()),
        }
    }

    /// Whether a pool of this kind does not see zeros around a map: a maximum of values that are not
    /// negative.
    fn hides_zeros(&self, x: &Map, kind: PoolKind) -> bool {
        let mut op = &self.graph.nodes[x.id];
        // Pools give what they are given.
        while let NodeOp::Pool2d { .. } = op.op {
            op = &self.graph.nodes[op.inputs[0]];
        }
        kind == PoolKind::Max && matches!(op.op, NodeOp::Activation(Activation::RELU))
    }

    /// `x` with zeros around it: a convolution with one tap for each channel, since only convolutions
    /// pad with zeros here.
    pub(super) fn padded(
        &mut self,
        call: &Call<'_>,
        x: &Map,
        padding: Padding,
    ) -> Result<Map, String> {
        let c = usize::from(self.shape(x).c);
        // Of rows and columns: the output is as long as the padded map where the filter is one longer
        // than the border; its tap stands where the border before it ends.
        let [top, left, bottom, right] =
            [padding.top, padding.left, padding.bottom, padding.right].map(usize::from);
        let (sizes, taps) = ([top + bottom + 1, left + right + 1], [bottom, right]);
        let mut weights = self.zeros(&[c, sizes[0], sizes[1], c])?;
        for o in 0..c {
            weights[((o * sizes[0] + taps[0]) * sizes[1] + taps[1]) * c + o] = 1.0;
        }
        let side = |value: usize| u8::try_from(value).map_err(|_| format!("padding {value}"));
        let conv = Conv {
            padding: Padding {
                top: side(top + bottom)?,
                left: side(left + right)?,
                bottom: side(bottom + top)?,
                right: side(right + left)?,
            },
            // Ones are of any steps.
            weight_scales: vec![0.0; c],
            ..Conv::new(weights, vec![0.0; c], sizes.map(|s| s as u16))
        };
        let quant = self.graph.nodes[x.id].quant;
        let map = self.slid(call, NodeOp::Conv2d(conv), x, &x.view)?;
        let node = &mut self.graph.nodes[map.id];
        node.name.push_str(".pad");
        node.quant = quant;
        Ok(map)
    }

    pub(super) fn pool(&mut self, call: &Call<'_>, kind: PoolKind) -> Result<Value, String> {
        let mut x = call.bordered(0)?;
        if let Some(Border { padding, value }) = x.border {
            // What a pool skips, it need not be given.
            if kind == PoolKind::Max
                && (value == f32::NEG_INFINITY || (value == 0.0 && self.hides_zeros(&x, kind)))
            {
                let mut window = self.window(call, &x, None)?;
                window.padding = sum(window.padding, padding)?;
                return self.slide(call, kind, &window, &x);
            }
            x = self.bordered(call, &x)?;
        }
        let mut window = self.window(call, &x, None)?;
        let counts_border = kind == PoolKind::Average && call.int("count_include_pad", 0) != 0;
        if counts_border && window.padding != Padding::default() {
            x = self.padded(call, &x, window.padding)?;
            window.padding = Padding::default();
        }
        self.slide(call, kind, &window, &x)
    }

    fn slide(
        &mut self,
        call: &Call<'_>,
        kind: PoolKind,
        window: &Window,
        x: &Map,
    ) -> Result<Value, String> {
        let &Window { filter, stride, .. } = window;
        let op = NodeOp::Pool2d { kind, filter, stride, padding: window.whole()? };
        Ok(Value::Map(self.slid(call, op, x, &x.view)?))
    }

    /// What a window gives, whose sides may be longer than those of `x`; of the channels of `view`.
    pub(super) fn slid(
        &mut self,
        call: &Call<'_>,
        op: NodeOp,
        x: &Map,
        view: &View,
    ) -> Result<Map, String> {
        let map = self.push(call, op, &[x], view.clone())?;
        let view = view.as_nchw(self.shape(&map));
        Ok(Map { view, ..map })
    }

    /// A pool of the whole map.
    pub(super) fn global_pool(&mut self, call: &Call<'_>, kind: PoolKind) -> Result<Value, String> {
        let x = call.map(0)?;
        let axes: Vec<usize> = (2..x.view.rank()).collect();
        self.pool_axes(call, kind, &x, &axes, true)
    }

    /// A pool of whole dimensions, which stay as ones where `keep`.
    fn pool_axes(
        &mut self,
        call: &Call<'_>,
        kind: PoolKind,
        x: &Map,
        axes: &[usize],
        keep: bool,
    ) -> Result<Value, String> {
        let shape = self.shape(x);
        let sides: Vec<Side> = axes.iter().flat_map(|&a| x.view.sides(a)).copied().collect();
        if sides.contains(&Side::Channel) {
            return Err(format!(
                "reduces the dimensions {axes:?} of {:?}, but rows and columns are read",
                self.dims(x)
            ));
        }
        let mut pooled = x.clone();
        if !sides.is_empty() {
            let of = |side| if sides.contains(&side) { len(side, shape) as u16 } else { 1 };
            let (mut from, mut filter) = (x.id, [of(Side::Row), of(Side::Column)]);
            // Columns first and rows then are one pool.
            let node = &self.graph.nodes[x.id];
            if let (
                NodeOp::Pool2d { kind: before, filter: [h, w], stride: [1, 1], padding },
                None,
            ) = (&node.op, node.quant)
            {
                let whole = self.graph.nodes[node.inputs[0]].shape;
                let is_whole = |len: u16, of: u16, left: u16| len == of && left == 1;
                let (rows, columns) =
                    (is_whole(*h, whole.h, shape.h), is_whole(*w, whole.w, shape.w));
                let rest = (rows && *w == 1) || (columns && *h == 1);
                if *before == kind && *padding == Padding::default() && rest {
                    from = node.inputs[0];
                    filter = [filter[0] * h, filter[1] * w];
                }
            }
            let op = NodeOp::Pool2d { kind, filter, stride: [1, 1], padding: Padding::default() };
            pooled = self.push_on(call, op, &[from], x.view.clone())?;
        }
        let view = if keep { Some(pooled.view.clone()) } else { pooled.view.without(axes) };
        let view = view.ok_or("reduces a dimension that is not read")?;
        Ok(Value::Map(Map { view, ..pooled }))
    }

    pub(super) fn reduce(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let kind = match call.node.op_type.as_str() {
            "ReduceMax" => PoolKind::Max,
            _ => PoolKind::Average,
        };
        let x = call.map(0)?;
        let axes = call.axes("axes", 1, x.view.rank())?.filter(|axes| !axes.is_empty());
        let axes = axes.ok_or("reduces all dimensions; rows and columns are read")?;
        let count: usize = axes.iter().map(|&a| self.dims(&x)[a]).product();
        let pooled = self.pool_axes(call, kind, &x, &axes, call.int("keepdims", 1) != 0)?;
        match (call.node.op_type.as_str(), pooled) {
            ("ReduceSum", Value::Map(map)) => {
                let c = usize::from(self.shape(&map).c);
                let factors = vec![count as f32; c];
                Ok(Value::Map(self.scaled(call, &map, factors, vec![0.0; c])?))
            }
            (_, pooled) => Ok(pooled),
        }
    }

    /// A border for the window that reads it, or channels of zeros.
    pub(super) fn pad(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let mut x = call.bordered(0)?;
        let mode = call.attribute("mode").map_or(&b"constant"[..], |a| &a.s);
        if mode != b"constant" {
            return Err(format!(
                "pads by `{}`, but only constants are read",
                String::from_utf8_lossy(mode).plain()
            ));
        }
        let (shape, rank) = (self.shape(&x), x.view.rank());
        let pads = call.numbers("pads", 1)?.unwrap_or_default();
        let value = match call.optional(2)? {
            Some(constant) => constant.to_floats().first().copied().unwrap_or(0.0),
            None => call.float("value", 0.0),
        };
        // The least number stands for −∞.
        let value = if value == f32::MIN { f32::NEG_INFINITY } else { value };
        let axes = call.numbers("axes", 3)?.unwrap_or_else(|| (0..rank as i64).collect());
        if pads.len() != 2 * axes.len() {
            return Err(format!("pads {pads:?} of {} dimensions", axes.len()));
        }
        let (mut padding, mut channels) = (Padding::default(), [0; 2]);
        for (i, &axis) in axes.iter().enumerate() {
            let sides = [pads[i], pads[i + axes.len()]];
            if sides == [0, 0] {
                continue;
            }
            let axis = super::call::place(axis, rank)?;
            let side = x.view.side(axis, shape);
            if side == Some(Side::Channel) {
                channels = sides.map(|s| usize::try_from(s).unwrap_or(usize::MAX));
                continue;
            }
            let small = sides.map(u8::try_from);
            match (side, small) {
                (Some(Side::Row), [Ok(a), Ok(b)]) => (padding.top, padding.bottom) = (a, b),
                (Some(Side::Column), [Ok(a), Ok(b)]) => (padding.left, padding.right) = (a, b),
                (None, [Ok(_), Ok(_)]) => return Err(format!("pads {pads:?}")),
                _ => return Err(format!("pads {sides:?}, which is negative or too large")),
            }
        }
        if channels != [0; 2] {
            if padding != Padding::default() || x.border.is_some() || value != 0.0 {
                return Err("pads channels and pixels, or with numbers other than zero".into());
            }
            return self.more_channels(call, &x, channels);
        }
        if padding != Padding::default() {
            let before = x.border.take();
            let border = before.unwrap_or(Border { padding: Padding::default(), value });
            if border.value != value {
                return Err("pads a map twice, with different numbers".into());
            }
            x.border = Some(Border { padding: sum(border.padding, padding)?, value });
        }
        Ok(Value::Map(x))
    }
}

impl Border {
    /// The border, which must be of zeros.
    fn zeros(self) -> Result<Padding, String> {
        match self.value {
            0.0 => Ok(self.padding),
            value => Err(format!("reads a map padded with {value}; zeros are read")),
        }
    }
}

/// One border around another.
fn sum(a: Padding, b: Padding) -> Result<Padding, String> {
    let add = |a: u8, b: u8| a.checked_add(b).ok_or_else(|| format!("a border of {a} and {b}"));
    Ok(Padding {
        top: add(a.top, b.top)?,
        left: add(a.left, b.left)?,
        bottom: add(a.bottom, b.bottom)?,
        right: add(a.right, b.right)?,
    })
}

fn small_pad(pad: i64) -> Option<usize> {
    u8::try_from(pad).ok().map(usize::from)
}
