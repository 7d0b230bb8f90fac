//! Small files that claim much: refused, or read in no more memory and time than was announced.
#![expect(unsafe_code, reason = "counting allocations needs a global allocator")]

#[path = "../../network/tests/counting/mod.rs"]
mod counting;
mod png;

use counting::most;
use picture::{MAX_BYTES, PictureError, decode};
use png::{chunk, deflated, png};
use std::time::Instant;

/// A grey picture of one bit a pixel, all black but for `noise` bytes.
fn grey(width: u32, height: u32, noise: usize) -> Vec<u8> {
    let mut seed = 1u32;
    let mut random = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    };
    let row = 1 + width.div_ceil(8) as usize;
    let rows = (0..row * height as usize).map(|i| match i % row != 0 && i < noise {
        true => random(),
        false => 0,
    });
    png([width, height], 1, 0, &[], &deflated(rows))
}

/// A small picture with a chunk that unpacks to 256 MiB of nothing.
fn stuffed(name: &[u8; 4], head: &[u8]) -> Vec<u8> {
    let chunk = chunk(name, &[head, &deflated((0..256 << 20).map(|_| 0))].concat());
    png([1, 1], 8, 0, &chunk, &deflated([0, 7]))
}

fn webp(width: u32, height: u32) -> Vec<u8> {
    let bits = (width - 1) | (height - 1) << 14;
    // All codes of one symbol, which takes no bits.
    riff(&webp_chunk(b"VP8L", &[&[0x2f], &bits.to_le_bytes()[..], &[0x88, 0x88, 8]].concat()))
}

/// A pixel with an EXIF block that claims 4 GB.
fn webp_exif() -> Vec<u8> {
    let still = webp(1, 1);
    let canvas = webp_chunk(b"VP8X", &[8, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    riff(&[&canvas, &still[12..], b"EXIF\xf0\xff\xff\xffMM\0*"].concat())
}

/// A picture of a pixel whose only frame is 16,383 pixels wide and high.
fn webp_frame(animated: bool) -> Vec<u8> {
    let frame = b"\x10\x02\0\x9d\x01\x2a\xff\x3f\xff\x3f\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let frame = webp_chunk(b"VP8 ", frame);
    let flags = if animated { 2 } else { 0 };
    let canvas = webp_chunk(b"VP8X", &[flags, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    if !animated {
        return riff(&[canvas, frame].concat());
    }
    let frame = webp_chunk(b"ANMF", &[&[0; 16], &frame[..]].concat());
    riff(&[canvas, webp_chunk(b"ANIM", &[0; 6]), frame].concat())
}

fn webp_chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let pad = vec![0; data.len() % 2];
    [name, &(data.len() as u32).to_le_bytes()[..], data, &pad].concat()
}

fn riff(chunks: &[u8]) -> Vec<u8> {
    [b"RIFF", &(chunks.len() as u32 + 4).to_le_bytes()[..], b"WEBP", chunks].concat()
}

/// A progressive grey JPEG of black blocks with so many scans of all other coefficients, in each of which a
/// few bytes say that there are none. Their number is a multiple of 32,767.
fn scans(blocks: [u16; 2], scans: usize) -> Vec<u8> {
    fn segment(marker: u8, payload: &[u8]) -> Vec<u8> {
        let len = (payload.len() as u16 + 2).to_be_bytes();
        [&[0xff, marker], &len[..], payload].concat()
    }
    // One code of one bit, for the symbol.
    let table = |class: u8, symbol: u8| {
        let counts: Vec<u8> = (0..16).map(|i| u8::from(i == 0)).collect();
        segment(0xc4, &[&[class], &counts[..], &[symbol]].concat())
    };
    let [w, h] = blocks.map(|n| (n * 8).to_be_bytes());
    let mut file = b"\xff\xd8".to_vec();
    file.extend(segment(0xdb, &[&[0][..], &[1; 64]].concat()));
    file.extend(segment(0xc2, &[8, h[0], h[1], w[0], w[1], 1, 1, 0x11, 0]));
    file.extend([table(0x00, 0), table(0x10, 0xe0)].concat());
    let count = usize::from(blocks[0]) * usize::from(blocks[1]);
    file.extend(segment(0xda, &[1, 1, 0, 0, 0, 0]));
    file.resize(file.len() + count.div_ceil(8), 0);
    for _ in 0..scans {
        file.extend(segment(0xda, &[1, 1, 0, 1, 63, 0]));
        // Runs of 32,767 blocks: the code, and fourteen bits of ones.
        let runs = count / 32_767;
        let bits: Vec<u8> = (0..runs * 15).map(|i| u8::from(i % 15 > 0)).collect();
        for byte in bits.chunks(8) {
            let byte = byte.iter().enumerate().fold(0, |b, (i, bit)| b | bit << (7 - i));
            file.push(byte);
            if byte == 0xff {
                file.push(0);
            }
        }
    }
    file.extend(b"\xff\xd9");
    file
}

/// One test, so that nothing else is counted.
#[test]
fn memory_and_time_are_those_announced() {
    const MIB: usize = 1 << 20;
    let black = |w, h| grey(w, h, 0);
    let cases: [(&str, Vec<u8>, usize, &str); 14] = [
        ("1 bit, 1.4 GB of RGB", black(22_000, 22_000), 8, "at most"),
        ("1 bit, 500 MB of RGB", black(13_000, 13_000), 8, "made to fill memory"),
        ("1 bit, 60 MB of RGB", black(5_000, 4_000), 64, ""),
        ("lines of 65,535", black(1, 65_535), 8, "more than 32768 pixels a side"),
        ("a profile of colors", stuffed(b"iCCP", b"x\0\0"), 32, ""),
        ("a comment", stuffed(b"zTXt", b"x\0\0"), 32, ""),
        ("an international comment", stuffed(b"iTXt", b"x\0\x01\0\0\0"), 32, ""),
        ("WebP", webp(16_383, 16_383), 8, "at most"),
        ("WebP of a large frame", webp_frame(false), 8, "a frame is larger"),
        ("WebP of large frames", webp_frame(true), 8, "a frame is larger"),
        ("smaller WebP", webp(7_000, 7_000), 8, "made to fill memory"),
        ("WebP of a huge EXIF", webp_exif(), 8, ""),
        ("JPEG of 95 scans", scans([651, 604], 95), 64, "scans of too little data"),
        ("JPEG of nine scans", scans([651, 604], 8), 200, ""),
    ];
    for (name, file, mib, want) in cases {
        let start = Instant::now();
        let mut said = String::new();
        let bytes = most(|| said = decode(&file).err().map_or_else(String::new, |e| e.to_string()));
        let seconds = start.elapsed().as_secs_f32();
        assert!(said.contains(want) && (said.is_empty() == want.is_empty()), "{name}: {said}");
        assert!(bytes < mib * MIB, "{name}: {} MiB", bytes / MIB);
        assert!(seconds < 5.0, "{name}: {seconds} s");
    }
    // 232 MiB each, of which two are decoded at a time.
    let file = grey(9_000, 9_000, 60_000);
    let decode = || -> Result<(), PictureError> { decode(&file).map(drop) };
    let bytes = most(|| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(decode)).collect();
            threads.into_iter().for_each(|t| t.join().unwrap().unwrap());
        });
    });
    assert!(bytes > 200 * MIB && bytes < MAX_BYTES as usize + 16 * MIB, "{} MiB", bytes / MIB);
}
