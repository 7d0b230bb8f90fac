//! PNG files, chunk by chunk.
#![allow(dead_code, reason = "each test needs some of it")]

use flate2::Compression;
use flate2::write::ZlibEncoder;
use std::io::Write;

/// A chunk with its length and checksum.
pub(crate) fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let len = (data.len() as u32).to_be_bytes();
    let named = [name, data].concat();
    let mut crc = flate2::Crc::new();
    crc.update(&named);
    [&len[..], &named, &crc.sum().to_be_bytes()].concat()
}

/// Compressed bytes.
pub(crate) fn deflated(bytes: impl IntoIterator<Item = u8>) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    let mut part = Vec::new();
    for byte in bytes {
        part.push(byte);
        if part.len() == 1 << 16 {
            encoder.write_all(&part).unwrap();
            part.clear();
        }
    }
    encoder.write_all(&part).unwrap();
    encoder.finish().unwrap()
}

/// A picture of `bits` a sample in PNG's color type; `more` are chunks before its pixels.
pub(crate) fn png(size: [u32; 2], bits: u8, color: u8, more: &[u8], pixels: &[u8]) -> Vec<u8> {
    let head = [&size.map(u32::to_be_bytes).concat()[..], &[bits, color, 0, 0, 0]].concat();
    [
        b"\x89PNG\r\n\x1a\n",
        &chunk(b"IHDR", &head)[..],
        more,
        &chunk(b"IDAT", pixels),
        &chunk(b"IEND", &[]),
    ]
    .concat()
}
