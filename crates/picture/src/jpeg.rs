//! Reads a JPEG's compressed data before it is decoded, to know whether they are a whole picture:
//! the decoder shows what it can of damaged ones, in grey for what is missing, and says nothing.
//!
//! Huffman codes show damage: there is no code like that, coefficients run past the end of
//! their block, a block is lighter than white, the data end before the last block or, with
//! restart markers, behind it. All codes are read, none is computed with.
//!
//! Sequential files whose components come one after another are decoded wrongly; [`check`]
//! rewrites them as progressive ones (`rewrite`), of the same coefficients.

mod bits;
mod rewrite;

use crate::PictureError;
use crate::memory::Announced;
use bits::{Bits, Table, Wrong};
use rewrite::Rewriter;

/// As many scans as the decoder reads.
const MAX_SCANS: usize = 100;
/// Blocks that scans of any file may visit, and how many more for each of its bytes. Ordinary scans have a
/// block in each byte or two; empty ones cost as much time.
const FREE_VISITS: usize = 8 << 20;
const VISITS: usize = 64;
/// Most light of a block, in the units of its first coefficient, which has eight times that of
/// a pixel: 128 from grey, and what encoders add to make edges crisp. Rounding comes on top.
const MAX_LIGHT: i64 = 8 * (128 + 16);

const NO_END: &str = "the end of the file is missing; copy or download it again";

/// What is known of a whole file.
pub(crate) struct Checked {
    /// The one to decode instead, where there is one.
    pub rewritten: Option<Vec<u8>>,
    /// Bytes of coefficients that its decoder keeps.
    pub coefficients: u64,
}

/// Checks a file.
///
/// # Errors
/// Kinds that the decoder cannot read, and damaged files.
pub(crate) fn check(file: &[u8]) -> Result<Checked, PictureError> {
    let mut reader = Reader { file, ..Reader::default() };
    let mut at = 2;
    loop {
        let marker = next_marker(file, &mut at).ok_or_else(|| damaged(NO_END))?;
        if marker == 0xd9 {
            return reader.finish();
        }
        // Markers without a segment.
        if matches!(marker, 0x00 | 0x01 | 0xd0..=0xd8) {
            continue;
        }
        let payload = file.get(at..).and_then(|rest| {
            let (len, _) = rest.split_first_chunk()?;
            rest.get(2..u16::from_be_bytes(*len).max(2).into())
        });
        let payload = payload.ok_or_else(|| damaged(NO_END))?;
        at += 2 + payload.len();
        if marker == 0xda {
            at = reader.scan(payload, at)?;
        } else {
            reader.segment(marker, payload)?;
        }
    }
}

/// Finds the next marker from `at` on, and steps behind it.
fn next_marker(file: &[u8], at: &mut usize) -> Option<u8> {
    *at += file.get(*at..)?.iter().position(|&b| b == 0xff)?;
    *at += file[*at..].iter().position(|&b| b != 0xff)?;
    *at += 1;
    Some(file[*at - 1])
}

fn damaged(what: impl Into<String>) -> PictureError {
    PictureError::Damaged(what.into())
}

fn unsupported(what: &str) -> PictureError {
    PictureError::Unsupported(format!("a JPEG {what}; save it as an ordinary JPEG, or as PNG"))
}

/// What has been read of a file.
#[derive(Default)]
struct Reader<'a> {
    file: &'a [u8],
    frame: Option<Frame>,
    /// The step of the first coefficient, by the number of the table.
    steps: [i32; 4],
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    /// Units between two restart markers, or 0.
    restart: usize,
    scans: usize,
    /// Blocks of all scans.
    visits: usize,
    /// Segments that a rewritten file has, too.
    kept: Vec<(u8, &'a [u8])>,
    rewriter: Option<Rewriter<'a>>,
}

/// What a picture is made of.
struct Frame {
    payload: Vec<u8>,
    is_progressive: bool,
    width: usize,
    height: usize,
    /// Largest sampling factors of all components.
    max: [usize; 2],
    components: Vec<Component>,
}

