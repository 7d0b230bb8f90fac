//! JPEGs of every kind that libjpeg writes, and damaged ones.

use picture::PictureError;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Rows of pixels.
fn decode(file: &[u8]) -> Result<Vec<Vec<[u8; 3]>>, PictureError> {
    let picture = picture::decode(file)?;
    let view = picture.view().unwrap();
    let row = |y| (0..).map_while(move |x| view.pixel(x, y)).collect::<Vec<_>>();
    Ok((0..).map(row).take_while(|row| !row.is_empty()).collect())
}

#[test]
fn the_order_of_scans_does_not_matter() {
    for (name, others) in [
        (
            "420",
            &[
                "by_component",
                "by_component_restart",
                "luma_chroma",
                "luma_red_blue",
                "progressive",
                "restart",
            ][..],
        ),
        ("422", &["by_component"]),
        ("440", &["by_component"]),
        ("444", &["by_component"]),
        ("411", &["by_component"]),
    ] {
        let want = decode(&fixture(&format!("{name}.jpg"))).unwrap();
        assert_eq!((want.len(), want[0].len()), (27, 45));
        for other in others {
            let got = decode(&fixture(&format!("{name}_{other}.jpg"))).unwrap();
            assert!(got == want, "{name}_{other}.jpg has other pixels");
        }
    }
}

#[test]
fn pixels_are_those_of_libjpeg() {
    let want = fixture("420.ppm");
    let want = &want[want.len() - 27 * 45 * 3..];
    for name in ["420", "422", "440", "444", "411", "cmyk", "grey"] {
        let got = decode(&fixture(&format!("{name}.jpg"))).unwrap().concat().concat();
        assert_eq!(got.len(), want.len());
        let grey = |rgb: &[u8]| {
            let [r, g, b] = [0, 1, 2].map(|c| f32::from(rgb[c]));
            0.299 * r + 0.587 * g + 0.114 * b
        };
        // Chroma that is stored coarser, or not at all, changes little of the light.
        let off = got.chunks(3).zip(want.chunks(3)).map(|(a, b)| (grey(a) - grey(b)).abs());
        let off = off.sum::<f32>() / 27.0 / 45.0;
        assert!(off < 4.0, "{name}: {off}");
    }
    let got = decode(&fixture("420.jpg")).unwrap().concat().concat();
    let off = got.iter().zip(want).map(|(&a, &b)| u64::from(a.abs_diff(b))).sum::<u64>();
    assert!(off < got.len() as u64, "{off}");
}

#[test]
fn kinds_that_are_not_decoded_are_named() {
    let refused = |file: &[u8], want: &str| {
        let error = decode(file).unwrap_err();
        assert!(matches!(error, PictureError::Unsupported(_)), "{error}");
        let error = error.to_string();
        assert!(error.contains(want) && error.contains("save it as"), "{error}");
    };
    refused(&fixture("arithmetic.jpg"), "arithmetic coding");
    // The head of a lossless one, of one with 12 bits, of a coarser first color.
    let file = fixture("420.jpg");
    let head = file.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    for (at, byte, want) in [
        (1, 0xc3, "without loss"),
        (4, 12, "more than 8 bits"),
        (11, 0x11, "first color is coarser"),
    ] {
        let mut file = file.clone();
        file[head + at] = byte;
        if at == 11 {
            file[head + 14] = 0x22;
        }
        refused(&file, want);
    }
}

/// Photos, and the same ones with restart markers, by component and so on.
fn photos() -> Vec<Vec<u8>> {
    let samples: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/pictures");
    let mut photos = vec![std::fs::read(samples.join("rocket.jpg")).unwrap()];
    for (name, quality) in [("chelsea.png", 90), ("coffee.png", 60)] {
        let picture = image::open(samples.join(name)).unwrap().to_rgb8();
        let mut file = Vec::new();
        let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, quality);
        picture.write_with_encoder(encoder).unwrap();
        photos.push(file);
    }
    photos
}

/// Share of the rows of one color.
fn flat(rows: &[Vec<[u8; 3]>]) -> f32 {
    let is_flat = |row: &[[u8; 3]]| {
        (0..3).all(|c| {
            let values = row.iter().map(|rgb| rgb[c]);
            values.clone().max().unwrap() - values.min().unwrap() <= 4
        })
    };
    rows.iter().filter(|row| is_flat(row)).count() as f32 / rows.len() as f32
}

#[test]
fn damaged_photos_are_refused() {
    let photos = photos();
    let mut seed = 1u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize
    };
    let mut accepted = 0;
    for i in 0..200 {
        let mut file = photos[i % photos.len()].clone();
        assert!(i >= photos.len() || flat(&decode(&file).unwrap()) < 0.1);
        let start = file.windows(2).position(|w| w == [0xff, 0xda]).unwrap() + 14;
        let at = start + random() % (file.len() - 514 - start);
        file[at..at + 512].fill_with(|| random() as u8);
        if let Ok(rows) = decode(&file) {
            accepted += 1;
            let share = flat(&rows);
            assert!(share < 0.25, "{i}: {share} of the rows have one color");
        }
    }
    assert!(accepted <= 10, "{accepted} of 200 damaged photos are accepted");
}

#[test]
fn photos_that_were_cut_are_refused() {
    for photo in photos() {
        for part in 1..20 {
            let mut file = photo[..photo.len() * part / 20].to_vec();
            let error = decode(&file).unwrap_err().to_string();
            assert!(error.contains("the end of the file is missing"), "{error}");
            // As programs leave it that repair files.
            file.extend([0xff, 0xd9]);
            let error = decode(&file).unwrap_err().to_string();
            assert!(error.contains("damaged picture"), "{error}");
        }
    }
    for name in ["420_by_component", "420_progressive", "420_restart", "grey"] {
        let file = fixture(&format!("{name}.jpg"));
        for len in 0..file.len() - 1 {
            let cut = &file[..len];
            assert!(decode(cut).is_err(), "{name} cut to {len} bytes");
            let last = cut.len() > 1 && cut[len - 1] == 0xff;
            let closed = [&cut[..len - usize::from(last)], &[0xff, 0xd9]].concat();
            // The last bits may only fill the last byte up.
            assert!(len + 3 > file.len() || decode(&closed).is_err(), "{name}: {len} and an end");
        }
    }
}

#[test]
fn bytes_behind_the_last_block_do_no_harm() {
    for name in ["420", "420_restart", "420_progressive", "grey"] {
        let mut file = fixture(&format!("{name}.jpg"));
        let want = decode(&file).unwrap();
        let end = file.len() - 2;
        file.splice(end..end, (0..200).map(|i| i * 7 % 255));
        assert!(decode(&file).unwrap() == want, "{name}");
    }
}
