//! Random changes of training pictures.
//!
//! An [`Augment`] is a list of steps, written as on the command line:
//! `flip,shift=0.125,rotate=10`. Every draw comes from a generator keyed by seed, epoch and
//! picture (or batch, where Keras draws once for all), so threads cannot change a picture.
//!
//! | step | does, for each picture |
//! |---|---|
//! | `flip`, `vflip` | mirrors left and right, top and bottom, half of the time |
//! | `shift=S` | moves by up to S of the shorter side, the border mirrored |
//! | `crop=A` | takes a box of at least A of the area, sides within 3:4 and 4:3, and stretches it |
//! | `rotate=D` | turns by up to D degrees either way |
//! | `color=S` | brightness, contrast, saturation by factors of 1 − S to 1 + S |
//! | `hue=S` | turns hues by up to S of the color circle |
//! | `randaugment=M`, `=MxN` | N (2) operations of RandAugment at magnitude M of 10 |
//! | `erase=P` | fills a box with noise, with probability P (Zhong et al. 2017) |
//! | `mixup=A`, `cutmix=A` | blends pairs; see [`Mix`] |
//! | `keras-flip` | Keras' RandomFlip: one coin for both axes; `=horizontal`, `=vertical` |
//! | `keras-crop=S` | Keras' RandomCrop to S of each side: one window for the whole batch |
//! | `keras-rotate=F` | Keras' RandomRotation by up to F of a turn; `=F:FILL:SAMPLING` |
//!
//! A picture that ends with another size is cropped and resized to the model's. Grey ones are changed
//! as pictures whose channels are equal and stay so: of color, only brightness and contrast are left.
//!
//! A teacher sees what its student sees, but larger or smaller. Whatever counts pixels is therefore
//! drawn for the student's size, the frame, and scaled to the raster at hand, where both are not the same.

mod color;
mod mix;
mod randaugment;
mod raster;

pub use mix::Mix;
pub use raster::{Affine, Fill, Raster, Sampling, about_center, rotation};

use core::fmt;
use core::str::FromStr;
use network::random::Rng;

/// Aspect ratios of a random crop, as logarithms of 3/4 and 4/3.
const CROP_RATIO: f64 = 0.287_682_072_451_780_9;
/// Aspect ratios of an erased box: 0.3 to 1/0.3.
const ERASE_RATIO: f64 = 1.203_972_804_325_936;
/// Area of an erased box.
const ERASE_AREA: [f64; 2] = [0.02, 1.0 / 3.0];

/// Axes of Keras' RandomFlip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlipMode {
    /// Left and right.
    Horizontal,
    /// Top and bottom.
    Vertical,
    /// Both at once or none: Keras' default.
    HorizontalAndVertical,
}

/// One random change; see the module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// `flip`
    Flip,
    /// `vflip`
    FlipVertical,
    /// `shift=S`
    Shift(f64),
    /// `crop=A`
    Crop(f64),
    /// `rotate=D`
    Rotate(f64),
    /// `color=S`
    Color(f64),
    /// `hue=S`
    Hue(f64),
    /// `randaugment=MxN`
    RandAugment {
        /// Strength, 0..=10.
        magnitude: f64,
        /// Operations for each picture.
        count: u32,
    },
    /// `erase=P`
    Erase(f64),
    /// `keras-flip`
    KerasFlip(FlipMode),
    /// `keras-crop=S`
    KerasCrop(f64),
    /// `keras-rotate=F`
    KerasRotate {
        /// Largest turn, as a share of a full one.
        factor: f64,
        /// Beyond the edge.
        fill: Fill,
        /// Between pixels.
        sampling: Sampling,
    },
}

/// What happens to training pictures: steps one by one, then mixing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Augment {
    /// In this order.
    pub steps: Vec<Step>,
    /// Of whole batches.
    pub mix: Mix,
}

/// Generators for one picture.
#[derive(Debug, Clone)]
pub struct Draws {
    /// Of this picture alone.
    pub picture: Rng,
    /// The same for every picture of a batch.
    pub batch: Rng,
}

