//! The checked parse.
//!
//! [`Artifact::new_checked`] proves, once and without a heap, everything that execution
//! relies on: the checksum; every record decodes; shapes follow from one another; every
//! activation lies in the arena; each operand was written before and not overwritten since;
//! weight ranges follow each other without holes; no accumulator can leave 32 bits; what only some
//! kernels read, sums of weights and weights of channels that do not exist, says what the others
//! compute. After that no accessor fails.

use crate::header::{CHECKSUM_AT, FLOATS_AT, HEADER_LEN, checksum, sums_of};
use crate::layout::{
    AFFINE_PLANES, ALIGN, Dtype, FilterLayout, MAX_PAIR, Survey, activation_bytes, align_up,
    has_columns, padding_fits,
};
use crate::meta::MAX_LABEL_BYTES;
use crate::params::ParamsForm;
use crate::scale::Rounded;
use crate::{
    Affine, ArtifactError, Cast, Conv2d, Gate, Grouped, Header, Known, Lookup, Meta, Op, Place,
    Pool2d, PoolKind, Quant, Shape, Span, output_len, stripes, winograd, winograd_i8,
};

/// Most operators of a model: data-flow checks are quadratic in it, and ResNet-200 has 270.
pub const MAX_OPS: usize = 1024;
/// Residual factors are below this, so that `(r − zero_point) · factor` stays in i32.
pub const MAX_RESIDUAL_FACTOR: i32 = 1 << 21;

/// A model that passed every check; borrows the file's bytes.
#[derive(Debug, Clone, Copy)]
pub struct Artifact<'a> {
    header: Header,
    meta: Meta<'a>,
    labels: &'a [u8],
    known: Option<Known>,
    ops: &'a [u8],
    /// All of the postcard section.
    records: &'a [u8],
    blob: &'a [u8],
}

impl<'a> Artifact<'a> {
    /// Checks a whole file; `bytes` must start at a multiple of [`ALIGN`].
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, ArtifactError> {
        Self::parse(bytes)?.aligned(bytes)
    }

