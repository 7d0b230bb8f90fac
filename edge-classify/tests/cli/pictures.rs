//! Pictures that are odd, broken or hostile.

use crate::{Bench, GREEN, encode, jpeg_turned, quadrants};
use edge_classify::EXIT_ANSWER;
use image::{
    DynamicImage, Frame, GrayAlphaImage, GrayImage, ImageBuffer, ImageFormat, Luma, LumaA, Rgb,
    RgbImage, Rgba, RgbaImage,
};

#[test]
fn formats_told_by_contents() {
    let bench = Bench::new();
    for format in
        [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Gif, ImageFormat::WebP]
    {
        let bytes = encode(quadrants(32, 32), format);
        assert_eq!(bench.label_of("wrong-suffix.txt", bytes), "red", "{format:?}");
    }
}

#[test]
fn exif_orientation_is_applied() {
    let bench = Bench::new();
    // As stored: red, green / blue, blue.
    let wanted = ["red", "red", "green", "blue", "blue", "red", "blue", "blue", "green"];
    for (orientation, want) in wanted.iter().enumerate() {
        let name = format!("{orientation}.jpg");
        assert_eq!(bench.label_of(&name, jpeg_turned(orientation as u8)), *want, "{orientation}");
    }
}

#[test]
fn odd_pixel_formats() {
    let bench = Bench::new();
    let png = |picture: DynamicImage| encode(picture, ImageFormat::Png);
    assert_eq!(bench.label_of("1x1.png", png(RgbImage::from_pixel(1, 1, GREEN).into())), "green");
    let wide: ImageBuffer<Rgb<u16>, _> = ImageBuffer::from_pixel(3, 3, Rgb([0, 300, 65_535]));
    assert_eq!(bench.label_of("16-bit.png", png(wide.into())), "blue");

    // On white all are equal; the lower index comes first.
    bench.put("clear.png", png(RgbaImage::from_pixel(2, 2, Rgba([0, 0, 255, 0])).into()));
    bench.put("grey.png", png(GrayImage::from_pixel(2, 2, Luma([255])).into()));
    bench.put("grey-alpha.png", png(GrayAlphaImage::from_pixel(2, 2, LumaA([0, 0])).into()));
    for name in ["clear.png", "grey.png", "grey-alpha.png"] {
        let o = bench.run(&["--logits", &format!("@/{name}")]);
        assert_eq!((o.code, o.err.as_str()), (EXIT_ANSWER, ""));
        let json = o.json();
        for logit in json["logits"][0].as_array().unwrap() {
            assert!((logit.as_f64().unwrap() - 10.0).abs() < 1e-5, "{name}: {}", o.out);
        }
    }
}

#[test]
fn palette() {
    // A 2 × 2 PNG of a 2-color palette (red, half-transparent blue), all pixels the second.
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |name: &[u8; 4], data: &[u8]| {
        bytes.extend((data.len() as u32).to_be_bytes());
        let body = [name, data].concat();
        bytes.extend(&body);
        bytes.extend(crc32(&body).to_be_bytes());
    };
    chunk(b"IHDR", &[0, 0, 0, 2, 0, 0, 0, 2, 8, 3, 0, 0, 0]);
    chunk(b"PLTE", &[255, 0, 0, 0, 0, 255]);
    chunk(b"tRNS", &[255, 128]);
    // Stored deflate: rows of a filter byte and two pixels, then Adler-32.
    let rows = [0, 1, 1, 0, 1, 1];
    let (a, b) = rows.iter().fold((1u32, 0u32), |(a, b), v| (a + v, b + a + v));
    let mut data = vec![0x78, 1, 1, 6, 0, !6, 0xff];
    data.extend(rows.map(|v| v as u8));
    data.extend((b << 16 | a).to_be_bytes());
    chunk(b"IDAT", &data);
    chunk(b"IEND", &[]);
    assert_eq!(Bench::new().label_of("palette.png", bytes), "blue");
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| (c >> 1) ^ (0xedb8_8320 & (c & 1).wrapping_neg()))
    })
}

#[test]
fn animation_is_noted() {
    let bench = Bench::new();
    let mut bytes = Vec::new();
    let frame = |color: [u8; 4]| Frame::new(RgbaImage::from_pixel(4, 4, Rgba(color)));
    let mut encoder = image::codecs::gif::GifEncoder::new(&mut bytes);
    encoder.encode_frames([frame([0, 255, 0, 255]), frame([255, 0, 0, 255])]).unwrap();
    drop(encoder);
    bench.put("moving.gif", bytes);
    let o = bench.run(&["@/moving.gif"]);
    assert_eq!(o.code, EXIT_ANSWER);
    assert!(o.out.contains("moving.gif: green 100.0 %"), "{}", o.out);
    assert!(o.err.contains("moving.gif: animated; only its first frame"), "{}", o.err);
    bench.put("still.gif", encode(quadrants(4, 4), ImageFormat::Gif));
    assert_eq!(bench.run(&["@/still.gif"]).err, "");
}

#[test]
fn what_is_no_picture_is_named() {
    let bench = Bench::new();
    for (name, bytes, want) in [
        ("empty.jpg", &b""[..], "empty"),
        ("page.jpg", b"<!DOCTYPE html><html></html>", "web page"),
        ("indented.jpg", b"\n  <html>", "web page"),
        ("phone.jpg", b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        ("scan.jpg", b"%PDF-1.7", "PDF"),
        ("scan.tif", b"II*\0\x08\0\0\0", "TIFF"),
        ("text.png", b"hello", "not a picture"),
        ("magic.png", b"\x89PNG\r\n\x1a\n", "damaged picture"),
    ] {
        let got = bench.refusal_of(name, bytes);
        assert!(got.to_lowercase().contains(&want.to_lowercase()), "{name}: {got}");
    }
}

#[test]
fn truncated_pictures_are_refused() {
    let bench = Bench::new();
    let noise =
        RgbImage::from_fn(48, 48, |x, y| Rgb([((x * 37) ^ (y * 11)) as u8, x as u8, y as u8]));
    for format in
        [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP, ImageFormat::Gif]
    {
        let bytes = encode(noise.clone(), format);
        for len in [3, 12, 30, bytes.len() / 2, bytes.len() * 9 / 10] {
            bench.refusal_of("cut.bin", &bytes[..len]);
        }
    }
}

#[test]
fn claims_of_huge_sizes_are_refused() {
    let bench = Bench::new();
    for (side, want) in [(16_384u32, "512 MiB"), (40_000, "32768"), (u32::MAX, "picture")] {
        let mut header = b"IHDR".to_vec();
        header.extend([side.to_be_bytes(), side.to_be_bytes()].concat());
        header.extend([8, 2, 0, 0, 0]);
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
        bytes.extend(&header);
        bytes.extend(crc32(&header).to_be_bytes());
        // The first data chunk's head, so that the decoder starts.
        bytes.extend(b"\0\0\0\x10IDATx\x9c");
        let got = bench.refusal_of("bomb.png", bytes);
        assert!(got.contains(want), "{got}");
    }
}