impl Augment {
    /// Named lists.
    pub const NAMES: [(&str, &str); 4] = [
        ("none", ""),
        ("light", "flip,shift=0.125"),
        ("strong", "flip,crop=0.5,color=0.3,randaugment=7,erase=0.25,mixup=0.2,cutmix=1"),
        ("kerashub-guide", "keras-flip,keras-crop=0.9,keras-rotate=0.125"),
    ];

    /// A randomly changed copy of a picture, of any size.
    pub fn apply(&self, raster: Raster, draws: Draws) -> Raster {
        let frame = [raster.height, raster.width];
        self.apply_in(frame, raster, draws)
    }

    /// As [`Self::apply`] changes the same picture of the size `frame`, height and width.
    pub fn apply_in(&self, mut frame: [usize; 2], mut raster: Raster, mut draws: Draws) -> Raster {
        for step in &self.steps {
            raster = step.apply(raster, &mut frame, &mut draws);
        }
        raster
    }

    /// Whether what becomes of a picture depends on those beside it in its batch.
    pub fn is_of_batches(&self) -> bool {
        self.mix.mixes() || self.steps.iter().any(|step| matches!(step, Step::KerasCrop(_)))
    }
}

/// `place` of `0..=from` on a scale of `0..=to`; exactly where both are the same.
fn scaled(place: usize, from: usize, to: usize) -> usize {
    match from {
        0 => 0,
        _ if from == to => place,
        _ => (2 * place * to + from) / (2 * from),
    }
}

/// A box `[top, left, rows, columns]` of a picture of the size `frame` in one of the size `size`.
fn scaled_box(at: [usize; 4], frame: [usize; 2], size: [usize; 2]) -> [usize; 4] {
    let [top, left, rows, columns] = at;
    let span = |start: usize, len: usize, axis: usize| {
        let [from, to] = [frame[axis], size[axis]];
        let end = scaled(start + len, from, to);
        let start = scaled(start, from, to).min(to - 1);
        (start, end.clamp(start + 1, to) - start)
    };
    let ((top, rows), (left, columns)) = (span(top, rows, 0), span(left, columns, 1));
    [top, left, rows, columns]
}

impl Step {
    /// A randomly changed copy of the picture; `frame`, in which pixels are counted, changes with its size.
    pub fn apply(self, mut raster: Raster, frame: &mut [usize; 2], draws: &mut Draws) -> Raster {
        let rng = &mut draws.picture;
        match self {
            Self::Flip if rng.unit() < 0.5 => raster.flip_horizontal(),
            Self::FlipVertical if rng.unit() < 0.5 => raster.flip_vertical(),
            Self::Flip | Self::FlipVertical => {}
            Self::Shift(share) => return shift(&raster, *frame, share, rng),
            Self::Crop(least) => return crop(&raster, *frame, least, rng),
            Self::Rotate(degrees) => {
                let angle = either_way(degrees, rng).to_radians();
                return turn(&raster, angle, Fill::Reflect, Sampling::Bilinear);
            }
            Self::Color(strength) => {
                let mut factor = || (1.0 + either_way(strength, rng)).max(0.0) as f32;
                let factors = [factor(), factor(), factor()];
                raster.brightness(factors[0]);
                raster.contrast(factors[1]);
                raster.saturation(factors[2]);
            }
            Self::Hue(most) => raster.hue(either_way(most, rng) as f32),
            Self::RandAugment { magnitude, count } => {
                randaugment::apply(&mut raster, count, magnitude, rng);
            }
            Self::Erase(probability) => erase(&mut raster, *frame, probability, rng),
            Self::KerasFlip(mode) => {
                if rng.unit() <= 0.5 {
                    if mode != FlipMode::Vertical {
                        raster.flip_horizontal();
                    }
                    if mode != FlipMode::Horizontal {
                        raster.flip_vertical();
                    }
                }
            }
            Self::KerasCrop(share) => {
                let part = |len: usize| ((len as f64 * share) as usize).max(1);
                let (height, width) = (part(raster.height), part(raster.width));
                let before = core::mem::replace(frame, frame.map(part));
                let mut rest = before.iter().zip(*frame).map(|(before, part)| before - part);
                return keras_crop(&raster, height, width, |n| {
                    let most = rest.next().unwrap_or(0);
                    scaled(draws.batch.below(most + 1), most, n - 1)
                });
            }
            Self::KerasRotate { factor, fill, sampling } => {
                let angle = either_way(factor, rng) * core::f64::consts::TAU;
                return turn(&raster, angle, fill, sampling);
            }
        }
        raster
    }
}

