//! Pictures that move: the first frame is read, and it is said.

mod png;

use image::ImageEncoder;
use png::{chunk, deflated, png};

fn first(file: &[u8]) -> ([u8; 3], Option<&'static str>) {
    let picture = picture::decode(file).unwrap();
    (picture.view().unwrap().pixel(0, 0).unwrap(), picture.note)
}

const NOTE: Option<&str> = Some("animated; only its first frame is classified");

#[test]
fn moving_png() {
    let one = [0, 0, 0, 1, 0, 0, 0, 1];
    let frame = |number: u8| {
        let rest = [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 10, 0, 0];
        chunk(b"fcTL", &[&[0, 0, 0, number], &one[..], &rest].concat())
    };
    let control = chunk(b"acTL", &[0, 0, 0, 2, 0, 0, 0, 0]);
    let file = png([1, 1], 8, 0, &[control, frame(0)].concat(), &deflated([0, 7]));
    // The second frame lies before the end.
    let next = chunk(b"fdAT", &[&[0, 0, 0, 2][..], &deflated([0, 99])].concat());
    let end = file.len() - 12;
    let file = [&file[..end], &frame(1), &next, &file[end..]].concat();
    assert_eq!(first(&file), ([7; 3], NOTE));
    assert_eq!(first(&png([1, 1], 8, 0, &[], &deflated([0, 7]))), ([7; 3], None));
}

#[test]
fn moving_webp() {
    let chunk = |name: &[u8; 4], data: &[u8]| {
        let pad = vec![0; data.len() % 2];
        [name, &(data.len() as u32).to_le_bytes()[..], data, &pad].concat()
    };
    let frame = |color: [u8; 3]| {
        let mut file = Vec::new();
        let encoder = image::codecs::webp::WebPEncoder::new_lossless(&mut file);
        encoder.write_image(&color, 1, 1, image::ExtendedColorType::Rgb8).unwrap();
        // Its place, size less one and time come before what follows the head of a still one.
        let mut place = [0; 16];
        place[15] = 2; // not blended with what is below
        chunk(b"ANMF", &[&place, &file[12..]].concat())
    };
    let chunks = [
        chunk(b"VP8X", &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        chunk(b"ANIM", &[0; 6]),
        frame([1, 2, 3]),
        frame([9, 9, 9]),
    ];
    let chunks = chunks.concat();
    let head = [b"RIFF", &(chunks.len() as u32 + 4).to_le_bytes()[..], b"WEBP"].concat();
    assert_eq!(first(&[head, chunks].concat()), ([1, 2, 3], NOTE));
}
