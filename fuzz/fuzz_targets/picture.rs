//! Any bytes as a picture: refused, or upright RGB that every preprocessing reads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runtime::preprocess::resize_rgb8;

fuzz_target!(|data: &[u8]| {
    let Ok(picture) = picture::decode(data) else { return };
    let view = picture.view().expect("a decoded picture has pixels");
    let p = runtime::Preprocess::normalized(8, 8, [0.5; 3], [0.5; 3]);
    resize_rgb8(&p, view, &mut [0; 8 * 8 * 3]).expect("the output has the right size");
});