    /// As [`Self::new_checked`], at any address: for tools that only look.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ArtifactError> {
        let artifact = Self::parse_trusted(bytes)?;
        artifact.check()?;
        Ok(artifact)
    }

    /// As [`Self::new_checked`], but of the operators only the checksum is checked.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn new_trusted(bytes: &'a [u8]) -> Result<Self, ArtifactError> {
        Self::parse_trusted(bytes)?.aligned(bytes)
    }

    fn aligned(self, bytes: &[u8]) -> Result<Self, ArtifactError> {
        match bytes.as_ptr().addr() % ALIGN {
            0 => Ok(self),
            offset => Err(ArtifactError::Misaligned { offset }),
        }
    }

    fn parse_trusted(bytes: &'a [u8]) -> Result<Self, ArtifactError> {
        let header = Header::parse(bytes)?;
        let mut stored = [0; 8];
        stored.copy_from_slice(&bytes[CHECKSUM_AT..CHECKSUM_AT + 8]);
        let bytes = &bytes[..header.content_len()];
        if checksum(bytes) != u64::from_le_bytes(stored) {
            return Err(ArtifactError::Checksum);
        }
        let records = &bytes[HEADER_LEN..HEADER_LEN + header.records_len];
        if bytes[HEADER_LEN + header.records_len..header.blob_offset()].iter().any(|b| *b != 0) {
            return Err(ArtifactError::Header { field: 12 });
        }
        let (mut meta, labels) =
            postcard::take_from_bytes::<Meta<'a>>(records).map_err(|_| ArtifactError::Meta)?;
        meta.preprocess.grey = meta.input.shape.c == 1;
        let ops = check_labels(&meta, labels)?;
        let labels = &labels[..labels.len() - ops.len()];
        let (known, ops) = match header.has_known {
            true => postcard::take_from_bytes(ops)
                .map(|(known, ops)| (Some(known), ops))
                .map_err(|_| ArtifactError::Known)?,
            false => (None, ops),
        };
        let blob = &bytes[header.blob_offset()..];
        Ok(Self { header, meta, labels, known, ops, records, blob })
    }

    /// What tells this model from others: a sum of its records and weights. A signature, or another version of the
    /// format, changes nothing of it.
    pub fn identity(&self) -> u64 {
        sums_of([self.records, self.blob])
    }

    /// The header.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Name, preprocessing, provenance.
    pub const fn meta(&self) -> &Meta<'a> {
        &self.meta
    }

    /// Class names in index order.
    pub const fn labels(&self) -> Labels<'a> {
        Labels { rest: self.labels, left: self.meta.label_count }
    }

    /// What tells unknown pictures, if it was asked for when the model was converted.
    pub const fn known(&self) -> Option<&Known> {
        self.known.as_ref()
    }

    /// Operators in execution order, decoded as they come.
    pub const fn ops(&self) -> Ops<'a> {
        Ops { rest: self.ops, left: self.header.op_count }
    }

    /// The records before those of the operators, and theirs, of this model's own `file`.
    #[cfg(feature = "alloc")]
    pub(crate) fn split_records<'f>(&self, file: &'f [u8]) -> (&'f [u8], &'f [u8]) {
        let end = HEADER_LEN + self.header.records_len;
        let start = end - self.ops.len();
        (&file[HEADER_LEN..start], &file[start..end])
    }

    /// The bytes of a weight range of one of this model's operators.
    pub fn span(&self, span: Span) -> &'a [u8] {
        // In range for this model's own spans; empty, not a panic, for foreign ones.
        self.blob.get(span.offset as usize..span.offset as usize + span.len as usize).unwrap_or(&[])
    }

    fn check(&self) -> Result<(), ArtifactError> {
        let meta = &self.meta;
        let mut ops = self.ops();
        if self.header.op_count == 0 {
            return Err(ArtifactError::NoOutput);
        }
        if self.header.op_count > MAX_OPS {
            return Err(ArtifactError::Header { field: 16 });
        }
        if !meta.preprocess.is_valid()
            || meta.preprocess.height != meta.input.shape.h
            || meta.preprocess.width != meta.input.shape.w
            || !self.place_fits(meta.input)
        {
            return Err(ArtifactError::Meta);
        }
        let mut cursor = 0;
        let mut waiting = Waiting::default();
        for index in 0..self.header.op_count {
            let Some(op) = ops.next() else {
                return Err(ArtifactError::Record { op: index });
            };
            if op.version(self.header.dtype, self.header.nr) > self.header.version {
                return Err(ArtifactError::Record { op: index });
            }
            match op.conv() {
                Some(o) if o.lines > 0 => waiting.push(*o, index)?,
                Some(o) if !waiting.is_empty() => {
                    self.check_turns(core::mem::take(&mut waiting), o, index)?;
                }
                _ if !waiting.is_empty() => return Err(ArtifactError::Operand { op: index }),
                _ => self.check_places(&op, index)?,
            }
            match op {
                Op::Conv2d(o) => self.check_conv(&o, 1, index, &mut cursor)?,
                Op::Grouped(o) => self.check_grouped(&o, index, &mut cursor)?,
                Op::Pool2d(o) => self.check_pool(&o, index)?,
                Op::Affine(o) => self.check_affine(&o, index, &mut cursor)?,
                Op::Cast(o) => self.check_cast(&o, index)?,
                Op::Gate(o) => self.check_gate(&o, index)?,
                Op::Lookup(o) => self.check_lookup(&o, index, &mut cursor)?,
            }
            if !op.clamp().is_valid() {
                return Err(ArtifactError::Quantization { op: index });
            }
            let last = index + 1 == self.header.op_count;
            if last
                && (op.output() != meta.output
                    || meta.output.shape.pixels() != 1
                    || u32::from(meta.output.shape.c) != meta.label_count)
            {
                return Err(ArtifactError::NoOutput);
            }
            if let (true, Some(known)) = (last, &self.known) {
                self.check_known(known, &op, index, &mut cursor)?;
            }
        }
        // What nothing takes turns with would never run.
        if !waiting.is_empty() {
            return Err(ArtifactError::NoOutput);
        }
        if !ops.rest.is_empty() {
            return Err(ArtifactError::Record { op: self.header.op_count });
        }
        if self.header.has_floats && !self.ops().any(|op| op.output().quant.is_float()) {
            return Err(ArtifactError::Header { field: FLOATS_AT });
        }
        if cursor != self.header.blob_len {
            return Err(ArtifactError::Weights { op: self.header.op_count });
        }
        Ok(())
    }

    /// Statistics of what the `last` operator, number `index`, reads.
    fn check_known(
        &self,
        known: &Known,
        last: &Op,
        index: usize,
        cursor: &mut usize,
    ) -> Result<(), ArtifactError> {
        let &Known { features, rows, means, weights, threshold, usual } = known;
        let channels = usize::from(features.shape.c);
        let mut take = |span, len| {
            self.take_span(span, Some(len), index, cursor).map_err(|_| ArtifactError::Known)
        };
        take(means, usize::from(rows) * channels)?;
        let weights = take(weights, channels)?;
        // It is whole before the last operator, which leaves what it reads alone but for its output.
        let is_sound = last.input() == features
            && self.dtype(features) == Dtype::I8
            && features.shape.pixels() == 1
            && self.is_live(features, index)
            && !self.overlap(features, last.output())
            && (1..=self.meta.label_count).contains(&rows.into())
            && weights.iter().any(|w| *w > 0)
            && threshold > 0
            && usual > 0;
        if is_sound { Ok(()) } else { Err(ArtifactError::Known) }
    }

    fn dtype(&self, place: Place) -> Dtype {
        place.dtype(self.header.dtype)
    }

    fn bytes_of(&self, place: Place) -> Option<core::ops::Range<usize>> {
        let len = activation_bytes(place.shape, self.dtype(place), self.header.nr)?;
        let start = place.offset as usize;
        Some(start..start.checked_add(len)?)
    }

    fn place_fits(&self, place: Place) -> bool {
        !place.shape.is_empty()
            && (place.offset as usize).is_multiple_of(ALIGN)
            && (place.quant.is_valid() || (self.header.has_floats && place.quant == Quant::FLOAT))
            && self.bytes_of(place).is_some_and(|r| r.end <= self.header.arena_len)
    }

    fn overlap(&self, a: Place, b: Place) -> bool {
        match (self.bytes_of(a), self.bytes_of(b)) {
            (Some(a), Some(b)) => a.start < b.end && b.start < a.end,
            _ => true,
        }
    }

    /// Whether an operator's scratch leaves `place` alone.
    fn spares(&self, scratch: Option<Span>, place: Place) -> bool {
        match (scratch, self.bytes_of(place)) {
            (None, _) => true,
            (Some(s), Some(p)) => {
                let end = u64::from(s.offset) + u64::from(s.len);
                end <= p.start as u64 || p.end as u64 <= u64::from(s.offset)
            }
            (Some(_), None) => false,
        }
    }

    /// Whether `place` holds a value when operator `before` starts.
    fn is_live(&self, place: Place, before: usize) -> bool {
        let mut live = self.meta.input == place;
        for op in self.ops().take(before) {
            let lines = op.lines();
            if lines == 0 && op.output() == place {
                live = true;
            } else if self.overlap(in_memory(op.output(), lines), place)
                || !self.spares(op.scratch(), place)
            {
                live = false;
            }
        }
        live
    }

    fn check_places(&self, op: &Op, index: usize) -> Result<(), ArtifactError> {
        let bad = Err(ArtifactError::Operand { op: index });
        let output = op.output();
        let operands = || op.operands().into_iter().enumerate().filter_map(|(i, p)| Some((i, p?)));
        let is_sound = |(i, operand): (usize, Place)| {
            let in_place = op.reusable() == Some(i)
                && operand.offset == output.offset
                && operand.shape == output.shape;
            self.place_fits(operand)
                && self.is_live(operand, index)
                && (in_place || !self.overlap(operand, output))
        };
        if !self.place_fits(output) || !operands().all(is_sound) {
            return bad;
        }
        if let Some(scratch) = op.scratch() {
            let end = u64::from(scratch.offset) + u64::from(scratch.len);
            if !(scratch.offset as usize).is_multiple_of(ALIGN)
                || end > self.header.arena_len as u64
                || !self.spares(Some(scratch), output)
                || !operands().all(|(_, operand)| self.spares(Some(scratch), operand))
            {
                return bad;
            }
        }
        if op.residual().is_some_and(|residual| residual.shape != output.shape) {
            return Err(ArtifactError::Geometry { op: index });
        }
        if !matches!(op, Op::Cast(_))
            && operands().any(|(_, operand)| self.dtype(operand) != self.dtype(output))
        {
            return Err(ArtifactError::Quantization { op: index });
        }
        Ok(())
    }

    /// As [`Self::check_places`], of convolutions that take turns: `waiting`, then `last`.
    fn check_turns(
        &self,
        waiting: Waiting,
        last: &Conv2d,
        index: usize,
    ) -> Result<(), ArtifactError> {
        let bad = Err(ArtifactError::Operand { op: index });
        let Some((first, shortcut)) = waiting.sort(last) else { return bad };
        let turn = stripes::rows_of_turn(last, first.lines);
        if !has_columns(self.header.dtype, self.header.nr) || turn == 0 {
            return bad;
        }
        // Known to the end of this group only: the maps between, and all scratch.
        let first_index = index - 1 - usize::from(shortcut.is_some());
        let (input, output) = (first.input, last.output);
        let residual = last.residual.map(|r| r.input);
        let between = in_memory(first.output, first.lines);
        let added = shortcut.map(|s| in_memory(s.output, s.lines));
        let places = [Some(input), Some(output), Some(between), added];
        if places.into_iter().flatten().chain(residual).any(|p| p.quant.is_float()) {
            return bad;
        }
        let whole = residual.filter(|r| shortcut.is_none() && *r != input);
        let sound = places.into_iter().flatten().chain(whole).all(|p| self.place_fits(p))
            && self.is_live(input, first_index)
            && whole.is_none_or(|r| self.is_live(r, first_index))
            && residual.is_none_or(|r| r.shape == output.shape)
            && shortcut.is_none_or(|s| {
                s.filter[0] == 1
                    && s.padding.top == 0
                    && s.stride == first.stride
                    && usize::from(s.lines) == turn
                    && s.input == input
                    && s.output.shape == output.shape
            });
        // Geometry, which turns rely on.
        let rows = |c: &Conv2d| {
            let (i, p) = (c.input.shape.h, c.padding);
            padding_fits(p, c.filter[0], c.filter[1])
                && output_len(i, p.top, p.bottom, c.filter[0], c.stride[0])
                    == Some(c.output.shape.h)
        };
        if !sound || !rows(first) || !rows(last) || !shortcut.is_none_or(rows) {
            return bad;
        }
        let apart = |a: Place, b: Place| !self.overlap(a, b);
        let in_place = |r: Place| r.offset == output.offset;
        let over = apart(input, output)
            || (residual.is_none_or(|r| r != input || in_place(r))
                && stripes::follows(first, last));
        let disjoint = over
            && apart(between, input)
            && apart(between, output)
            && added.is_none_or(|s| [between, input, output].iter().all(|p| apart(s, *p)))
            && whole.is_none_or(|r| {
                apart(r, between) && (apart(r, output) || in_place(r)) && apart(r, input)
            });
        let scratch = [Some(first), shortcut, Some(last)].into_iter().flatten().all(|c| {
            c.scratch.is_some_and(|s| {
                let end = u64::from(s.offset) + u64::from(s.len);
                (s.offset as usize).is_multiple_of(ALIGN)
                    && end <= self.header.arena_len as u64
                    && places.into_iter().flatten().chain(whole).all(|p| self.spares(Some(s), p))
            })
        });
        if disjoint && scratch { Ok(()) } else { bad }
    }

    /// The next range in the blob, which must start where the last one ended.
    fn take_span(
        &self,
        span: Span,
        len: Option<usize>,
        index: usize,
        cursor: &mut usize,
    ) -> Result<&'a [u8], ArtifactError> {
        let bad = ArtifactError::Weights { op: index };
        if len != Some(span.len as usize) || span.offset as usize != *cursor {
            return Err(bad);
        }
        let end = cursor.checked_add(span.len as usize).ok_or(bad)?;
        let bytes = self.blob.get(*cursor..end).ok_or(bad)?;
        let next = align_up(end);
        if self.blob.get(end..next).ok_or(bad)?.iter().any(|b| *b != 0) {
            return Err(bad);
        }
        *cursor = next;
        Ok(bytes)
    }

    /// Parameters of a convolution, with what tells of an int8 one's channel.
    fn take_params(
        &self,
        o: &Conv2d,
        dtype: Dtype,
        index: usize,
        cursor: &mut usize,
    ) -> Result<Params<'a>, ArtifactError> {
        let nr = self.header.nr;
        let form = o.params_form(nr, dtype).ok_or(ArtifactError::Weights { op: index })?;
        let bytes = self.take_span(o.params, Some(o.params.len as usize), index, cursor)?;
        Ok(Params { bytes, form, nr })
    }

    /// Size of the output and padding of a convolution.
    fn check_window(o: &Conv2d, index: usize) -> Result<(), ArtifactError> {
        let (i, y, p) = (o.input.shape, o.output.shape, o.padding);
        if output_len(i.h, p.top, p.bottom, o.filter[0], o.stride[0]) != Some(y.h)
            || output_len(i.w, p.left, p.right, o.filter[1], o.stride[1]) != Some(y.w)
            || !padding_fits(p, o.filter[0], o.filter[1])
        {
            return Err(ArtifactError::Geometry { op: index });
        }
        Ok(())
    }

    fn check_grouped(
        &self,
        o: &Grouped,
        index: usize,
        cursor: &mut usize,
    ) -> Result<(), ArtifactError> {
        let (groups, c_in, c_out) = (o.groups, o.conv.input.shape.c, o.conv.output.shape.c);
        if groups < 2 || !c_in.is_multiple_of(groups) || !c_out.is_multiple_of(groups) {
            return Err(ArtifactError::Geometry { op: index });
        }
        if !o.is_depthwise() {
            return self.check_conv(&o.conv, groups, index, cursor);
        }
        Self::check_window(&o.conv, index)?;
        let (dtype, nr) = (self.dtype(o.conv.output), self.header.nr);
        let layout = o.conv.depthwise_layout(nr, dtype);
        let weights = self.take_span(o.conv.weights, Some(layout.bytes()), index, cursor)?;
        let params = self.take_params(&o.conv, dtype, index, cursor)?;
        let planes = has_columns(dtype, nr).then(|| o.conv.planes().bytes());
        if o.conv.scratch.map(|s| s.len as usize) != planes {
            return Err(ArtifactError::Geometry { op: index });
        }
        let taps = (layout.kh * layout.kw) as u64;
        // Some kernels negate weights, which −128 does not survive.
        let is_sound = dtype != Dtype::I8
            || (check_conv_params(params, taps, &o.conv)
                && layout.spares_padding(weights)
                && check_sums(weights, layout.panel_len(), params, &o.conv)
                    .is_some_and(|seen| seen.smallest() > i8::MIN.into()));
        if is_sound { Ok(()) } else { Err(ArtifactError::Quantization { op: index }) }
    }

    fn check_conv(
        &self,
        o: &Conv2d,
        groups: u16,
        index: usize,
        cursor: &mut usize,
    ) -> Result<(), ArtifactError> {
        let geometry = Err(ArtifactError::Geometry { op: index });
        Self::check_window(o, index)?;
        let (i, y) = (o.input.shape, o.output.shape);
        let layout = o.filter_layout(groups, self.header.nr, self.dtype(o.output));
        let taps = (layout.kh * layout.kw) as u64 * layout.c_in as u64;
        // 2^16 products of 2^14 stay in 2^30; larger filters no network has.
        if taps > 1 << 16 {
            return geometry;
        }
        let dtype = layout.dtype;
        let has_columns = has_columns(dtype, self.header.nr);
        if let Some(scratch) = o.scratch.filter(|_| !has_columns) {
            let bytes = match dtype {
                Dtype::F32 if winograd::channels_fit(i.c, y.c) => winograd::scratch_bytes(i.c, y),
                Dtype::I8 if winograd_i8::channels_fit(i.c, y.c) => {
                    Some(winograd_i8::scratch_bytes(i.c, y))
                }
                _ => None,
            };
            if self.header.nr != winograd::LANES
                || groups > 1
                || o.filter != [3, 3]
                || o.stride != [1, 1]
                || bytes != Some(scratch.len as usize)
            {
                return geometry;
            }
        }
        // Winograd's weights of floats are as many 1×1 filters for each sixteen outputs.
        let (kh, kw, filters) = match o.scratch {
            Some(_) if dtype == Dtype::F32 => (1, 1, winograd::POSITIONS),
            _ => (layout.kh, layout.kw, 1),
        };
        let layout = FilterLayout { kh, kw, ..layout };
        let panel = layout.panel_len().checked_mul(dtype.weight_bytes() * filters);
        let weights = panel.and_then(|b| b.checked_mul(layout.panels()));
        let weights = self.take_span(o.weights, weights, index, cursor)?;
        let params = self.take_params(o, dtype, index, cursor)?;
        if has_columns && o.scratch.map(|s| s.len as usize) != Some(layout.column_bytes()) {
            return geometry;
        }
        if dtype == Dtype::I8 {
            // Some kernels negate weights, which −128 does not survive.
            let ok = check_conv_params(params, taps, o)
                && layout.spares_padding(weights)
                && check_sums(weights, layout.panel_len(), params, o).is_some_and(|seen| {
                    seen.smallest() > i8::MIN.into()
                        && (!o.pairs_fit || seen.largest_pair() <= MAX_PAIR)
                })
                && (o.scratch.is_none() || has_columns || self.sums_fit(weights, &layout));
            return if ok { Ok(()) } else { Err(ArtifactError::Quantization { op: index }) };
        }
        Ok(())
    }

    /// Whether Winograd's way is exact for these weights of int8.
    fn sums_fit(&self, weights: &[u8], layout: &FilterLayout) -> bool {
        let sums = winograd_i8::largest_sums(weights, layout.panel_len());
        let sum = if self.header.version < 8 { sums.all } else { sums.one_sign };
        sum <= winograd_i8::MAX_SUM
    }

    fn check_lookup(
        &self,
        o: &Lookup,
        index: usize,
        cursor: &mut usize,
    ) -> Result<(), ArtifactError> {
        if o.input.shape != o.output.shape {
            return Err(ArtifactError::Geometry { op: index });
        }
        let entries = if self.dtype(o.output) == Dtype::I8 { 256 } else { 0 };
        self.take_span(o.table, Some(entries), index, cursor).map(drop)
    }

    fn check_pool(&self, o: &Pool2d, index: usize) -> Result<(), ArtifactError> {
        let (i, y, p) = (o.input.shape, o.output.shape, o.padding);
        if output_len(i.h, p.top, p.bottom, o.filter[0], o.stride[0]) != Some(y.h)
            || output_len(i.w, p.left, p.right, o.filter[1], o.stride[1]) != Some(y.w)
            || !padding_fits(p, o.filter[0], o.filter[1])
            || i.c != y.c
        {
            return Err(ArtifactError::Geometry { op: index });
        }
        let window = u64::from(o.filter[0]) * u64::from(o.filter[1]);
        let ok = match o.kind {
            PoolKind::Max => o.input.quant == o.output.quant,
            // window · 255 must stay in 2^30, also after scaling a border window up
            PoolKind::Average => o.requant.is_valid() && window <= 1 << 14,
        };
        if self.dtype(o.output) == Dtype::I8 && !ok {
            return Err(ArtifactError::Quantization { op: index });
        }
        Ok(())
    }

    fn check_cast(&self, o: &Cast, index: usize) -> Result<(), ArtifactError> {
        if o.input.shape != o.output.shape {
            return Err(ArtifactError::Geometry { op: index });
        }
        // Of one format, it is a copy.
        let is_copy = self.dtype(o.input) == self.dtype(o.output);
        if is_copy && o.input.quant != o.output.quant {
            return Err(ArtifactError::Quantization { op: index });
        }
        Ok(())
    }

    fn check_gate(&self, o: &Gate, index: usize) -> Result<(), ArtifactError> {
        let x = o.input.shape;
        if x != o.output.shape || o.gate.shape != (Shape { h: 1, w: 1, ..x }) {
            return Err(ArtifactError::Geometry { op: index });
        }
        // Products of two differences of bytes stay in 2^16.
        if self.dtype(o.output) == Dtype::I8 && !o.requant.is_valid() {
            return Err(ArtifactError::Quantization { op: index });
        }
        Ok(())
    }

    fn check_affine(
        &self,
        o: &Affine,
        index: usize,
        cursor: &mut usize,
    ) -> Result<(), ArtifactError> {
        if o.input.shape != o.output.shape {
            return Err(ArtifactError::Geometry { op: index });
        }
        let nr = self.header.nr;
        let len = usize::from(o.input.shape.c).div_ceil(nr) * AFFINE_PLANES * nr * 4;
        let params = self.take_span(o.params, Some(len), index, cursor)?;
        if self.dtype(o.output) == Dtype::I8 {
            let bounded = params.chunks_exact(AFFINE_PLANES * nr * 4).all(|panel| {
                let (factor, addend) = panel.split_at(nr * 4);
                // 2^8 · 2^21 + 2^29 + rounding stays in i32
                i32s(factor).all(|f| f.unsigned_abs() < 1 << 21)
                    && i32s(addend).all(|b| b.unsigned_abs() < 1 << 29)
            });
            if !bounded || !(1..=24).contains(&o.shift) {
                return Err(ArtifactError::Quantization { op: index });
            }
        }
        Ok(())
    }
}