/// A plane of 8×8 blocks.
struct Component {
    id: u8,
    /// Blocks of a unit, across and down.
    factors: [usize; 2],
    /// Number of its table of steps.
    steps: usize,
    /// Blocks that the picture needs, across and down.
    blocks: [usize; 2],
    /// Blocks of a row of whole units.
    stride: usize,
    /// Lowest bit of each coefficient that has come.
    low: [Option<u32>; 64],
    /// Coefficients other than 0, of each block of a progressive picture.
    set: Vec<u64>,
}

/// The part of a component's coefficients that a scan brings.
#[derive(Clone, Copy)]
struct Part {
    first: u32,
    last: u32,
    /// Whether it adds a bit to what an earlier scan brought.
    refines: bool,
    /// Lowest bit.
    low: u32,
}

/// A component in a scan.
#[derive(Clone, Copy)]
struct Member {
    index: usize,
    dc: usize,
    ac: usize,
    /// Light of the block before.
    light: i32,
}

impl<'a> Reader<'a> {
    fn finish(self) -> Result<Checked, PictureError> {
        let frame = self.frame.ok_or_else(|| damaged("there is no picture in it"))?;
        // Coarser colors may lack details, but not what was announced.
        let is_whole = |(i, c): (usize, &Component)| {
            c.low[0] == Some(0) && c.low.iter().all(|low| low.map_or(i > 0, |low| low == 0))
        };
        if !frame.components.iter().enumerate().all(is_whole) {
            return Err(damaged("scans are missing at its end; copy or download it again"));
        }
        let rewritten = self.rewriter.map(Rewriter::finish);
        let keeps = frame.is_progressive || rewritten.is_some();
        let coefficients = if keeps { frame.coefficients() } else { 0 };
        Ok(Checked { rewritten, coefficients })
    }

    /// Reads a segment other than a scan's.
    fn segment(&mut self, marker: u8, payload: &'a [u8]) -> Result<(), PictureError> {
        let cut = || damaged("one of its tables is cut off");
        match marker {
            0xc4 => {
                let mut rest = payload;
                while let Some((&id, table)) = rest.split_first() {
                    let table = Table::new(table, id >> 4 != 0)
                        .ok_or_else(|| damaged("a wrong code table"))?;
                    rest = &rest[1 + table.bytes.len()..];
                    let tables = if id >> 4 == 0 { &mut self.dc } else { &mut self.ac };
                    let place = tables.get_mut(usize::from(id & 15));
                    *place.ok_or_else(|| damaged("a wrong code table"))? = Some(table);
                }
            }
            0xdb => {
                let mut rest = payload;
                while let Some(&id) = rest.first() {
                    let wide = usize::from(id >> 4 != 0);
                    let (table, more) = rest.split_at_checked(65 + 64 * wide).ok_or_else(cut)?;
                    let step = if wide == 0 { table[1].into() } else { two(&table[1..]) as i32 };
                    let place = self.steps.get_mut(usize::from(id & 15));
                    *place.ok_or_else(|| damaged("a wrong table of steps"))? = step;
                    rest = more;
                }
                self.kept.push((marker, payload));
            }
            0xdd => self.restart = two(payload.get(..2).ok_or_else(cut)?),
            0xc0..=0xc2 if self.frame.is_none() => {
                self.frame = Some(Frame::new(marker, payload, self.file.len())?);
            }
            0xc0..=0xc2 => return Err(damaged("it has the heads of two pictures")),
            0xc3 | 0xf7 => return Err(unsupported("without loss")),
            0xc5..=0xc7 => return Err(unsupported("of several sizes")),
            0xc9..=0xcb | 0xcd..=0xcf => return Err(unsupported("with arithmetic coding")),
            0xe0..=0xef => self.kept.push((marker, payload)),
            _ => {}
        }
        Ok(())
    }

