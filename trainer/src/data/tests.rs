//! Neither memory nor threads change a batch.

use super::{
    Augment, Batch, Batches, CacheSize, Dataset, Loading, Order, Pictures, ReadOptions, Share,
};
use artifact::Preprocess;
use core::time::Duration;
use network::random::Rng;
use std::path::Path;
use std::sync::Arc;

const SIDE: u16 = 16;
/// Bytes of a picture of that size.
const LEN: u64 = 3 * 16 * 16;

/// Noise of several sizes in two classes.
fn folder(root: &Path) {
    let mut rng = Rng::keyed(&[8]);
    for class in ["a", "b"] {
        std::fs::create_dir_all(root.join(class)).unwrap();
        for i in 0..9 {
            let pixel = |_, _| image::Rgb([(); 3].map(|()| rng.below(256) as u8));
            let path = root.join(class).join(format!("{i}.png"));
            image::RgbImage::from_fn(12 + i, 20, pixel).save(path).unwrap();
        }
    }
}

/// CIFAR-10's layout with records of noise.
fn cifar(root: &Path) {
    let mut rng = Rng::keyed(&[9]);
    let record = |i| {
        let pixels: Vec<u8> = (0..3072).map(|_| rng.below(256) as u8).collect();
        [vec![(i % 10) as u8], pixels].concat()
    };
    let bytes: Vec<u8> = (0..20).flat_map(record).collect();
    std::fs::write(root.join("data_batch_1.bin"), bytes).unwrap();
}

fn pictures(root: &Path, cache: CacheSize) -> Arc<Pictures> {
    prepared(root, cache, preprocess())
}

fn prepared(root: &Path, cache: CacheSize, preprocess: Preprocess) -> Arc<Pictures> {
    let options = ReadOptions { preprocess, val_split: 0.0, seed: 1, classes: None, cache };
    Arc::new(Dataset::read(root, &options).unwrap().train)
}

fn preprocess() -> Preprocess {
    Preprocess::normalized(SIDE, SIDE, [0.5; 3], [0.25; 3])
}

fn loading(order: Order) -> Loading {
    Loading { preprocess: preprocess(), batch: 4, side: None, frame: None, order }
}

fn shuffled(augment: &str) -> Order {
    let augment = augment.parse::<Augment>().unwrap();
    Order::Shuffled { seed: 3, epoch: 1, augment, share: Share::WHOLE }
}

fn batches(pictures: &Arc<Pictures>, loading: &Loading, threads: usize) -> Vec<Batch> {
    let batches = Batches::on_threads(pictures.clone(), loading.clone(), threads);
    batches.map(Result::unwrap).collect()
}

fn bits(batches: &[Batch]) -> Vec<u32> {
    let numbers = |b: &Batch| b.pixels.iter().copied().chain([b.own]).map(f32::to_bits).collect();
    batches.iter().flat_map(|b| [b.labels.clone(), numbers(b)].concat()).collect()
}

#[test]
fn neither_memory_nor_threads_change_a_batch() {
    for make in [folder, cifar] {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path());
        for order in [Order::Sequential, shuffled("strong"), shuffled("kerashub-guide")] {
            let loading = loading(order);
            let all = batches(&pictures(dir.path(), CacheSize::All), &loading, 1);
            assert!(all.len() >= 5 && all.iter().all(|b| b.shape[1..] == [3, 16, 16]));
            for cache in [0, 7 * LEN, 1 << 40] {
                let pictures = pictures(dir.path(), CacheSize::Bytes(cache));
                for threads in [1, 4] {
                    let some = batches(&pictures, &loading, threads);
                    assert!(bits(&some) == bits(&all), "{cache} bytes, {threads} threads");
                }
            }
        }
    }
}

/// One plane of luma, which is left alone by what only changes colors.
#[test]
fn batches_of_grey_pictures() {
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path());
    let grey = Preprocess { grey: true, ..preprocess() };
    let batches = |augment: &str, cache| {
        let pictures = prepared(dir.path(), cache, grey);
        assert_eq!(pictures.picture_len(), 16 * 16);
        let loading = Loading { preprocess: grey, ..loading(shuffled(augment)) };
        let batches = batches(&pictures, &loading, 2);
        assert!(batches.iter().all(|b| b.shape[1..] == [1, 16, 16]));
        batches.into_iter().flat_map(|b| b.pixels).collect::<Vec<f32>>()
    };
    let plain = batches("flip", CacheSize::All);
    assert!(batches("flip", CacheSize::Bytes(0)) == plain);
    let hues = batches("flip,hue=0.5", CacheSize::All);
    assert!(plain.iter().zip(&hues).all(|(a, b)| (a - b).abs() < 1e-3));
    let strong = batches("strong", CacheSize::All);
    assert!(strong.len() == plain.len() && strong != plain);
}