/// What of an output is in memory: `lines` of it, or all where that is 0.
fn in_memory(place: Place, lines: u16) -> Place {
    match lines {
        0 => place,
        h => Place { shape: Shape { h, ..place.shape }, ..place },
    }
}

/// Convolutions that wait for the one that they take turns with.
#[derive(Default)]
struct Waiting([Option<Conv2d>; 2]);

impl Waiting {
    fn is_empty(&self) -> bool {
        self.0[0].is_none()
    }

    fn push(&mut self, conv: Conv2d, op: usize) -> Result<(), ArtifactError> {
        let place = self.0.iter_mut().find(|c| c.is_none());
        *place.ok_or(ArtifactError::Operand { op })? = Some(conv);
        match conv.residual {
            Some(_) => Err(ArtifactError::Operand { op }),
            None => Ok(()),
        }
    }

    /// The one whose output `last` reads, and the one whose output it adds.
    fn sort(&self, last: &Conv2d) -> Option<(&Conv2d, Option<&Conv2d>)> {
        let (first, shortcut) = match &self.0 {
            [Some(a), None] => (a, None),
            [Some(a), Some(b)] if a.output == last.input => (a, Some(b)),
            [Some(b), Some(a)] => (a, Some(b)),
            [None, _] => return None,
        };
        let adds = |s: &Conv2d| last.residual.is_some_and(|r| r.input == s.output);
        (first.output == last.input && shortcut.is_none_or(adds)).then_some((first, shortcut))
    }
}