/// Uniform in `−most..most`.
fn either_way(most: f64, rng: &mut Rng) -> f64 {
    most * (2.0 * rng.unit() - 1.0)
}

fn turn(raster: &Raster, angle: f64, fill: Fill, sampling: Sampling) -> Raster {
    raster.transform(rotation(angle, raster.height, raster.width), fill, sampling)
}

/// Moves by whole pixels along both axes; the border is the picture's mirror image.
fn shift(raster: &Raster, frame: [usize; 2], share: f64, rng: &mut Rng) -> Raster {
    let (height, width) = (raster.height, raster.width);
    let most = (frame[0].min(frame[1]) as f64 * share) as usize;
    let mut offset = |from: usize, len: usize| {
        // A shift beyond the picture would need its mirror image twice.
        let most = most.min(from.saturating_sub(1));
        let by = rng.below(2 * most + 1) as isize - most as isize;
        scaled(by.unsigned_abs(), from, len) as isize * by.signum()
    };
    let (dy, dx) = (offset(frame[0], height), offset(frame[1], width));
    let mut pixels = Vec::with_capacity(raster.pixels.len());
    for y in 0..height {
        let row = mirrored(y as isize + dy, height) * width;
        for x in 0..width {
            let from = (row + mirrored(x as isize + dx, width)) * 3;
            pixels.extend_from_slice(&raster.pixels[from..from + 3]);
        }
    }
    Raster { height, width, pixels }
}

/// `i` reflected into `0..len` about the edge pixels: −1 is 1, `len` is `len − 2`.
fn mirrored(i: isize, len: usize) -> usize {
    let last = len as isize - 1;
    let i = i.abs();
    (if i > last { 2 * last - i } else { i }).clamp(0, last.max(0)) as usize
}

/// A box of random area and aspect ratio inside the picture, if ten draws find one that fits.
fn draw_box(
    [height, width]: [usize; 2],
    area: [f64; 2],
    ratio: f64,
    rng: &mut Rng,
) -> Option<[usize; 4]> {
    for _ in 0..10 {
        let area = (area[0] + (area[1] - area[0]) * rng.unit()) * (height * width) as f64;
        let ratio = (ratio * (2.0 * rng.unit() - 1.0)).exp();
        let rows = (area / ratio).sqrt().round() as usize;
        let columns = (area * ratio).sqrt().round() as usize;
        if (1..=height).contains(&rows) && (1..=width).contains(&columns) {
            let (top, left) = (rng.below(height - rows + 1), rng.below(width - columns + 1));
            return Some([top, left, rows, columns]);
        }
    }
    None
}

fn crop(raster: &Raster, frame: [usize; 2], least: f64, rng: &mut Rng) -> Raster {
    let (height, width) = (raster.height, raster.width);
    let drawn = draw_box(frame, [least, 1.0], CROP_RATIO, rng);
    let drawn = drawn.unwrap_or([0, 0, frame[0], frame[1]]);
    let [top, left, rows, columns] = scaled_box(drawn, frame, [height, width]);
    raster.slice(top, left, rows, columns).resize(height, width)
}

fn erase(raster: &mut Raster, frame: [usize; 2], probability: f64, rng: &mut Rng) {
    if rng.unit() >= probability {
        return;
    }
    let Some(drawn) = draw_box(frame, ERASE_AREA, ERASE_RATIO, rng) else { return };
    let [_, _, high, wide] = drawn;
    let noise: Vec<[f32; 3]> =
        (0..high * wide).map(|_| [(); 3].map(|()| rng.below(256) as f32)).collect();
    let width = raster.width;
    let [top, left, rows, columns] = scaled_box(drawn, frame, [raster.height, width]);
    let lines = raster.pixels_mut().chunks_exact_mut(width).skip(top).take(rows);
    for (y, line) in lines.enumerate() {
        for (x, pixel) in line[left..left + columns].iter_mut().enumerate() {
            *pixel = noise[y * high / rows * wide + x * wide / columns];
        }
    }
}

