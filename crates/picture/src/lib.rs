//! Picture files to upright 8-bit RGB: the one decoder of training and of the command line, so
//! that a photo becomes the same pixels in both.
//!
//! ```
//! let error = picture::decode(b"<html>").unwrap_err();
//! assert!(error.to_string().contains("a web page"));
//! ```
//!
//! The file's type is told by its contents. Sizes are checked before memory is taken, and what all threads
//! of a process decode takes [`MAX_BYTES`] at most, pictures that were not dropped yet included: one that needs
//! more than the others leave waits for them, so that no thread may keep one while it decodes
//! another. A decoder's panic becomes an error. A JPEG's compressed data are read once before they are decoded,
//! so that a damaged one is refused and not shown in part. Pixels of all formats become RGB in place. An EXIF
//! rotation moves no pixel; it only changes the order in which preprocessing reads them.
#![forbid(unsafe_code)]

pub mod heat;
mod jpeg;
mod memory;

use core::cell::Cell;
use core::panic::UnwindSafe;
use image::codecs::jpeg::JpegDecoder;
use image::codecs::{bmp, gif, png, webp};
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageError, ImageFormat, Limits};
use memory::{Announced, Lease};
use runtime::preprocess::{FrameError, RgbView};
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::panic::catch_unwind;
use std::path::Path;

/// Longest side in pixels.
const MAX_SIDE: u32 = 32_768;
/// Most memory for decoded pixels and what decoders keep beside them, and the longest file.
pub const MAX_BYTES: u64 = 512 << 20;
/// Longest file that is read while others are.
const MAX_SHARED_FILE: u64 = 32 << 20;

/// Most memory for what a PNG's decoder keeps beside the pixels.
const MAX_BESIDE: u64 = 16 << 20;

/// Formats that are read.
const FORMATS: [ImageFormat; 5] =
    [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Gif];

/// [`MAX_BYTES`] as people read it.
const MAX_MIB: u64 = MAX_BYTES >> 20;

/// Why a file gives no picture; the text does not name the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PictureError {
    /// Reading failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Not a file.
    #[error("a folder")]
    Folder,
    /// Longer than any file that is read.
    #[error("file of more than {MAX_MIB} MiB")]
    TooLong,
    /// A format that is not read; the text says which, and what to do.
    #[error("{0}")]
    Format(&'static str),
    /// A feature of a format that is not read.
    #[error("picture of a kind that is not read: {0}")]
    Unsupported(String),
    /// Broken contents.
    #[error("damaged picture: {0}")]
    Damaged(String),
    /// A size beyond the limits.
    #[error(
        "picture of {width}x{height} pixels, {} MiB decoded; at most {MAX_SIDE} pixels a side and \
         {MAX_MIB} MiB are read",
        bytes >> 20
    )]
    TooLarge {
        /// Pixels per row.
        width: u32,
        /// Rows.
        height: u32,
        /// Bytes of all pixels.
        bytes: u64,
    },
    /// More pixels than a file of its length can show.
    #[error(
        "picture of {width}x{height} pixels in {file} bytes: one color, or made to fill memory; save it \
         again with fewer pixels"
    )]
    Inflated {
        /// Pixels per row.
        width: u32,
        /// Rows.
        height: u32,
        /// Bytes of the file.
        file: usize,
    },
    /// The decoder hit the limits on its way.
    #[error("picture of more than {MAX_SIDE} pixels a side or {MAX_MIB} MiB decoded")]
    Limits,
}

thread_local! {
    static DECODING: Cell<bool> = const { Cell::new(false) };
}

/// A decoded picture.
#[derive(Debug)]
pub struct Picture {
    /// `[height, width, 3]`, as stored in the file.
    rgb: Vec<u8>,
    width: usize,
    height: usize,
    /// EXIF orientation, 1 to 8.
    orientation: u8,
    /// What the user should know of it.
    pub note: Option<&'static str>,
    /// Gives the memory of its pixels back when it is dropped.
    _lease: Lease,
}

impl Picture {
    /// The picture the right way up.
    ///
    /// # Errors
    /// None for a picture that [`decode`] returned: it has pixels and no side is too long.
    pub fn view(&self) -> Result<RgbView<'_>, FrameError> {
        let view = RgbView::new(&self.rgb, self.width, self.height, self.width * 3)?;
        Ok(view.oriented(self.orientation))
    }

    fn first_of(mut self, animated: bool) -> Self {
        if animated {
            self.note = Some("animated; only its first frame is classified");
        }
        self
    }
}