    /// Reads a scan, whose compressed data start at `at`; returns where they end.
    fn scan(&mut self, head: &[u8], at: usize) -> Result<usize, PictureError> {
        let wrong = || damaged("the head of its compressed data is wrong");
        self.scans += 1;
        if self.scans > MAX_SCANS {
            return Err(damaged(format!("more than {MAX_SCANS} scans")));
        }
        let frame = self.frame.as_mut().ok_or_else(wrong)?;
        let (&count, rest) = head.split_first().ok_or_else(wrong)?;
        let (ids, rest) = rest.split_at_checked(2 * usize::from(count)).ok_or_else(wrong)?;
        let &[first, last, bits] = rest else { return Err(wrong()) };
        let mut members = Vec::new();
        for id in ids.chunks_exact(2) {
            let index = frame.components.iter().position(|c| c.id == id[0]).ok_or_else(wrong)?;
            let [dc, ac] = [id[1] >> 4, id[1] & 15].map(usize::from);
            if dc > 3 || ac > 3 || members.iter().any(|m: &Member| m.index == index) {
                return Err(wrong());
            }
            members.push(Member { index, dc, ac, light: 0 });
        }
        let part = if frame.is_progressive {
            let [first, last, low] = [first, last, bits & 15].map(u32::from);
            Part { first, last, refines: bits >> 4 != 0, low }
        } else {
            Part { first: 0, last: 63, refines: false, low: 0 }
        };
        let is_light = frame.is_progressive && part.first == 0;
        if members.is_empty()
            || part.last > 63
            || part.first > part.last
            || part.low > 13
            || (is_light && part.last != 0)
            || (part.first > 0 && members.len() > 1)
        {
            return Err(wrong());
        }
        for m in &members {
            let needs_dc = part.first == 0 && !part.refines;
            let c = &mut frame.components[m.index];
            // What adds to nothing is wrong as well.
            if (needs_dc && self.dc[m.dc].is_none())
                || (part.last > 0 && self.ac[m.ac].is_none())
                || (!needs_dc && c.low[0].is_none())
            {
                return Err(wrong());
            }
            c.low[part.first as usize..=part.last as usize].fill(Some(part.low));
        }
        self.visits += frame.blocks(&members);
        if self.visits > FREE_VISITS + VISITS * self.file.len() {
            return Err(damaged(format!("{} scans of too little data", self.scans)));
        }
        if !frame.is_progressive && members.len() < frame.components.len() {
            self.rewriter.get_or_insert_with(|| Rewriter::new(&frame.payload));
        }
        if let Some(rewriter) = &mut self.rewriter {
            rewriter.start(&mut self.kept, &members, frame, self.restart);
        }
        let mut walk = Walk {
            bits: Bits::new(self.file, at),
            part,
            ending: 0,
            frame,
            steps: &self.steps,
            dc: &self.dc,
            ac: &self.ac,
            rewriter: self.rewriter.as_mut(),
        };
        let end = walk.units(&mut members, self.restart);
        let Ok(end) = end else {
            let (end, _) = walk.bits.end();
            return Err(if end >= self.file.len() {
                damaged(NO_END)
            } else {
                damaged("its compressed data are broken or cut short; copy or download it again")
            });
        };
        if let Some(rewriter) = &mut self.rewriter {
            rewriter.end(&members, frame, &self.dc, &self.ac);
        }
        Ok(end)
    }
}

impl Frame {
    /// That of a file of `file` bytes.
    fn new(marker: u8, payload: &[u8], file: usize) -> Result<Self, PictureError> {
        let wrong = || damaged("the head of the picture is wrong");
        let &[precision, h1, h0, w1, w0, count, ref rest @ ..] = payload else {
            return Err(wrong());
        };
        if precision != 8 {
            return Err(unsupported("of more than 8 bits a color"));
        }
        let (height, width) = (two(&[h1, h0]), two(&[w1, w0]));
        if height == 0 {
            return Err(unsupported("whose height follows its pixels"));
        }
        if width == 0 || !matches!(count, 1..=4) || rest.len() < 3 * usize::from(count) {
            return Err(wrong());
        }
        let mut components = Vec::new();
        let mut max = [1; 2];
        for &[id, factors, steps] in rest.as_chunks().0.iter().take(count.into()) {
            let factors = [factors >> 4, factors & 15].map(usize::from);
            if factors.iter().any(|f| !(1..=4).contains(f)) || steps > 3 {
                return Err(wrong());
            }
            max = [0, 1].map(|axis| max[axis].max(factors[axis]));
            let (blocks, stride, set) = Default::default();
            let steps = steps.into();
            components.push(Component { id, factors, steps, blocks, stride, low: [None; 64], set });
        }
        if components.len() > 1 && components[0].factors != max {
            return Err(unsupported("whose first color is coarser than others"));
        }
        let is_progressive = marker == 0xc2;
        let mut frame =
            Self { payload: payload.to_vec(), is_progressive, width, height, max, components };
        let [across, down] = frame.units();
        for c in &mut frame.components {
            let pixels = |axis: usize, of: usize| (of * c.factors[axis]).div_ceil(max[axis]);
            c.blocks = [pixels(0, width).div_ceil(8), pixels(1, height).div_ceil(8)];
            c.stride = across * c.factors[0];
        }
        let beside = if is_progressive { frame.coefficients() } else { 0 };
        let (width, height) = (width as u32, height as u32);
        let pixels = 3 * u64::from(width) * u64::from(height);
        Announced { width, height, pixels, beside, file }.check()?;
        if is_progressive {
            for c in &mut frame.components {
                // Zeroed memory costs nothing until it is written.
                c.set = vec![0; c.stride * down * c.factors[1]];
            }
        }
        Ok(frame)
    }

