//! Rotations, flips and crops are Keras'; see `fixtures/keras/README.md`.

use edge_tests::{npy, read};
use network::random::Rng;
use safetensors::SafeTensors;
use serde_json::Value;
use trainer::data::augment::{Augment, Draws, Fill, Raster, Sampling, keras_crop, rotation};

/// Absolute, on values of 0..=255.
const ROTATED: f32 = 1e-3;
/// The same where pictures are resized.
const RESIZED: f32 = 1.5e-3;

fn json(path: &str) -> Value {
    serde_json::from_slice(&read(path)).unwrap()
}

/// The pictures of a bundle `[N, H, W, 3]`.
fn pictures(path: &str) -> Vec<Raster> {
    let (shape, values) = npy(path);
    let (height, width) = (shape[1], shape[2]);
    let pictures = values.chunks_exact(height * width * 3);
    pictures.map(|p| Raster { height, width, pixels: p.to_vec() }).collect()
}

fn assert_close(what: &str, got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (a, b)) in got.iter().zip(want).enumerate() {
        assert!((a - b).abs() <= tolerance, "{what}[{i}] is {a}, Keras has {b}");
    }
}

fn matrix(value: &Value) -> Vec<f64> {
    let all: Vec<f64> = serde_json::from_value(value.clone()).unwrap();
    all[..6].to_vec()
}

#[test]
fn rotation_matrices() {
    let golden = json("keras/augmentation/rotation_matrices.json");
    for (degrees, want) in golden["matrices"].as_object().unwrap() {
        let angle = degrees.parse::<f64>().unwrap().to_radians();
        let got = rotation(angle, 15, 20);
        for (a, b) in got.iter().zip(matrix(want)) {
            assert!((a - b).abs() <= 1e-5, "{degrees}: {got:?}, Keras has {want}");
        }
    }
}

/// Each fill and sampling at each angle, with Keras' own matrices: their rounding decides which
/// pixel is nearest, and on which side of the edge a place lies.
#[test]
fn rotated_pictures() {
    let bytes = read("keras/augmentation/rotation.safetensors");
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let matrices = json("keras/augmentation/rotation_matrices.json");
    let picture = pictures("keras/augmentation/input.npy").swap_remove(0);
    let mut seen = 0;
    for (name, view) in golden.tensors() {
        let mut parts = name.split('/');
        let angle = parts.next().unwrap().trim_end_matches("deg");
        let fill = match parts.next().unwrap() {
            "constant" => Fill::Constant(0.0),
            "nearest" => Fill::Nearest,
            "wrap" => Fill::Wrap,
            _ => Fill::Reflect,
        };
        let sampling = match parts.next().unwrap() {
            "nearest" => Sampling::Nearest,
            _ => Sampling::Bilinear,
        };
        let map = matrix(&matrices["matrices"][format!("{angle}.0")]).try_into().unwrap();
        let (want, _) = view.data().as_chunks();
        let want: Vec<f32> = want.iter().map(|b| f32::from_le_bytes(*b)).collect();
        assert_close(&name, &picture.transform(map, fill, sampling).pixels, &want, ROTATED);
        seen += 1;
    }
    assert_eq!(seen, 48);
}

#[test]
fn the_rotation_layers_default() {
    let golden = json("keras/augmentation/rotation_layer_default.json");
    let want = pictures("keras/augmentation/rotation_layer_default.npy");
    for (i, picture) in pictures("keras/augmentation/input.npy").iter().enumerate() {
        let angle = golden["angle_deg"][i].as_f64().unwrap();
        let map = rotation(angle.to_radians(), picture.height, picture.width);
        let got = picture.transform(map, Fill::Reflect, Sampling::Bilinear);
        assert_close(&format!("picture {i}"), &got.pixels, &want[i].pixels, ROTATED);
    }
}

#[test]
fn crops_of_small_pictures() {
    for (input, output) in [
        ("crop_small_input", "crop_small_to_90x80_training"),
        ("crop_mixed_input_100x60", "crop_mixed_to_90x80_training"),
    ] {
        let input = &pictures(&format!("keras/augmentation/{input}.npy"))[0];
        let want = &pictures(&format!("keras/augmentation/{output}.npy"))[0];
        let got = keras_crop(input, 90, 80, |_| panic!("nothing to draw"));
        assert_close(output, &got.pixels, &want.pixels, RESIZED);
    }
}

/// A picture whose red tells the row and whose green tells the column.
fn ramp(height: usize, width: usize) -> Raster {
    let pixel = |i: usize| [(i / width) as f32, (i % width) as f32, 0.0];
    Raster { height, width, pixels: (0..height * width).flat_map(pixel).collect() }
}

#[test]
fn crop_windows() {
    let golden = json("keras/augmentation/flip_crop_observations.json");
    let starts = &golden["crop"]["h30w40_crop28x39_observed_starts"];
    let mut got: Vec<[usize; 2]> = (0..200)
        .map(|seed| {
            let mut rng = Rng::keyed(&[seed]);
            let crop = keras_crop(&ramp(30, 40), 28, 39, |n| rng.below(n));
            [crop.pixels[0] as usize, crop.pixels[1] as usize]
        })
        .collect();
    got.sort_unstable();
    got.dedup();
    assert_eq!(serde_json::to_value(got).unwrap(), *starts);
    for case in golden["crop"]["not_strictly_larger_cases"].as_array().unwrap() {
        let pair = |key: &str| -> [usize; 2] { serde_json::from_value(case[key].clone()).unwrap() };
        let ([height, width], [rows, columns], start) =
            (pair("src"), pair("target"), pair("start"));
        let source = ramp(height, width);
        let [top, left, ..] = source.aspect_box(rows, columns);
        assert_eq!([top, left], start, "{case}");
        let crop = keras_crop(&source, rows, columns, |_| panic!("nothing to draw"));
        assert_eq!((crop.height, crop.width), (rows, columns));
    }
}

#[test]
fn flips() {
    let golden = json("keras/augmentation/flip_crop_observations.json");
    for (mode, outcomes) in golden["flip"].as_object().unwrap() {
        let Some(outcomes) = outcomes.as_object() else { continue };
        let augment: Augment = format!("keras-flip={mode}").parse().unwrap();
        let mut counts = [("identity", 0), ("h", 0), ("v", 0), ("hv", 0)];
        for seed in 0..64 {
            let rng = Rng::keyed(&[seed]);
            let got = augment.apply(ramp(4, 5), Draws { picture: rng.clone(), batch: rng });
            let (vertical, horizontal) = (got.pixels[0] > 0.0, got.pixels[1] > 0.0);
            counts[usize::from(horizontal) + 2 * usize::from(vertical)].1 += 1;
        }
        for (name, count) in counts {
            let possible = outcomes[name].as_u64().unwrap() > 0;
            assert_eq!(count > 0, possible, "{mode}: {counts:?}, Keras has {outcomes:?}");
            assert!(!possible || count > 16, "{mode}: {counts:?}");
        }
    }
}
