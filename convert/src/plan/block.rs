//! A block of convolutions that take turns, see [`artifact::stripes`].

/// Convolutions that take turns: nodes `first..=last`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The first of the nodes.
    pub first: usize,
    /// The one whose output is whole.
    pub last: usize,
    /// The one that it reads.
    pub(super) main: usize,
    /// Rows that are computed in a turn.
    pub(super) rows: u16,
    /// Rows and stride of the last one's filter.
    pub(super) window: [u16; 2],
    /// Whether the output may lie over the input, which it does not add.
    pub over_input: bool,
}

impl Block {
    /// Lines that exist of a node's value; 0 for the last one's, which is whole.
    pub fn lines(&self, id: usize) -> u16 {
        match id {
            _ if id == self.last => 0,
            _ if id == self.main => (self.rows - 1) * self.window[1] + self.window[0],
            _ => self.rows,
        }
    }
}