/// Keeps decoders that panic from writing about it: the error that [`decode`] returns is
/// reported with the file's name instead. For the whole process; other panics are shown as
/// before.
pub fn silence_decoder_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !DECODING.get() {
            before(info);
        }
    }));
}

/// Decodes a file.
///
/// # Errors
/// Unreadable files, and what [`decode`] refuses.
pub fn open(path: &Path) -> Result<Picture, PictureError> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(PictureError::Folder);
    }
    if metadata.is_file() {
        if metadata.len() > MAX_BYTES {
            return Err(PictureError::TooLong);
        }
        let mut head = Vec::new();
        (&mut file).take(64).read_to_end(&mut head)?;
        if !is_read(&head) {
            return Err(PictureError::Format(refusal(&head)));
        }
        // Alone, so that it need not wait for more while it keeps this.
        let lease = (metadata.len() > MAX_SHARED_FILE).then(|| Lease::wait(MAX_BYTES));
        return decode_stream(&mut head.chain(file), lease);
    }
    read(&mut file)
}

/// What a file is, by its first bytes, that is named otherwise than the pictures that are read.
///
/// # Errors
/// A file that cannot be read.
pub fn describe(path: &Path) -> io::Result<&'static str> {
    let mut head = Vec::new();
    File::open(path)?.take(64).read_to_end(&mut head)?;
    Ok(match is_read(&head) {
        true => "a picture whose name does not end so; rename it, as in x.jpg",
        false => refusal(&head),
    })
}

/// Whether a file that begins so is of a format that is read.
fn is_read(head: &[u8]) -> bool {
    image::guess_format(head).is_ok_and(|format| FORMATS.contains(&format))
}

/// Decodes what a stream (which cannot be sought) holds.
///
/// # Errors
/// A stream that cannot be read, and what [`decode`] refuses.
pub fn read(stream: &mut dyn Read) -> Result<Picture, PictureError> {
    decode_stream(stream, None)
}

fn decode_stream(stream: &mut dyn Read, lease: Option<Lease>) -> Result<Picture, PictureError> {
    let mut bytes = Vec::new();
    stream.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(PictureError::TooLong);
    }
    guarded(|| decode_unguarded(&bytes, lease))
}

/// Decodes a picture; transparent pixels are put on white.
///
/// # Errors
/// Bytes that are no picture of a known format, damaged ones, and ones too large.
pub fn decode(file: &[u8]) -> Result<Picture, PictureError> {
    guarded(|| decode_unguarded(file, None))
}

/// Runs a decoder; its panic becomes an error.
fn guarded(
    decode: impl FnOnce() -> Result<Picture, PictureError> + UnwindSafe,
) -> Result<Picture, PictureError> {
    DECODING.set(true);
    let outcome = catch_unwind(decode);
    DECODING.set(false);
    outcome.unwrap_or_else(|_| Err(PictureError::Damaged("the decoder gave up".into())))
}

/// `lease` is what is taken already, if that is all.
fn decode_unguarded(file: &[u8], lease: Option<Lease>) -> Result<Picture, PictureError> {
    let reader = || Cursor::new(file);
    let source = Source { len: file.len(), lease };
    match image::guess_format(file) {
        Ok(ImageFormat::Jpeg) => {
            let jpeg::Checked { rewritten, coefficients } = jpeg::check(file)?;
            let file = rewritten.as_deref().unwrap_or(file);
            let mut decoder = JpegDecoder::new(Cursor::new(file)).map_err(damaged)?;
            let exif = decoder.exif_metadata().ok().flatten().unwrap_or_default();
            let picture = source.pixels(decoder, |_| coefficients)?;
            Ok(Picture { orientation: orientation(&exif), ..picture })
        }
        Ok(ImageFormat::Png) => {
            // Its rows, texts and color profile.
            let mut beside = limits();
            beside.max_alloc = Some(MAX_BESIDE);
            let decoder = png::PngDecoder::with_limits(reader(), beside).map_err(damaged)?;
            let animated = decoder.is_apng().map_err(damaged)?;
            let orientation = orientation(png_exif(file));
            let picture = source.pixels(decoder, |_| 0)?;
            Ok(Picture { orientation, ..picture }.first_of(animated))
        }
        Ok(ImageFormat::WebP) => {
            let decoder = webp::WebPDecoder::new(reader()).map_err(damaged)?;
            let animated = decoder.has_animation();
            if !webp_frames_fit(file, decoder.dimensions()) {
                return Err(PictureError::Damaged("a frame is larger than the picture".into()));
            }
            // Planes of luma and chroma and a copy with alpha; a frame and a canvas, where it moves.
            let each = if animated { 14 } else { 6 };
            let orientation = orientation(webp_exif(file));
            let picture = source.pixels(decoder, |pixels| pixels * each)?;
            Ok(Picture { orientation, ..picture }.first_of(animated))
        }
        Ok(ImageFormat::Bmp) => {
            source.pixels(bmp::BmpDecoder::new(reader()).map_err(damaged)?, |_| 0)
        }
        Ok(ImageFormat::Gif) => {
            let decoder = gif::GifDecoder::new(reader()).map_err(damaged)?;
            // A frame, by numbers and by colors.
            Ok(source.pixels(decoder, |pixels| pixels * 5)?.first_of(gif_moves(file)))
        }
        Ok(_) | Err(_) => Err(PictureError::Format(refusal(file))),
    }
}