    /// Bytes of all coefficients, and of which were set.
    fn coefficients(&self) -> u64 {
        let [across, down] = self.units().map(|units| units as u64);
        let blocks = |c: &Component| across * down * (c.factors[0] * c.factors[1]) as u64;
        self.components.iter().map(|c| blocks(c) * (64 * 2 + 8)).sum()
    }

    /// Blocks of a scan.
    fn blocks(&self, members: &[Member]) -> usize {
        match members {
            [m] => self.components[m.index].blocks.iter().product(),
            _ => {
                let of = |m: &Member| self.components[m.index].factors.iter().product::<usize>();
                let [across, down] = self.units();
                across * down * members.iter().map(of).sum::<usize>()
            }
        }
    }

    /// Units of all components, across and down.
    fn units(&self) -> [usize; 2] {
        [self.width.div_ceil(8 * self.max[0]), self.height.div_ceil(8 * self.max[1])]
    }
}

/// Reading of a scan.
struct Walk<'a, 'b> {
    bits: Bits<'a>,
    part: Part,
    /// Blocks to come that have no more coefficients.
    ending: u32,
    frame: &'b mut Frame,
    steps: &'b [i32; 4],
    dc: &'b [Option<Table>; 4],
    ac: &'b [Option<Table>; 4],
    rewriter: Option<&'b mut Rewriter<'a>>,
}

impl Walk<'_, '_> {
    /// Reads all units; returns where the data end.
    fn units(&mut self, members: &mut [Member], restart: usize) -> Result<usize, Wrong> {
        // One component by itself comes block by block.
        let alone = match members {
            [m] => Some(self.frame.components[m.index].blocks),
            _ => None,
        };
        let [across, down] = alone.unwrap_or_else(|| self.frame.units());
        let mut left = restart;
        let mut number = 0;
        for y in 0..down {
            for x in 0..across {
                if restart > 0 && left == 0 {
                    self.restart(number, members)?;
                    number = (number + 1) % 8;
                    left = restart;
                }
                left = left.wrapping_sub(1);
                for m in members.iter_mut() {
                    let [w, h] = self.frame.components[m.index].factors;
                    let [w, h] = if alone.is_some() { [1, 1] } else { [w, h] };
                    for i in 0..w * h {
                        self.block(m, x * w + i % w, y * h + i / w)?;
                    }
                    self.bits.check()?;
                }
            }
        }
        if self.ending > 0 {
            return Err(Wrong);
        }
        // Cameras and editors leave bytes behind, which harm nothing.
        let (end, _) = self.bits.end();
        Ok(end)
    }

    /// Passes over the restart marker with this number.
    fn restart(&mut self, number: u8, members: &mut [Member]) -> Result<(), Wrong> {
        let (mut at, rest) = self.bits.end();
        let marker = next_marker(self.bits.file(), &mut at);
        if rest > 0 || self.ending > 0 || marker != Some(0xd0 + number) {
            return Err(Wrong);
        }
        self.bits = Bits::new(self.bits.file(), at);
        for m in members {
            m.light = 0;
        }
        if let Some(rewriter) = &mut self.rewriter {
            rewriter.restart(number);
        }
        Ok(())
    }

