//! Compressed data, bit by bit: Huffman codes, and the bits between them.

/// Bits that are looked up at once; longer codes are searched.
const LOOK: u32 = 9;

/// Why compressed data cannot be those of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wrong;

/// Reads compressed data up to the next marker, and zeros behind it.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a> {
    file: &'a [u8],
    /// Where the next byte is taken from; at a marker's 0xff, once there is nothing more.
    at: usize,
    /// The next bits, the first one highest.
    buffer: u64,
    /// How many of them came from the file; negative where more were taken than there are.
    count: i32,
    /// Bits that came from the file since the start.
    filled: u64,
}

impl<'a> Bits<'a> {
    pub(super) fn new(file: &'a [u8], at: usize) -> Self {
        Self { file, at, buffer: 0, count: 0, filled: 0 }
    }

    pub(super) fn file(&self) -> &'a [u8] {
        self.file
    }

    /// Where the marker is that ends these data, or the file's end; and how many whole bytes
    /// before it were not taken.
    pub(super) fn end(&self) -> (usize, usize) {
        let mut at = self.at;
        let mut rest = self.count.max(0) as usize / 8;
        while let Some(&byte) = self.file.get(at) {
            match (byte, self.file.get(at + 1)) {
                (0xff, Some(0)) => (at, rest) = (at + 2, rest + 1),
                (0xff, Some(0xff)) | (0xff, None) => at += 1, // fills up, or is half a marker
                (0xff, _) => break,
                _ => (at, rest) = (at + 1, rest + 1),
            }
        }
        (at, rest)
    }

    /// Bits taken since the start.
    pub(super) fn taken(&self) -> u64 {
        self.filled.wrapping_add_signed(-i64::from(self.count))
    }

    /// An error where more bits were taken than there are.
    pub(super) fn check(&self) -> Result<(), Wrong> {
        if self.count < 0 { Err(Wrong) } else { Ok(()) }
    }

    /// Makes the next 32 bits visible.
    #[inline(always)]
    fn fill(&mut self) {
        if self.count >= 32 {
            return;
        }
        if let Some(&four) = self.file.get(self.at..).and_then(<[u8]>::first_chunk::<4>) {
            let word = u32::from_be_bytes(four);
            // No byte is 0xff.
            if self.count >= 0 && (!word).wrapping_sub(0x0101_0101) & word & 0x8080_8080 == 0 {
                self.buffer |= u64::from(word) << (32 - self.count);
                self.count += 32;
                self.filled += 32;
                self.at += 4;
                return;
            }
        }
        self.fill_slowly();
    }

    #[inline(never)]
    fn fill_slowly(&mut self) {
        while (0..=56).contains(&self.count) {
            let Some(&byte) = self.file.get(self.at) else { return };
            if byte == 0xff {
                if self.file.get(self.at + 1) != Some(&0) {
                    return;
                }
                self.at += 1;
            }
            self.at += 1;
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
            self.filled += 8;
        }
    }

    /// The next `n` bits, at most 16, of those made visible.
    #[inline(always)]
    fn peek(&self, n: u32) -> u32 {
        (self.buffer >> 32) as u32 >> (32 - n)
    }

    #[inline(always)]
    fn pass(&mut self, n: u32) {
        self.buffer <<= n;
        self.count -= n as i32;
    }

    /// The next `n` bits, at most 16.
    pub(super) fn take(&mut self, n: u32) -> u32 {
        if n == 0 {
            return 0;
        }
        self.fill();
        let bits = self.peek(n);
        self.pass(n);
        bits
    }

    /// Passes over `n` bits.
    pub(super) fn skip(&mut self, mut n: u32) {
        while n > 0 {
            let part = n.min(16);
            self.take(part);
            n -= part;
        }
    }

    /// The next code's symbol.
    #[inline(always)]
    pub(super) fn symbol(&mut self, table: &Table) -> Result<u8, Wrong> {
        self.fill();
        let [symbol, len] = table.short[self.peek(LOOK) as usize];
        if len > 0 {
            self.pass(len.into());
            return Ok(symbol);
        }
        let (symbol, len) = table.long(self.peek(16)).ok_or(Wrong)?;
        self.pass(len);
        Ok(symbol)
    }

    /// Passes over symbols of a sequential block, with the bits behind them, of which the next one
    /// is coefficient `k`; returns what is then the next, 64 or more at the block's end.
    #[inline(always)]
    pub(super) fn coefficients(&mut self, table: &Table, k: u32) -> Result<u32, Wrong> {
        self.fill();
        let Several { bits, count, ends } = table.several[self.peek(LOOK) as usize];
        let next = k + u32::from(count);
        if bits > 0 && next + u32::from(ends) <= 64 {
            self.pass(bits.into());
            return Ok(if ends { 64 } else { next });
        }
        let symbol = self.symbol(table)?;
        let (zeros, len) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        if len == 0 && zeros < 15 {
            // The end of the block; the other such codes have no meaning.
            return if zeros == 0 { Ok(64) } else { Err(Wrong) };
        }
        self.pass(len); // a code and its bits are 31 at most, all of them visible
        let next = k + zeros + 1;
        if len > 10 || next > 64 { Err(Wrong) } else { Ok(next) }
    }
}