/// The EXIF block of a PNG, which may also stand behind the pixels; empty where there is none.
fn png_exif(file: &[u8]) -> &[u8] {
    let mut rest = file.get(8..).unwrap_or_default();
    while let Some((head, after)) = rest.split_first_chunk::<8>() {
        let ([len, kind], _) = head.as_chunks::<4>() else { break };
        let Some((chunk, next)) = after.split_at_checked(u32::from_be_bytes(*len) as usize) else {
            break;
        };
        match kind {
            b"eXIf" => return chunk,
            b"IEND" => break,
            _ => rest = next.get(4..).unwrap_or_default(), // behind the checksum
        }
    }
    &[]
}

/// Whether a GIF has a second frame.
fn gif_moves(file: &[u8]) -> bool {
    let colors = |flags: u8| if flags >> 7 == 1 { 3 << ((flags & 7) + 1) } else { 0 };
    let mut at = 13 + file.get(10).map_or(0, |&flags| colors(flags));
    let mut frames = 0;
    while let Some(&kind) = file.get(at) {
        at += match kind {
            0x21 => 2,
            0x2c => {
                frames += 1;
                11 + file.get(at + 9).map_or(0, |&flags| colors(flags))
            }
            _ => break,
        };
        // Parts with their lengths, up to an empty one.
        while let Some(&len) = file.get(at) {
            at += 1 + usize::from(len);
            if len == 0 {
                break;
            }
        }
    }
    frames > 1
}

/// Names and contents of a WebP's chunks; what is cut off is left out. Frames that move are followed by what is
/// in them.
fn webp_chunks(file: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    let mut rest = file.get(12..).unwrap_or_default();
    core::iter::from_fn(move || {
        let (head, after) = rest.split_first_chunk::<8>()?;
        let ([name, len], _) = head.as_chunks::<4>() else { return None };
        let len = u32::from_le_bytes(*len) as usize;
        rest = match name {
            // Their places take 16 bytes.
            b"ANMF" => after.get(16..).unwrap_or_default(),
            _ => after.get(len.saturating_add(len % 2)..).unwrap_or_default(),
        };
        Some((name, after.get(..len).unwrap_or(after)))
    })
}

/// Whether no lossy frame of a WebP is larger than the picture: its decoder takes memory before it knows.
fn webp_frames_fit(file: &[u8], (width, height): (u32, u32)) -> bool {
    webp_chunks(file).all(|(name, data)| match (name, data) {
        (b"VP8 ", &[_, _, _, 0x9d, 1, 0x2a, w0, w1, h0, h1, ..]) => {
            let [w, h] = [[w0, w1], [h0, h1]].map(|b| u32::from(u16::from_le_bytes(b) & 0x3fff));
            w <= width && h <= height
        }
        _ => true,
    })
}

/// The EXIF block of a WebP; its decoder takes as much memory for it as its length claims.
fn webp_exif(file: &[u8]) -> &[u8] {
    webp_chunks(file).find(|(name, _)| *name == b"EXIF").map_or(&[], |(_, exif)| exif)
}

/// The orientation in an EXIF block, 1 where it has none: a damaged block is no reason to refuse
/// the picture. Some programs write a JPEG's name of the block before that of a PNG or WebP.
fn orientation(exif: &[u8]) -> u8 {
    let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    Orientation::from_exif_chunk(exif).map_or(1, Orientation::to_exif)
}

/// A decoder's complaint in our words.
fn damaged(e: ImageError) -> PictureError {
    match e {
        ImageError::Limits(_) => PictureError::Limits,
        // As text: it holds that of its source, which a chain would print twice.
        ImageError::Unsupported(e) => PictureError::Unsupported(e.to_string()),
        e => PictureError::Damaged(e.to_string()),
    }
}

