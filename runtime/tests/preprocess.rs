//! The resize against Keras' `Resizing` layer, and the two outputs against each other.

use artifact::{Fit, Interpolation, Preprocess};
use runtime::preprocess::{FrameError, PixelFormat, RgbView, for_each_pixel, resize_rgb8};

const SOURCE: &[u8] = include_bytes!("fixtures/small_u8.npy");
const LUMA: &[u8] = include_bytes!("fixtures/small_luma_u8.npy");
const GOLDEN: &[u8] = include_bytes!("fixtures/small_resized_u8.safetensors");
const HEIGHT: usize = 37;
const WIDTH: usize = 53;

/// The first picture of the fixture.
fn source() -> &'static [u8] {
    numbers(SOURCE, HEIGHT * WIDTH * 3)
}

/// The first numbers of a `.npy` file.
fn numbers(file: &'static [u8], len: usize) -> &'static [u8] {
    let header_len = 10 + usize::from(u16::from_le_bytes([file[8], file[9]]));
    &file[header_len..][..len]
}

/// The bytes of one tensor of the golden file, whose header lists offsets after each name.
fn golden(name: &str) -> &'static [u8] {
    let header_len = u64::from_le_bytes(GOLDEN[..8].try_into().unwrap()) as usize;
    let header = str::from_utf8(&GOLDEN[8..8 + header_len]).unwrap();
    let entry = header.split_once(&format!("\"{name}\"")).unwrap().1;
    let offsets = entry.split_once("\"data_offsets\":[").unwrap().1;
    let (start, end) = offsets.split_once(']').unwrap().0.split_once(',').unwrap();
    let (start, end): (usize, usize) = (start.trim().parse().unwrap(), end.trim().parse().unwrap());
    &GOLDEN[8 + header_len..][start..end]
}