fn i32s(bytes: &[u8]) -> impl Iterator<Item = i32> {
    bytes.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

/// A convolution's parameters.
#[derive(Clone, Copy)]
struct Params<'a> {
    bytes: &'a [u8],
    form: ParamsForm,
    nr: usize,
}

/// `n` of a positive number in `2^n..2^(n+1)`; without floats, which microcontrollers may have to emulate.
const fn exponent(positive: f32) -> i32 {
    (positive.to_bits() >> 23) as i32 - 127
}

/// Ranges of an int8 convolution's parameters, and the bound on its accumulators.
fn check_conv_params(params: Params<'_>, taps: u64, o: &Conv2d) -> bool {
    let Params { bytes, form, nr } = params;
    let is_scaled = matches!(form, ParamsForm::Scales | ParamsForm::RoundedScales);
    let residual_fits = o.residual.is_none_or(|r| match is_scaled {
        // 2^8 · 2^21 stays in i32.
        true => {
            r.shift == 0 && exponent(r.input.quant.scale) - exponent(o.output.quant.scale) <= 20
        }
        false => r.shift <= 24,
    });
    if !residual_fits {
        return false;
    }
    let word = |i: usize| i32s(&bytes[i * 4..i * 4 + 4]).next().unwrap_or(0);
    let outputs = usize::from(o.output.shape.c);
    if form == ParamsForm::RoundedScales {
        let end = bytes.len() / 4;
        if Rounded::read([word(end - 2), word(end - 1)]).is_none() {
            return false;
        }
    }
    // Those of a panel or a pair that do not exist have parameters, too.
    let is_short = matches!(form, ParamsForm::Short(_));
    let end = outputs.next_multiple_of(if is_short { 2 } else { nr });
    (0..end).all(|channel| {
        let has_factor = form == ParamsForm::Planes || o.residual.is_some();
        let channel = form.channel(nr, channel, has_factor, word);
        let [multiplier, shift] = channel.requant;
        let residual = match o.residual {
            Some(r) => (i64::from(channel.residual) * 256) >> r.shift,
            None => 0,
        };
        // |Σ x·w| ≤ taps · 128 · 128, then the bias and the residual
        let bound = taps as i64 * (1 << 14) + i64::from(channel.bias).abs();
        // A sum of less than 2^n times a scale of less than 2^m stays in i32, too.
        let bits = 64 - bound.leading_zeros() as i32;
        multiplier >= 0
            && form.has_shift(shift)
            && (!is_scaled || bits + exponent(f32::from_bits(multiplier as u32)) < 30)
            && (0..MAX_RESIDUAL_FACTOR).contains(&channel.residual)
            && bound + residual < i64::from(i32::MAX)
    })
}