/// What a file is that is none of the formats read.
fn refusal(head: &[u8]) -> &'static str {
    const READ: &str = "not a picture in a format that is read (JPEG, PNG, WebP, BMP, GIF)";
    let text = head.trim_ascii_start();
    if head.is_empty() {
        "the file is empty"
    } else if text.starts_with(b"<svg") {
        "an SVG drawing, not a picture; export it as PNG"
    } else if text.starts_with(b"<") || text.starts_with(b"\xef\xbb\xbf<") {
        "not a picture but a web page or XML, whatever its name says; download it again"
    } else if head.get(4..8) == Some(b"ftyp") {
        match head.get(8..12) {
            Some(b"avif" | b"avis") => {
                "an AVIF picture, a format that is not read; save it as JPEG or PNG"
            }
            Some(b"heic" | b"heix" | b"hevc" | b"heim" | b"heis" | b"mif1" | b"msf1") => {
                "a HEIC picture, a format that is not read; export it as JPEG (an iPhone takes JPEG under \
                 Settings, Camera, Formats, Most Compatible)"
            }
            _ => "a video, not a picture; save single frames of it as JPEG or PNG",
        }
    } else if head.starts_with(b"II*\0") || head.starts_with(b"MM\0*") {
        "a TIFF or raw picture, formats that are not read; save it as JPEG or PNG"
    } else if head.starts_with(b"\xff\x0a") || head.get(4..8) == Some(b"JXL ") {
        "a JPEG XL picture, a format that is not read; save it as JPEG or PNG"
    } else if head.get(4..8) == Some(b"jP  ") || head.starts_with(b"\xff\x4f\xff\x51") {
        "a JPEG 2000 picture, a format that is not read; save it as JPEG or PNG"
    } else if head.starts_with(b"8BPS") {
        "a Photoshop document, not a picture; export it as JPEG or PNG"
    } else if head.starts_with(b"\x8fEDGE\r\n") {
        "a model, not a picture; give it with --model"
    } else if is_other_model(head) {
        "a model, not a picture; `convert` makes a device file (.edge) of it"
    } else if head.starts_with(b"%PDF") {
        "a PDF document, not a picture"
    } else {
        READ
    }
}

/// Whether a file begins as a checkpoint, ONNX, TensorFlow Lite, HDF5, safetensors, or PyTorch's and
/// Keras' archives do.
fn is_other_model(head: &[u8]) -> bool {
    let is_checkpoint = head.windows(15).take(48).any(|text| text == b"edge-resnet.mpk");
    let is_onnx = matches!(head, [0x08, 1..=32, 0x12 | 0x3a, ..]);
    let is_safe = head.get(4..9) == Some(b"\0\0\0\0{");
    let is_lite = head.get(4..8) == Some(b"TFL3");
    let magics: [&[u8]; 4] = [b"\x89HDF", b"PK\x03\x04", b"\x80\x02\x8a\x0al\xfc\x9cF", b"NRUB"];
    is_checkpoint || is_onnx || is_safe || is_lite || magics.iter().any(|m| head.starts_with(m))
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    limits
}

/// What is known of a file before its pixels.
struct Source {
    /// Bytes.
    len: usize,
    lease: Option<Lease>,
}

impl Source {
    /// Reads the pixels; of so many, the decoder keeps `beside` bytes more in memory.
    fn pixels(
        self,
        mut decoder: impl ImageDecoder,
        beside: impl FnOnce(u64) -> u64,
    ) -> Result<Picture, PictureError> {
        let (width, height) = decoder.dimensions();
        let count = u64::from(width) * u64::from(height);
        let raw_len = decoder.total_bytes();
        let announced = Announced {
            width,
            height,
            pixels: raw_len.max(3 * count),
            beside: beside(count),
            file: self.len,
        };
        let bytes = announced.check()?;
        let mut lease = self.lease.unwrap_or_else(|| Lease::wait(bytes));
        decoder.set_limits(limits()).map_err(damaged)?;
        let color = decoder.color_type();
        // Zeroed memory costs nothing until it is written: a header alone claims none.
        let mut raw = vec![0; announced.pixels as usize];
        decoder.read_image(&mut raw[..raw_len as usize]).map_err(damaged)?;
        let rgb = to_rgb8(raw, count as usize, color)?;
        let (width, height) = (width as usize, height as usize);
        // What its decoder needed is free.
        lease.shrink(rgb.len() as u64);
        Ok(Picture { rgb, width, height, orientation: 1, note: None, _lease: lease })
    }
}