fn settings(fit: Fit, interpolation: Interpolation, antialias: bool, size: [u16; 2]) -> Preprocess {
    let [height, width] = size;
    let norm = Preprocess::normalized(height, width, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    Preprocess { fit, interpolation, antialias, ..norm }
}

fn resized(p: &Preprocess, view: RgbView<'_>) -> Vec<u8> {
    let mut out = vec![0; usize::from(p.height) * usize::from(p.width) * p.channels()];
    resize_rgb8(p, view, &mut out).unwrap();
    out
}

#[test]
fn equals_keras() {
    let view = RgbView::new(source(), WIDTH, HEIGHT, WIDTH * 3).unwrap();
    for (filter, interpolation) in [
        ("nearest", Interpolation::Nearest),
        ("bilinear", Interpolation::Bilinear),
        ("bicubic", Interpolation::Bicubic),
        ("lanczos3", Interpolation::Lanczos3),
        ("lanczos5", Interpolation::Lanczos5),
    ] {
        for (fit_name, fit) in
            [("stretch", Fit::Stretch), ("crop", Fit::Crop), ("pad", Fit::Pad(9))]
        {
            for antialias in [false, true] {
                for [h, w] in [[24, 24], [64, 48]] {
                    let name = format!("{filter}/aa{}/{fit_name}/{h}x{w}", u8::from(antialias));
                    let got = resized(&settings(fit, interpolation, antialias, [h, w]), view);
                    let want = golden(&name);
                    assert_eq!(got.len(), want.len(), "{name}");
                    let off = got.iter().zip(want).filter(|(a, b)| a != b).count();
                    let most = got.iter().zip(want).map(|(a, b)| a.abs_diff(*b)).max();
                    // Sums in another order may fall on the other side of a tie.
                    println!("{name}: {off} of {} differ by at most {most:?}", got.len());
                    assert!(most <= Some(1) && off * 1000 <= got.len(), "{name}: {off}, {most:?}");
                }
            }
        }
    }
}

#[test]
fn same_size_is_untouched() {
    let view = RgbView::new(source(), WIDTH, HEIGHT, WIDTH * 3).unwrap();
    for interpolation in [Interpolation::Nearest, Interpolation::Bilinear, Interpolation::Bicubic] {
        for antialias in [false, true] {
            for fit in [Fit::Crop, Fit::Stretch] {
                let size = [HEIGHT as u16, WIDTH as u16];
                let got = resized(&settings(fit, interpolation, antialias, size), view);
                assert!(got == source(), "{interpolation:?}");
            }
        }
    }
}

#[test]
fn pixels_are_the_resized_bytes_scaled() {
    let view = RgbView::new(source(), WIDTH, HEIGHT, WIDTH * 3).unwrap();
    let p = settings(Fit::Crop, Interpolation::Bicubic, true, [19, 33]);
    let bytes = resized(&p, view);
    let mut seen = vec![0; 19 * 33];
    for_each_pixel(&p, view, |index, rgb| {
        seen[index] += 1;
        for c in 0..3 {
            let want = f32::from(bytes[index * 3 + c]) * p.scale[c] + p.offset[c];
            assert_eq!(rgb[c].to_bits(), want.to_bits());
        }
    });
    assert!(seen.iter().all(|&n| n == 1));
}

#[test]
fn turned_and_padded_views_give_the_same_bytes() {
    let plain = RgbView::new(source(), WIDTH, HEIGHT, WIDTH * 3).unwrap();
    let stride = WIDTH * 3 + 7;
    let mut padded = vec![99; stride * HEIGHT];
    for (to, from) in padded.chunks_mut(stride).zip(source().chunks(WIDTH * 3)) {
        to[..from.len()].copy_from_slice(from);
    }
    let padded = RgbView::new(&padded, WIDTH, HEIGHT, stride).unwrap();
    for exif in 1..=8 {
        let turned = plain.oriented(exif);
        let mut copied = Vec::new();
        for y in 0..turned.height() {
            for x in 0..turned.width() {
                copied.extend(turned.pixel(x, y).unwrap());
            }
        }
        let copied = RgbView::new(&copied, turned.width(), turned.height(), turned.width() * 3);
        let sizes = [[7, 40], [24, 24], [80, 5]];
        for (size, fit) in sizes.into_iter().flat_map(|s| [(s, Fit::Crop), (s, Fit::Pad(77))]) {
            let p = settings(fit, Interpolation::Bicubic, true, size);
            let want = resized(&p, copied.unwrap());
            assert!(resized(&p, turned) == want, "orientation {exif}");
            assert!(resized(&p, padded.oriented(exif)) == want, "orientation {exif}");
        }
    }
}

/// A frame of 16-bit pixels gives what the same colors in 24 bits do, however it is turned.
#[test]
fn frames_of_16_bits_are_those_of_24() {
    let stride = 2 * WIDTH + 6;
    let mut frame = vec![0xa5; stride * HEIGHT];
    let mut wide = Vec::new();
    for (i, rgb) in source().chunks_exact(3).enumerate() {
        let [red, green, blue] = [rgb[0] >> 3, rgb[1] >> 2, rgb[2] >> 3].map(u16::from);
        let at = i / WIDTH * stride + i % WIDTH * 2;
        frame[at..at + 2].copy_from_slice(&(red << 11 | green << 5 | blue).to_be_bytes());
        // The highest bits repeated.
        let steps = [(red, 31), (green, 63), (blue, 31)];
        wide.extend(steps.map(|(value, most)| {
            let bits = if most == 31 { 5 } else { 6 };
            (value << (8 - bits) | value >> (2 * bits - 8)) as u8
        }));
    }
    let swapped: Vec<u8> = frame.as_chunks().0.iter().flat_map(|&[a, b]| [b, a]).collect();
    let wide = RgbView::new(&wide, WIDTH, HEIGHT, WIDTH * 3).unwrap();
    let p = settings(Fit::Crop, Interpolation::Bilinear, true, [32, 32]);
    for (format, bytes) in
        [(PixelFormat::Rgb565BigEndian, &frame), (PixelFormat::Rgb565LittleEndian, &swapped)]
    {
        let view = RgbView::with_format(bytes, format, WIDTH, HEIGHT, stride).unwrap();
        for exif in 1..=8 {
            let (view, wide) = (view.oriented(exif), wide.oriented(exif));
            assert_eq!(resized(&p, view), resized(&p, wide), "{format:?}, turned as {exif}");
            assert_eq!(view.pixel(3, 5), wide.pixel(3, 5));
        }
        let short = RgbView::with_format(&bytes[..stride], format, WIDTH, 2, stride);
        assert_eq!(
            short.unwrap_err(),
            FrameError::Short { needed: stride + 2 * WIDTH, have: stride }
        );
    }
    // The ends of the scale stay where they are.
    let ends = [0, 0, 0xff, 0xff];
    let view = RgbView::with_format(&ends, PixelFormat::Rgb565BigEndian, 2, 1, 4).unwrap();
    assert_eq!((view.pixel(0, 0), view.pixel(1, 0)), (Some([0; 3]), Some([255; 3])));
}

/// Each pixel's luma is Pillow's, and what follows is as of a picture whose channels are all luma,
/// however the frame is stored and turned.
#[test]
fn grey_is_the_luma_of_each_pixel() {
    let luma = numbers(LUMA, HEIGHT * WIDTH);
    let color = RgbView::new(source(), WIDTH, HEIGHT, WIDTH * 3).unwrap();
    let untouched = settings(Fit::Crop, Interpolation::Nearest, false, [37, 53]);
    assert!(resized(&Preprocess { grey: true, ..untouched }, color) == luma);

    let thrice: Vec<u8> = luma.iter().flat_map(|&v| [v; 3]).collect();
    let thrice = RgbView::new(&thrice, WIDTH, HEIGHT, WIDTH * 3).unwrap();
    let stride = WIDTH + 5;
    let mut frame = vec![99; stride * HEIGHT];
    for (to, from) in frame.chunks_mut(stride).zip(luma.chunks(WIDTH)) {
        to[..WIDTH].copy_from_slice(from);
    }
    let camera =
        |len: usize| RgbView::with_format(&frame[..len], PixelFormat::Grey8, WIDTH, HEIGHT, stride);
    let needed = stride * (HEIGHT - 1) + WIDTH;
    assert_eq!(camera(needed - 1).unwrap_err(), FrameError::Short { needed, have: needed - 1 });
    let camera = camera(needed).unwrap();
    for exif in 1..=8 {
        let [color, thrice, camera] = [color, thrice, camera].map(|view| view.oriented(exif));
        assert_eq!(camera.pixel(3, 5), thrice.pixel(3, 5));
        for (fit, antialias) in [(Fit::Crop, true), (Fit::Pad(77), false), (Fit::Stretch, true)] {
            let p = settings(fit, Interpolation::Bicubic, antialias, [24, 31]);
            let want = resized(&p, thrice);
            assert!(resized(&p, camera) == want, "orientation {exif}, {fit:?}");
            let want: Vec<u8> = want.iter().step_by(3).copied().collect();
            let grey = Preprocess { grey: true, ..p };
            for view in [color, thrice, camera] {
                assert!(resized(&grey, view) == want, "orientation {exif}, {fit:?}");
                for_each_pixel(&grey, view, |index, rgb| {
                    let value = f32::from(want[index]) * p.scale[0] + p.offset[0];
                    assert_eq!(rgb[0].to_bits(), value.to_bits());
                });
            }
        }
    }
}

#[test]
fn one_color_stays() {
    for (h, w) in [(1, 1), (1, 65_535), (65_535, 1), (3, 500)] {
        let data = [10u8, 128, 255].repeat(h * w);
        let view = RgbView::new(&data, w, h, w * 3).unwrap();
        for interpolation in [
            Interpolation::Nearest,
            Interpolation::Bilinear,
            Interpolation::Bicubic,
            Interpolation::Lanczos3,
            Interpolation::Lanczos5,
        ] {
            for fit in [Fit::Crop, Fit::Stretch] {
                for antialias in [false, true] {
                    let got = resized(&settings(fit, interpolation, antialias, [5, 21]), view);
                    assert!(got.chunks(3).all(|p| p == [10, 128, 255]), "{h}x{w}");
                }
            }
        }
    }
}

#[test]
fn borders_are_as_wide_on_both_sides() {
    // As long as the picture, or as a line of pixels may be.
    for (h, w, inside) in [(10, 20, 2..6), (20, 10, 2..6), (1, 65_535, 0..0), (65_535, 1, 0..0)] {
        let data = vec![200u8; h * w * 3];
        let view = RgbView::new(&data, w, h, w * 3).unwrap();
        let got = resized(&settings(Fit::Pad(7), Interpolation::Nearest, false, [8, 8]), view);
        for (i, pixel) in got.chunks(3).enumerate() {
            let across = if w > h { i / 8 } else { i % 8 };
            let want = if inside.contains(&across) { 200 } else { 7 };
            assert_eq!(pixel, [want; 3], "{h}x{w}, pixel {i}");
        }
    }
}

#[test]
fn output_of_another_length_is_refused() {
    let view = RgbView::new(source(), WIDTH, HEIGHT, WIDTH * 3).unwrap();
    let p = settings(Fit::Crop, Interpolation::Nearest, false, [2, 2]);
    let err = resize_rgb8(&p, view, &mut [0; 11]).unwrap_err();
    assert_eq!(err, FrameError::Output { needed: 12, have: 11 });
}

#[test]
fn frames_of_usb_cameras() {
    let bgr: Vec<u8> = source().chunks_exact(3).flat_map(|c| [c[2], c[1], c[0]]).collect();
    let wide = source();
    let wide = RgbView::new(wide, WIDTH, HEIGHT, WIDTH * 3).unwrap();
    let view = RgbView::with_format(&bgr, PixelFormat::Bgr888, WIDTH, HEIGHT, WIDTH * 3).unwrap();
    let p = settings(Fit::Crop, Interpolation::Bilinear, true, [32, 32]);
    for exif in 1..=8 {
        assert_eq!(resized(&p, view.oriented(exif)), resized(&p, wide.oriented(exif)));
    }
    // Black, white, grey, and the colors of BT.601's bars at 100 %.
    let bars = [
        ([16, 128, 128], [0, 0, 0]),
        ([235, 128, 128], [255, 255, 255]),
        ([126, 128, 128], [128, 128, 128]),
        ([82, 90, 240], [255, 1, 0]),
        ([145, 54, 34], [0, 255, 1]),
        ([41, 240, 110], [0, 0, 255]),
        ([0, 255, 255], [185, 0, 238]),
    ];
    let close = |a: [u8; 3], b: [u8; 3]| a.iter().zip(b).all(|(a, b)| a.abs_diff(b) <= 2);
    for ([y, u, v], want) in bars {
        // A pair beside another one, and a row of four bytes more.
        let frame = [[9, 9, 9, 9], [y, u, 16, v], [0; 4], [1; 4], [16, u, y, v], [0; 4]].concat();
        let view = RgbView::with_format(&frame, PixelFormat::Yuyv, 4, 2, 12).unwrap();
        let found = [view.pixel(2, 0), view.pixel(3, 1)].map(Option::unwrap);
        assert!(
            close(found[0], want) && found[0] == found[1],
            "{y} {u} {v}: {found:?}, not {want:?}"
        );
        let turned = view.oriented(3);
        assert_eq!([turned.pixel(1, 1), turned.pixel(0, 0)].map(Option::unwrap), found);
    }
    let frame = [0; 24];
    for (width, stride) in [(3, 12), (4, 10)] {
        let view = RgbView::with_format(&frame, PixelFormat::Yuyv, width, 2, stride);
        assert_eq!(view.unwrap_err(), FrameError::Paired { width, stride_bytes: stride });
    }
    let view = RgbView::with_format(&frame[..19], PixelFormat::Yuyv, 4, 2, 12);
    assert_eq!(view.unwrap_err(), FrameError::Short { needed: 20, have: 19 });
}
