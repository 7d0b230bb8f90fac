//! Sequential files of several scans, as progressive ones.
//!
//! A sequential block's first coefficient is coded as in a progressive scan of first
//! coefficients, and the others as in a progressive scan of these where no run of blocks ends at
//! once: so their bits are copied. A scan becomes one of first coefficients, with the same
//! components, restart markers and order, and one of the others for each component, line by line.

use super::bits::{Bits, Table, Writer};
use super::{Frame, Member};

/// Writes a file.
pub(super) struct Rewriter<'a> {
    file: Vec<u8>,
    head: Vec<u8>,
    /// The first coefficients of the scan that is being read.
    light: Writer,
    /// The other coefficients of each block, by component and line.
    blocks: [Vec<Option<(Bits<'a>, u64)>>; 4],
    /// Blocks across and down of those.
    sizes: [[usize; 2]; 4],
    restart: usize,
}

impl<'a> Rewriter<'a> {
    /// Starts a file for a frame.
    pub(super) fn new(frame: &[u8]) -> Self {
        Self {
            file: vec![0xff, 0xd8],
            head: frame.to_vec(),
            light: Writer::default(),
            blocks: Default::default(),
            sizes: Default::default(),
            restart: 0,
        }
    }

    /// Starts a scan, with the segments that stood before it.
    pub(super) fn start(
        &mut self,
        kept: &mut Vec<(u8, &[u8])>,
        members: &[Member],
        frame: &Frame,
        restart: usize,
    ) {
        for (marker, payload) in kept.drain(..) {
            segment(&mut self.file, marker, payload);
        }
        if !self.head.is_empty() {
            segment(&mut self.file, 0xc2, &core::mem::take(&mut self.head));
        }
        self.restart = restart;
        for m in members {
            let size = frame.components[m.index].blocks;
            self.sizes[m.index] = size;
            self.blocks[m.index] = vec![None; size[0] * size[1]];
        }
    }

    /// Copies a first coefficient.
    pub(super) fn light(&mut self, from: Bits<'_>, to: Bits<'_>) {
        self.light.copy(from, to.taken() - from.taken());
    }

    /// Takes a block's other coefficients; those of blocks that only fill units up are left out.
    pub(super) fn block(&mut self, index: usize, x: usize, y: usize, from: Bits<'a>, to: Bits<'a>) {
        let [across, down] = self.sizes[index];
        if x < across && y < down {
            self.blocks[index][y * across + x] = Some((from, to.taken() - from.taken()));
        }
    }

    pub(super) fn restart(&mut self, number: u8) {
        self.light.align();
        self.light.bytes.extend([0xff, 0xd0 + number]);
    }

    /// Ends a scan.
    pub(super) fn end(
        &mut self,
        members: &[Member],
        frame: &Frame,
        dc: &[Option<Table>; 4],
        ac: &[Option<Table>; 4],
    ) {
        let out = &mut self.file;
        segment(out, 0xdd, &(self.restart as u16).to_be_bytes());
        let mut head = vec![members.len() as u8];
        for m in members {
            table(out, m.dc, dc);
            head.extend([frame.components[m.index].id, (m.dc as u8) << 4]);
        }
        head.extend([0, 0, 0]);
        segment(out, 0xda, &head);
        let mut light = core::mem::take(&mut self.light);
        light.align();
        out.extend(light.bytes);
        segment(out, 0xdd, &[0, 0]);
        for m in members {
            table(out, 0x10 | m.ac, ac);
            segment(out, 0xda, &[1, frame.components[m.index].id, m.ac as u8, 1, 63, 0]);
            let mut writer = Writer::default();
            for (from, len) in core::mem::take(&mut self.blocks[m.index]).into_iter().flatten() {
                writer.copy(from, len);
            }
            writer.align();
            out.extend(writer.bytes);
        }
    }

    /// The file.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.file.extend([0xff, 0xd9]);
        self.file
    }
}

fn segment(out: &mut Vec<u8>, marker: u8, payload: &[u8]) {
    out.extend([0xff, marker]);
    out.extend((payload.len() as u16 + 2).to_be_bytes());
    out.extend(payload);
}

/// Writes a table of codes; `id` has its class in the upper half.
fn table(out: &mut Vec<u8>, id: usize, tables: &[Option<Table>; 4]) {
    if let Some(table) = &tables[id & 15] {
        let mut payload = vec![id as u8];
        payload.extend(&table.bytes);
        segment(out, 0xc4, &payload);
    }
}