/// Any of the decoders' pixel formats to RGB, in place: 16 bits rounded to 8, alpha put on white. There are
/// `count` pixels, and room for their RGB.
fn to_rgb8(mut raw: Vec<u8>, count: usize, color: ColorType) -> Result<Vec<u8>, PictureError> {
    let channels = usize::from(color.channel_count());
    match usize::from(color.bytes_per_pixel()) / channels {
        1 => {}
        2 => {
            for i in 0..count * channels {
                let value = u16::from_ne_bytes([raw[2 * i], raw[2 * i + 1]]);
                raw[i] = ((u32::from(value) + 128) / 257) as u8;
            }
        }
        _ => {
            let what = "floating-point pixels; save it as PNG";
            return Err(PictureError::Unsupported(what.into()));
        }
    }
    // From the end, where a pixel becomes longer.
    match channels {
        1 => (0..count).rev().for_each(|i| raw.copy_within(i..=i, 3 * i)),
        2 => (0..count).rev().for_each(|i| raw[3 * i] = on_white(raw[2 * i], raw[2 * i + 1])),
        3 => {}
        _ => {
            for i in 0..count {
                let alpha = raw[4 * i + 3];
                for c in 0..3 {
                    raw[3 * i + c] = on_white(raw[4 * i + c], alpha);
                }
            }
        }
    }
    if channels < 3 {
        for pixel in raw.as_chunks_mut::<3>().0 {
            *pixel = [pixel[0]; 3];
        }
    }
    raw.truncate(3 * count);
    raw.shrink_to_fit();
    Ok(raw)
}

/// `value` at opacity `alpha` over 255, rounded.
fn on_white(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixel_formats() {
        let rgb = |raw: &[u8], color: ColorType| {
            let count = raw.len() / usize::from(color.bytes_per_pixel());
            let room = raw.len().max(3 * count);
            let raw = raw.iter().copied().chain(core::iter::repeat(0)).take(room).collect();
            to_rgb8(raw, count, color).unwrap()
        };
        let rgb16 = |raw: &[u16], color| {
            let bytes: Vec<u8> = raw.iter().flat_map(|v| v.to_ne_bytes()).collect();
            rgb(&bytes, color)
        };
        assert_eq!(rgb(&[7, 9], ColorType::L8), [7, 7, 7, 9, 9, 9]);
        assert_eq!(rgb(&[7, 255, 7, 0], ColorType::La8), [7, 7, 7, 255, 255, 255]);
        assert_eq!(rgb(&[1, 2, 3], ColorType::Rgb8), [1, 2, 3]);
        assert_eq!(rgb(&[0, 2, 3, 128, 9, 8, 7, 255], ColorType::Rgba8), [127, 128, 129, 9, 8, 7]);
        assert_eq!(rgb16(&[0xffff, 128, 129], ColorType::L16), [255, 255, 255, 0, 0, 0, 1, 1, 1]);
        assert_eq!(rgb16(&[0x1234, 0], ColorType::La16), [255; 3]);
        assert_eq!(rgb16(&[0, 257, 514], ColorType::Rgb16), [0, 1, 2]);
        assert_eq!(rgb16(&[0, 257, 514, 0xffff], ColorType::Rgba16), [0, 1, 2]);
        assert!(to_rgb8(vec![0; 12], 1, ColorType::Rgb32F).is_err());
    }

    #[test]
    fn models_are_told_from_pictures() {
        for head in [
            &b"\x8fEDGE\r\n\x1a\x06\0"[..],
            b"\x88\xa6format\xafedge-resnet.mpk\xa7version",
            b"\x08\x08\x12\x07pytorch",
            b"\x1c\0\0\0TFL3",
            b"\x89HDF\r\n\x1a\n",
            b"\x10\x01\0\0\0\0\0\0{\"fc.bias\"",
            b"PK\x03\x04\0\0",
            b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j",
        ] {
            let error = decode(head).unwrap_err().to_string();
            assert!(error.starts_with("a model, not a picture; "), "{error}");
        }
        assert!(refusal(b"some text").contains("not a picture in a format"));
    }

    #[test]
    fn panics_become_errors() {
        let err = guarded(|| panic!("decoder bug")).unwrap_err().to_string();
        assert!(err.contains("damaged picture"), "{err}");
        assert!(!DECODING.get());
    }
}
