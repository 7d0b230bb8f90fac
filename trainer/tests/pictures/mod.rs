//! A data set for tests of the real program.

use std::path::Path;

/// Writes `count` pictures each of the classes `bright` and `dark`: noise of 16×16 pixels.
pub(crate) fn write(root: &Path, count: u32) {
    for (class, floor) in [("bright", 100u32), ("dark", 0)] {
        std::fs::create_dir_all(root.join(class)).unwrap();
        for i in 0..count {
            let noise = |x: u32, y: u32| (x * 7919 + y * 104_729 + i * 1_299_709) % 150;
            let pixel = |x, y| image::Rgb([(floor + noise(x, y)) as u8; 3]);
            let path = root.join(class).join(format!("{i}.png"));
            image::RgbImage::from_fn(16, 16, pixel).save(path).unwrap();
        }
    }
}
