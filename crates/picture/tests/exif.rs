//! Rotations that files tell of, wherever they do.

mod png;

use image::ImageEncoder;
use png::chunk;

/// An EXIF block whose only entry is the orientation.
fn exif(orientation: u8) -> Vec<u8> {
    [&b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0"[..], &[orientation, 0, 0, 0, 0, 0, 0]]
        .concat()
}

/// The color in the upper left, of what is stored as a red and a blue pixel.
fn first(file: &[u8]) -> [u8; 3] {
    picture::decode(file).unwrap().view().unwrap().pixel(0, 0).unwrap()
}

const PIXELS: [u8; 6] = [255, 0, 0, 0, 0, 255];
const RED: [u8; 3] = [255, 0, 0];
const BLUE: [u8; 3] = [0, 0, 255];

/// A PNG with a chunk, before the one with that name.
fn png_with(exif: &[u8], before: &[u8; 4]) -> Vec<u8> {
    let mut file = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut file);
    encoder.write_image(&PIXELS, 2, 1, image::ExtendedColorType::Rgb8).unwrap();
    let at = file.windows(4).position(|w| w == before).unwrap() - 4;
    file.splice(at..at, chunk(b"eXIf", exif));
    file
}

fn webp(exif: Vec<u8>) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = image::codecs::webp::WebPEncoder::new_lossless(&mut file);
    encoder.set_exif_metadata(exif).unwrap();
    encoder.write_image(&PIXELS, 2, 1, image::ExtendedColorType::Rgb8).unwrap();
    file
}

#[test]
fn png_before_and_behind_the_pixels() {
    let named = |orientation| [b"Exif\0\0", &exif(orientation)[..]].concat();
    for before in [b"IDAT", b"IEND"] {
        assert_eq!(first(&png_with(&exif(1), before)), RED);
        assert_eq!(first(&png_with(&exif(3), before)), BLUE);
        assert_eq!(first(&png_with(&named(2), before)), BLUE);
        assert_eq!(first(&png_with(b"MM\0*\0\0", before)), RED);
    }
}

#[test]
fn webp_with_the_name_of_the_block_and_without() {
    for (orientation, want) in [(1, RED), (3, BLUE), (8, BLUE)] {
        assert_eq!(first(&webp(exif(orientation))), want);
        assert_eq!(first(&webp([b"Exif\0\0", &exif(orientation)[..]].concat())), want);
    }
    assert_eq!(first(&webp(b"Exif\0\0".to_vec())), RED);
}