/// Looks at weights of int8; `None` where the stored sums of an output are not theirs, for only some kernels
/// read those.
fn check_sums(weights: &[u8], panel_len: usize, params: Params<'_>, o: &Conv2d) -> Option<Survey> {
    let Params { bytes, form, nr } = params;
    let mut survey = Survey::default();
    if nr != 16 {
        survey.add(weights);
        return Some(survey);
    }
    let word = |i: usize| i32s(&bytes[i * 4..i * 4 + 4]).next().unwrap_or(0);
    let mut outputs = 0..usize::from(o.output.shape.c);
    let are_stored = weights.chunks_exact(panel_len).all(|panel| {
        let sums = survey.add(panel);
        sums.into_iter().zip(outputs.by_ref()).all(|(sum, o)| form.weight_sum(o, word) == Some(sum))
    });
    are_stored.then_some(survey)
}

/// Checks every label; returns what follows them.
fn check_labels<'a>(meta: &Meta<'a>, records: &'a [u8]) -> Result<&'a [u8], ArtifactError> {
    let mut rest = records;
    for index in 0..meta.label_count as usize {
        let bad = ArtifactError::Labels { index };
        let (label, tail) = postcard::take_from_bytes::<&str>(rest).map_err(|_| bad)?;
        if label.is_empty() || label.len() > MAX_LABEL_BYTES {
            return Err(bad);
        }
        rest = tail;
    }
    Ok(rest)
}

/// Class names, see [`Artifact::labels`].
#[derive(Debug, Clone)]
pub struct Labels<'a> {
    rest: &'a [u8],
    left: u32,
}

impl<'a> Iterator for Labels<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.left = self.left.checked_sub(1)?;
        let (label, rest) = postcard::take_from_bytes(self.rest).ok()?;
        self.rest = rest;
        Some(label)
    }
}

/// Operators, see [`Artifact::ops`].
#[derive(Debug, Clone)]
pub struct Ops<'a> {
    rest: &'a [u8],
    left: usize,
}

impl Iterator for Ops<'_> {
    type Item = Op;

    fn next(&mut self) -> Option<Op> {
        self.left = self.left.checked_sub(1)?;
        let (op, rest) = postcard::take_from_bytes(self.rest).ok()?;
        self.rest = rest;
        Some(op)
    }
}