/// Keras' RandomCrop in training: a random window where the picture is larger both ways, else
/// a stretched one. `draw(n)` is uniform in `0..n`.
pub fn keras_crop(
    raster: &Raster,
    height: usize,
    width: usize,
    mut draw: impl FnMut(usize) -> usize,
) -> Raster {
    if raster.height > height && raster.width > width {
        let (top, left) = (draw(raster.height - height + 1), draw(raster.width - width + 1));
        return raster.slice(top, left, height, width);
    }
    let [top, left, ..] = raster.aspect_box(height, width);
    raster.slice(top, left, height, width).resize(height, width)
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Flip => f.write_str("flip"),
            Self::FlipVertical => f.write_str("vflip"),
            Self::Shift(v) => write!(f, "shift={v}"),
            Self::Crop(v) => write!(f, "crop={v}"),
            Self::Rotate(v) => write!(f, "rotate={v}"),
            Self::Color(v) => write!(f, "color={v}"),
            Self::Hue(v) => write!(f, "hue={v}"),
            Self::RandAugment { magnitude, count } => write!(f, "randaugment={magnitude}x{count}"),
            Self::Erase(v) => write!(f, "erase={v}"),
            Self::KerasFlip(FlipMode::HorizontalAndVertical) => f.write_str("keras-flip"),
            Self::KerasFlip(FlipMode::Horizontal) => f.write_str("keras-flip=horizontal"),
            Self::KerasFlip(FlipMode::Vertical) => f.write_str("keras-flip=vertical"),
            Self::KerasCrop(v) => write!(f, "keras-crop={v}"),
            Self::KerasRotate { factor, fill: Fill::Reflect, sampling: Sampling::Bilinear } => {
                write!(f, "keras-rotate={factor}")
            }
            Self::KerasRotate { factor, fill, sampling } => {
                let fill = match fill {
                    Fill::Constant(_) => "constant",
                    Fill::Nearest => "nearest",
                    Fill::Wrap => "wrap",
                    Fill::Reflect => "reflect",
                };
                let sampling = match sampling {
                    Sampling::Nearest => "nearest",
                    Sampling::Bilinear => "bilinear",
                };
                write!(f, "keras-rotate={factor}:{fill}:{sampling}")
            }
        }
    }
}

impl fmt::Display for Augment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = self.steps.iter().map(Step::to_string).collect();
        for (name, alpha) in [("mixup", self.mix.mixup), ("cutmix", self.mix.cutmix)] {
            if alpha > 0.0 {
                parts.push(format!("{name}={alpha}"));
            }
        }
        match parts.is_empty() {
            true => f.write_str("none"),
            false => f.write_str(&parts.join(",")),
        }
    }
}

impl FromStr for Augment {
    type Err = String;

    /// Reads a list of steps or a name of [`Self::NAMES`].
    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::NAMES.iter().find(|(name, _)| *name == text);
        let list = named.map_or(text, |(_, list)| *list);
        let mut augment = Self::default();
        for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match name {
                "mixup" => augment.mix.mixup = number(part, value, 0.0..=1.0)?,
                "cutmix" => augment.mix.cutmix = number(part, value, 0.0..=1.0)?,
                _ => augment.steps.push(step(part, name, value)?),
            }
        }
        Ok(augment)
    }
}

fn number(part: &str, value: &str, range: core::ops::RangeInclusive<f64>) -> Result<f64, String> {
    match value.parse() {
        Ok(v) if range.contains(&v) => Ok(v),
        _ => Err(format!("`{part}` needs a number in {}..={}", range.start(), range.end())),
    }
}