/// Writes compressed data.
#[derive(Default)]
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
    buffer: u32,
    count: u32,
}

impl Writer {
    /// Copies the next `n` bits of `from`.
    pub(super) fn copy(&mut self, mut from: Bits<'_>, mut n: u64) {
        while n > 0 {
            let part = n.min(16) as u32;
            self.put(from.take(part), part);
            n -= u64::from(part);
        }
    }

    /// Fills the last byte up with ones.
    pub(super) fn align(&mut self) {
        let missing = (8 - self.count) % 8;
        self.put((1 << missing) - 1, missing);
    }

    fn put(&mut self, bits: u32, n: u32) {
        self.buffer = self.buffer << n | bits;
        self.count += n;
        while self.count >= 8 {
            self.count -= 8;
            let byte = (self.buffer >> self.count) as u8;
            self.bytes.push(byte);
            if byte == 0xff {
                self.bytes.push(0);
            }
        }
        self.buffer &= (1 << self.count) - 1;
    }
}

/// A Huffman table.
pub(super) struct Table {
    /// As the file has it: 16 numbers of codes, and the symbols.
    pub(super) bytes: Vec<u8>,
    /// Symbol and length of the code that these bits start with; 0 where it is longer.
    short: Box<[[u8; 2]; 1 << LOOK]>,
    /// What these bits pass over in a sequential block, in a table of others than first coefficients.
    several: Box<[Several; 1 << LOOK]>,
}

/// Symbols whose codes can be seen at once.
#[derive(Clone, Copy, Default)]
struct Several {
    /// Bits of all, 0 where there is no such symbol.
    bits: u8,
    /// Coefficients.
    count: u8,
    /// Whether the last one is the end of the block.
    ends: bool,
}

impl Table {
    /// The table at the start of `bytes`, of blocks' first coefficients or of the others; `None`
    /// where that is no table.
    pub(super) fn new(bytes: &[u8], is_others: bool) -> Option<Self> {
        let counts = bytes.first_chunk::<16>()?;
        let len = counts.iter().map(|&n| usize::from(n)).sum::<usize>();
        let bytes = bytes.get(..16 + len).filter(|_| len <= 256)?.to_vec();
        let mut short = Box::new([[0; 2]; 1 << LOOK]);
        let mut first = 0;
        let mut symbols = bytes[16..].iter();
        for (len, &count) in (1u32..).zip(&bytes[..16]) {
            for &symbol in symbols.by_ref().take(count.into()) {
                if first >> len != 0 {
                    return None;
                }
                if len <= LOOK {
                    let span = 1 << (LOOK - len);
                    short[first as usize * span..][..span].fill([symbol, len as u8]);
                }
                first += 1;
            }
            first <<= 1;
        }
        let mut several = Box::new([Several::default(); 1 << LOOK]);
        for (window, several) in several.iter_mut().enumerate().filter(|_| is_others) {
            while u32::from(several.bits) < LOOK && !several.ends {
                let [symbol, len] = short[window << several.bits & ((1 << LOOK) - 1)];
                let (zeros, bits) = (symbol >> 4, symbol & 15);
                let is_end = symbol == 0;
                let is_known = bits <= 10 && (bits > 0 || zeros == 15 || is_end);
                if len == 0 || u32::from(several.bits + len) > LOOK || !is_known {
                    break;
                }
                several.bits += len + bits;
                several.count += if is_end { 0 } else { zeros + 1 };
                several.ends = is_end;
            }
        }
        Some(Self { bytes, short, several })
    }

    /// The symbol and the length of the code that `bits`, 16 of them, start with.
    #[inline(never)]
    fn long(&self, bits: u32) -> Option<(u8, u32)> {
        let (mut first, mut index) = (0, 16);
        for (len, &count) in (1u32..).zip(&self.bytes[..16]) {
            let (code, count) = (bits >> (16 - len), u32::from(count));
            if code < first + count {
                return Some((self.bytes[index + (code - first) as usize], len));
            }
            first = (first + count) << 1;
            index += count as usize;
        }
        None
    }
}