    fn block(&mut self, m: &mut Member, x: usize, y: usize) -> Result<(), Wrong> {
        let c = &mut self.frame.components[m.index];
        let index = y * c.stride + x;
        let Part { first, refines, low, .. } = self.part;
        if first == 0 && refines {
            self.bits.skip(1);
            return Ok(());
        }
        if first == 0 {
            let before = self.bits;
            let table = self.dc[m.dc].as_ref().ok_or(Wrong)?;
            let len = u32::from(self.bits.symbol(table)?);
            if len > 11 {
                return Err(Wrong);
            }
            let bits = self.bits.take(len) as i32;
            // Numbers of `len` bits; those that start with 0 are negative.
            m.light += if bits >> (len.max(1) - 1) == 0 { bits - (1 << len) + 1 } else { bits };
            let step = i64::from(self.steps[c.steps].max(1)) << low;
            if (i64::from(m.light) * step).abs() > MAX_LIGHT + step {
                return Err(Wrong);
            }
            if let Some(rewriter) = &mut self.rewriter {
                rewriter.light(before, self.bits);
            }
        }
        if !self.frame.is_progressive {
            let before = self.bits;
            let table = self.ac[m.ac].as_ref().ok_or(Wrong)?;
            let mut k = 1;
            while k < 64 {
                k = self.bits.coefficients(table, k)?;
            }
            if let Some(rewriter) = &mut self.rewriter {
                rewriter.block(m.index, x, y, before, self.bits);
            }
        } else if first > 0 {
            let table = self.ac[m.ac].as_ref().ok_or(Wrong)?;
            let set = c.set.get_mut(index).ok_or(Wrong)?;
            if refines {
                refine(&mut self.bits, table, self.part, &mut self.ending, set)?;
            } else {
                bring(&mut self.bits, table, self.part, &mut self.ending, set)?;
            }
        }
        Ok(())
    }
}

/// Reads a progressive block's coefficients for the first time.
fn bring(
    bits: &mut Bits<'_>,
    table: &Table,
    part: Part,
    ending: &mut u32,
    set: &mut u64,
) -> Result<(), Wrong> {
    if *ending > 0 {
        *ending -= 1;
        return Ok(());
    }
    let mut k = part.first;
    while k <= part.last {
        let symbol = bits.symbol(table)?;
        let (zeros, len) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        if len == 0 && zeros < 15 {
            *ending = (1 << zeros) - 1 + bits.take(zeros);
            return Ok(());
        }
        k += zeros;
        if k > part.last || len > 10 {
            return Err(Wrong);
        }
        if len > 0 {
            bits.skip(len);
            *set |= 1 << k;
        }
        k += 1;
    }
    Ok(())
}

/// Reads one more bit of a progressive block's coefficients.
fn refine(
    bits: &mut Bits<'_>,
    table: &Table,
    part: Part,
    ending: &mut u32,
    set: &mut u64,
) -> Result<(), Wrong> {
    let mut k = part.first;
    while *ending == 0 && k <= part.last {
        let symbol = bits.symbol(table)?;
        let (mut zeros, len) = (u32::from(symbol >> 4), symbol & 15);
        if len == 0 && zeros < 15 {
            *ending = (1 << zeros) + bits.take(zeros);
            break;
        }
        if len > 1 {
            return Err(Wrong);
        }
        bits.skip(len.into()); // the sign
        // Zeros are counted; what is none has its bit here.
        while k <= part.last {
            if *set >> k & 1 == 1 {
                bits.skip(1);
            } else if zeros == 0 {
                break;
            } else {
                zeros -= 1;
            }
            k += 1;
        }
        if k > part.last {
            return Err(Wrong);
        }
        if len == 1 {
            *set |= 1 << k;
        }
        k += 1;
    }
    if *ending > 0 {
        *ending -= 1;
        if k <= part.last {
            let band = (u64::MAX >> (63 - part.last)) & (u64::MAX << k);
            bits.skip((*set & band).count_ones());
        }
    }
    Ok(())
}

/// A big-endian number of two bytes.
fn two(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) << 8 | usize::from(bytes[1])
}