fn step(part: &str, name: &str, value: &str) -> Result<Step, String> {
    let share = || number(part, value, 0.0..=1.0);
    let bare = |step| match value {
        "" => Ok(step),
        _ => Err(format!("`{part}`: {name} takes no value")),
    };
    match name {
        "flip" => bare(Step::Flip),
        "vflip" => bare(Step::FlipVertical),
        "shift" => share().map(Step::Shift),
        "crop" => number(part, value, 0.01..=1.0).map(Step::Crop),
        "rotate" => number(part, value, 0.0..=180.0).map(Step::Rotate),
        "color" => share().map(Step::Color),
        "hue" => number(part, value, 0.0..=0.5).map(Step::Hue),
        "erase" => share().map(Step::Erase),
        "randaugment" => {
            let (magnitude, count) = value.split_once('x').unwrap_or((value, "2"));
            let magnitude = number(part, magnitude, 0.0..=randaugment::MAX_MAGNITUDE)?;
            let count = number(part, count, 1.0..=14.0)? as u32;
            Ok(Step::RandAugment { magnitude, count })
        }
        "keras-flip" => match value {
            "" | "horizontal_and_vertical" => Ok(FlipMode::HorizontalAndVertical),
            "horizontal" => Ok(FlipMode::Horizontal),
            "vertical" => Ok(FlipMode::Vertical),
            _ => Err(format!("`{part}`: use horizontal, vertical or horizontal_and_vertical")),
        }
        .map(Step::KerasFlip),
        "keras-crop" => number(part, value, 0.01..=1.0).map(Step::KerasCrop),
        "keras-rotate" => {
            let mut parts = value.split(':');
            let factor = number(part, parts.next().unwrap_or(""), 0.0..=1.0)?;
            let fill = match parts.next() {
                None | Some("reflect") => Fill::Reflect,
                Some("constant") => Fill::Constant(0.0),
                Some("nearest") => Fill::Nearest,
                Some("wrap") => Fill::Wrap,
                _ => return Err(format!("`{part}`: fill with reflect, constant, nearest or wrap")),
            };
            let sampling = match (parts.next(), parts.next()) {
                (None | Some("bilinear"), None) => Sampling::Bilinear,
                (Some("nearest"), None) => Sampling::Nearest,
                _ => return Err(format!("`{part}`: sample bilinear or nearest")),
            };
            Ok(Step::KerasRotate { factor, fill, sampling })
        }
        _ => Err(format!(
            "`{part}` is no augmentation; use none, light, strong, kerashub-guide or a list of \
             flip, vflip, shift=, crop=, rotate=, color=, hue=, randaugment=, erase=, mixup=, \
             cutmix=, keras-flip, keras-crop=, keras-rotate="
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(seed: u64) -> Draws {
        Draws { picture: Rng::keyed(&[seed]), batch: Rng::keyed(&[9]) }
    }

    fn picture(height: usize, width: usize) -> Raster {
        let pixels = (0..height * width * 3).map(|i| (i * 29 % 256) as f32).collect();
        Raster { height, width, pixels }
    }

    #[test]
    fn mirrors_about_the_edge() {
        let got: Vec<_> = (-2..6).map(|i| mirrored(i, 4)).collect();
        assert_eq!(got, [2, 1, 0, 1, 2, 3, 2, 1]);
        assert_eq!(mirrored(0, 1), 0);
    }

    #[test]
    fn lists_read_as_they_are_written() {
        for (name, list) in Augment::NAMES {
            let named: Augment = name.parse().unwrap();
            assert_eq!(list.parse(), Ok(named.clone()));
            assert_eq!(named.to_string().parse(), Ok(named));
        }
        let all =
            "vflip,rotate=15,hue=0.1,erase=0.5,keras-flip=vertical,keras-rotate=0.5:wrap:nearest";
        assert_eq!(all.parse::<Augment>().unwrap().to_string(), all);
        for bad in [
            "spin",
            "flip=1",
            "shift",
            "crop=0",
            "rotate=x",
            "randaugment=11",
            "mixup=-1",
            "keras-flip=both",
            "keras-rotate=0.1:odd",
            "keras-rotate=0.1:wrap:bilinear:x",
            "color=NaN",
        ] {
            let error = bad.parse::<Augment>().unwrap_err();
            assert!(error.contains(&format!("`{bad}`")), "{error}");
        }
    }

    #[test]
    fn flips_happen_about_half_the_time() {
        for step in ["flip", "vflip", "keras-flip", "keras-flip=horizontal"] {
            let augment: Augment = step.parse().unwrap();
            let source = picture(3, 4);
            let flips = (0..1000).filter(|i| augment.apply(source.clone(), draws(*i)) != source);
            let flips = flips.count();
            assert!((430..570).contains(&flips), "{step}: {flips}");
        }
    }

    #[test]
    fn keras_flips_both_axes_or_none() {
        let source = picture(3, 4);
        let mut turned = source.clone();
        turned.flip_horizontal();
        turned.flip_vertical();
        let augment: Augment = "keras-flip".parse().unwrap();
        for seed in 0..50 {
            let got = augment.apply(source.clone(), draws(seed));
            assert!(got == source || got == turned);
        }
    }

    #[test]
    fn keras_crops_one_window_of_a_batch() {
        let source = picture(20, 30);
        let augment: Augment = "keras-crop=0.9".parse().unwrap();
        let first = augment.apply(source.clone(), draws(1));
        assert_eq!((first.height, first.width), (18, 27));
        assert_eq!(first, augment.apply(source.clone(), draws(2)));
        let other = |batch| Draws { picture: Rng::keyed(&[1]), batch: Rng::keyed(&[batch]) };
        let differs = |batch| augment.apply(source.clone(), other(batch)) != first;
        assert!((0..5).any(differs));
    }

    #[test]
    fn every_step_takes_any_size_and_stays_in_range() {
        let all = "flip,vflip,shift=0.5,crop=0.2,rotate=90,color=0.9,hue=0.5,randaugment=10x14,\
                   erase=1,keras-flip,keras-crop=0.7,keras-rotate=1";
        let augment: Augment = all.parse().unwrap();
        for (height, width) in [(1, 1), (1, 9), (7, 1), (12, 17)] {
            for seed in 0..20 {
                let got = augment.apply(picture(height, width), draws(seed));
                assert_eq!(got.pixels.len(), got.height * got.width * 3);
                // Interpolation may leave the range by a rounding.
                assert!(got.pixels.iter().all(|v| (-0.01..255.01).contains(v)));
            }
        }
    }

    /// Whatever the size, it is the same part of the picture, changed in the same way.
    #[test]
    fn a_frame_makes_the_same_view_at_any_size() {
        // Smooth, so that it hardly depends on the size where it is sampled.
        let smooth = |side: usize| {
            let at = |i: usize| (i as f32 + 0.5) / side as f32;
            let pixel =
                |y: f32, x: f32| [255.0 * y, 255.0 * x, 127.0 + 120.0 * (5.0 * x * y).sin()];
            let places = (0..side * side).map(|i| (at(i / side), at(i % side)));
            let pixels = places.flat_map(|(y, x)| pixel(y, x)).collect();
            Raster { height: side, width: side, pixels }
        };
        const SIDE: usize = 48;
        for list in [
            "flip,vflip",
            "shift=0.3",
            "crop=0.3",
            "rotate=40",
            "color=0.5,hue=0.2",
            "randaugment=7x3",
            "erase=1",
            "keras-flip,keras-crop=0.7,keras-rotate=0.1:nearest",
            "strong",
        ] {
            let augment: Augment = list.parse().unwrap();
            for (side, seed) in [32, 48, 112].into_iter().flat_map(|s| (0..12).map(move |i| (s, i)))
            {
                let own = augment.apply(smooth(SIDE), draws(seed));
                let frame = [SIDE, SIDE];
                let other = augment.apply_in(frame, smooth(side), draws(seed));
                let [own, other] = [own, other].map(|r| r.resize_cropped(SIDE, SIDE));
                if side == SIDE {
                    assert!(own == other, "{list}");
                }
                // Of parts that are large enough for noise to have a mean.
                let parts = |r: &Raster| {
                    let part = |i: usize| {
                        r.slice(i / 6 * 8, i % 6 * 8, 8, 8).pixels.iter().sum::<f32>() / 192.0
                    };
                    (0..36).map(part).collect::<Vec<f32>>()
                };
                let pairs = parts(&own).into_iter().zip(parts(&other));
                let apart = pairs.map(|(a, b)| (a - b).abs()).sum::<f32>() / 36.0;
                // Places are rounded to pixels; another draw is 60 apart.
                assert!(apart < 4.0, "{list} at {side}, seed {seed}: {apart}");
            }
        }
    }

    #[test]
    fn no_step_is_a_copy() {
        let source = picture(3, 3);
        assert_eq!(Augment::default().apply(source.clone(), draws(1)), source);
    }
}