#[test]
fn batches_of_another_side() {
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path());
    let pictures = pictures(dir.path(), CacheSize::Auto);
    for order in [Order::Sequential, shuffled("flip,crop=0.5,keras-crop=0.8,cutmix=1")] {
        let mut loading = loading(order);
        let native = batches(&pictures, &loading, 2);
        loading.side = Some(SIDE);
        assert!(bits(&batches(&pictures, &loading, 2)) == bits(&native));
        for side in [9, 24] {
            loading.side = Some(side);
            let other = batches(&pictures, &loading, 2);
            assert_eq!(other.len(), native.len());
            for (other, native) in other.iter().zip(&native) {
                let side = usize::from(side);
                assert_eq!(other.shape, [native.labels.len(), 3, side, side]);
                assert_eq!(other.pixels.len(), other.shape.iter().product::<usize>());
                assert_eq!(other.labels, native.labels);
            }
        }
    }
    // Half the side: each pixel is the mean of four.
    let mut loading = loading(Order::Sequential);
    let native = &batches(&pictures, &loading, 1)[0].pixels;
    loading.side = Some(SIDE / 2);
    let half = &batches(&pictures, &loading, 1)[0].pixels;
    let side = usize::from(SIDE);
    for (i, value) in half.iter().enumerate() {
        let (row, column) = (i / (side / 2), i % (side / 2));
        let at = 2 * row * side + 2 * column;
        let mean = [0, 1, side, side + 1].iter().map(|d| native[at + d]).sum::<f32>() / 4.0;
        assert!((value - mean).abs() < 1e-5, "{value} is not {mean}");
    }
}

/// A teacher has batches of the same pictures, changed and mixed in the same way, at its own size.
#[test]
fn batches_in_the_frame_of_others() {
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path());
    let pictures = pictures(dir.path(), CacheSize::Auto);
    let large = Preprocess { height: 3 * SIDE, width: 3 * SIDE, ..preprocess() };
    let larger = Arc::new(pictures.seen_by(large, CacheSize::Auto, &|_, _| ()).unwrap());
    for augment in [
        "none",
        "flip,crop=0.5,cutmix=1",
        "strong",
        "keras-flip,keras-crop=0.9,keras-rotate=0.125,mixup=1",
    ] {
        for side in [None, Some(SIDE / 2)] {
            let own = Loading { side, ..loading(shuffled(augment)) };
            let frame = Some(own.frame());
            let student = batches(&pictures, &own, 2);
            let framed = Loading { frame, ..own.clone() };
            assert!(bits(&batches(&pictures, &framed, 2)) == bits(&student));
            let teacher = Loading { preprocess: large, side: None, frame, ..own };
            for (student, teacher) in student.iter().zip(batches(&larger, &teacher, 2)) {
                assert_eq!(teacher.shape[2..], [usize::from(3 * SIDE); 2]);
                assert_eq!((&teacher.pictures, teacher.own), (&student.pictures, student.own));
                // Means over whole pictures tell which they are and what was done to them.
                let means = |batch: &Batch| -> Vec<f32> {
                    let len = batch.shape[2] * batch.shape[3];
                    let planes = batch.pixels.chunks_exact(len);
                    planes.map(|plane| plane.iter().sum::<f32>() / len as f32).collect()
                };
                let apart =
                    means(student).into_iter().zip(means(&teacher)).map(|(a, b)| (a - b).abs());
                let apart = apart.fold(0.0, f32::max);
                assert!(apart < 0.4, "{augment} {side:?}: {apart}");
            }
        }
    }
}

#[test]
fn a_lost_picture_ends_the_pass_where_it_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path());
    let pictures = pictures(dir.path(), CacheSize::Bytes(0));
    let whole = batches(&pictures, &loading(Order::Sequential), 2);
    // The eleventh picture, in the third batch of four.
    std::fs::remove_file(dir.path().join("b/1.png")).unwrap();
    for threads in [1, 4] {
        let mut some = Batches::on_threads(pictures.clone(), loading(Order::Sequential), threads);
        for batch in &whole[..2] {
            assert!(some.next().unwrap().unwrap() == *batch);
        }
        let error = some.next().unwrap().unwrap_err().to_string();
        assert!(error.contains("b/1.png") && error.contains("restore it"), "{error}");
        assert!(some.next().is_none());
    }
}

#[test]
fn no_pictures_are_no_batches() {
    let none = Arc::new(Pictures::new(preprocess()));
    let mut batches = Batches::start(none, loading(Order::Sequential));
    assert!(batches.next().is_none());
    assert_eq!(batches.waited(), Duration::ZERO);
}
