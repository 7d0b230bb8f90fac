//! Forged models: what the reader accepts, every instruction set runs without a panic.

#[path = "../../crates/artifact/tests/small_model/mod.rs"]
mod small_model;

use artifact::layout::{ALIGN, ConvPlane};
use artifact::patch::{self, Class, Patch, PatchWriter};
use artifact::writer::seal;
use artifact::{Dtype, Op, PoolKind, Requant};
use runtime::preprocess::{RgbView, for_each_pixel};
use runtime::teach::{PatchError, Taught};
use runtime::{AlignedBuf, ArtifactError, Isa, Model, Session, SessionError};
use small_model::{AVERAGE_POOL, DENSE, Noise, OTHER_RESIDUAL, Parts, STEM};

/// Most activation memory and multiply-adds that a forged model may ask of a test.
const ARENA_LIMIT: usize = 1 << 20;
const WORK_LIMIT: u64 = 1 << 24;

/// Runs a model on every instruction set, in int8 with the same bytes; `false` where it announces too much work.
fn runs(model: &Model<'_>) -> bool {
    // A window is as large as its map at most.
    let work = |op: Op| op.macs() + (op.input().shape.len() * op.output().shape.len()) as u64;
    if model.arena_len() > ARENA_LIMIT || model.ops().map(work).sum::<u64>() > WORK_LIMIT {
        return false;
    }
    let picture: Vec<u8> = (0..5 * 7 * 3).map(|i| (i * 37) as u8).collect();
    let view = RgbView::new(&picture, 7, 5, 7 * 3).unwrap();
    let mut arena = AlignedBuf::zeroed(model.arena_len());
    let is_exact = model.dtype() == Dtype::I8 && !model.has_float_layers();
    let mut bytes = None;
    for isa in Isa::available() {
        let mut session = Session::new(model, &mut arena).unwrap().with_isa(isa);
        // Of whatever the memory holds.
        assert_eq!(session.distance().is_some(), model.has_known());
        let mut input = session.input_mut();
        for_each_pixel(&model.meta().preprocess, view, |i, rgb| input.set_pixel(i, rgb));
        let logits = session.run();
        let classes = logits.iter().count();
        if let Some(found) = logits.as_i8().filter(|_| is_exact) {
            assert_eq!(bytes.get_or_insert_with(|| found.to_vec()), found, "{}", isa.name());
        }
        assert_eq!(classes, model.classes());
        assert_eq!(classes, model.labels().count());
        assert_eq!(session.distance().is_some(), model.has_known());
    }
    true
}

fn mutate(file: &mut [u8], records: core::ops::Range<usize>, noise: &mut Noise) {
    for _ in 0..=noise.below(3) {
        let at = match noise.below(8) {
            0 => noise.below(64),
            1 | 2 => records.end + noise.below(file.len() - records.end),
            _ => records.start + noise.below(records.len()),
        };
        file[at] = match noise.below(5) {
            0 => noise.byte(),
            1 => file[at] ^ 1 << noise.below(8),
            2 => file[at].wrapping_add(1),
            3 => file[at].wrapping_sub(1),
            _ => [0, 1, 0x7f, 0x80, 0xff][noise.below(5)],
        };
    }
    seal(file);
}

#[test]
fn mutated_models_are_refused_or_run() {
    let sound: Vec<Vec<u8>> = Parts::all().iter().map(|parts| parts.file().unwrap()).collect();
    let mut noise = Noise(20_000);
    let (mut accepted, mut refused) = (0, 0);
    for i in 0..20_000 {
        let whole = &sound[i % sound.len()];
        let records = 64..64 + u32::from_le_bytes(whole[12..16].try_into().unwrap()) as usize;
        let mut file = AlignedBuf::from_slice(whole);
        mutate(&mut file, records, &mut noise);
        match Model::new(&file) {
            Ok(model) => accepted += usize::from(runs(&model)),
            Err(_) => refused += 1,
        }
    }
    // The mutations must reach both the checks and what lies behind them.
    assert!(accepted > 1000 && refused > 1000, "{accepted} accepted, {refused} refused");
}

/// Of a model that tells unknown pictures.
fn sound_patch(model: &Model<'_>) -> Vec<u8> {
    let mut buffer = [0; 512];
    let mut writer = PatchWriter::new(model.identity(), &mut buffer).unwrap();
    let prototype = vec![0x80; model.features().unwrap()];
    for (label, replaces) in [("crow", Some(1)), ("magpie", None), ("jay", None)] {
        writer.push(&Class { label, replaces, frames: 8, prototype: &prototype }).unwrap();
    }
    writer.finish_signed(|_| [7; 64]).unwrap().to_vec()
}

#[test]
fn mutated_patches_are_refused_or_used() {
    let file = AlignedBuf::from_slice(&Parts::with_known(4).file().unwrap());
    let model = Model::new(&file).unwrap();
    let mut arena = AlignedBuf::zeroed(model.arena_len());
    let session = Session::new(&model, &mut arena).unwrap();
    let sound = sound_patch(&model);
    assert!(Taught::new(&model, &Patch::parse(&sound).unwrap()).is_ok());
    let mut noise = Noise(40_000);
    let (mut used, mut refused) = (0, 0);
    for _ in 0..40_000 {
        let mut bytes = sound.clone();
        for _ in 0..=noise.below(2) {
            let at = noise.below(bytes.len());
            match noise.below(6) {
                0 => bytes[at] ^= 1 << noise.below(8),
                1 => bytes[at] = noise.byte(),
                2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][noise.below(5)],
                3 => bytes[at] = bytes[at].wrapping_add(1),
                4 => bytes.truncate(at.max(1)),
                _ => bytes.extend_from_within(at..),
            }
        }
        patch::seal(&mut bytes);
        let taught = Patch::parse(&bytes).ok().and_then(|p| Taught::new(&model, &p).ok());
        match taught {
            Some(taught) => {
                let scores = session.taught(&taught).unwrap();
                assert_eq!(scores.iter().count(), taught.len());
                assert!((0..taught.len()).all(|index| !taught.label(index).is_empty()));
                used += 1;
            }
            None => refused += 1,
        }
    }
    assert!(used > 1000 && refused > 1000, "{used} used, {refused} refused");
}

#[test]
fn patches_that_were_cut_or_damaged_are_refused() {
    let file = AlignedBuf::from_slice(&Parts::with_known(4).file().unwrap());
    let sound = sound_patch(&Model::new(&file).unwrap());
    for len in 0..sound.len() {
        let refusal = Patch::parse(&sound[..len]).unwrap_err();
        assert!(matches!(refusal, PatchError::Truncated { .. }), "{len}: {refusal}");
    }
    let content = sound.len() - 64;
    for bit in 0..content * 8 {
        let mut bytes = sound.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Patch::parse(&bytes).is_err(), "bit {bit}");
    }
    let longer = [&sound[..], &[0]].concat();
    assert_eq!(Patch::parse(&longer).unwrap_err(), PatchError::TrailingBytes { extra: 1 });
    assert_eq!(Patch::parse(&file).unwrap_err(), PatchError::BadMagic);
}

#[test]
fn sound_models_run() {
    for parts in Parts::all() {
        let file = AlignedBuf::from_slice(&parts.file().unwrap());
        assert!(runs(&Model::new(&file).unwrap()));
    }
}

#[test]
fn weights_that_are_no_numbers_run() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        for fill in [0xff, 0x7f, 0x7c, 0x80] {
            let mut parts = Parts::sound(dtype, 16);
            let weights = parts.conv(STEM).weights;
            parts.blob[..weights.len as usize].fill(fill);
            let file = AlignedBuf::from_slice(&parts.file().unwrap());
            assert!(runs(&Model::new(&file).unwrap()));
        }
    }
}

#[test]
fn extreme_parameters_give_the_same_bytes_everywhere() {
    let taps = 3 * 3 * 3;
    let limit = i32::MAX - taps * (1 << 14) - 1;
    for nr in [4, 16] {
        for bias in [limit, -limit] {
            for (multiplier, shift) in [(i32::MAX, 1), (i32::MAX, 62), (1, 1), (0, 62)] {
                let mut parts = Parts::sound(Dtype::I8, nr);
                let params = parts.conv(STEM).params;
                for channel in 0..nr {
                    let mut set = |plane: ConvPlane, value| {
                        parts.set_param(params, plane as usize, channel, value);
                    };
                    set(ConvPlane::Bias, bias);
                    set(ConvPlane::Multiplier, multiplier);
                    set(ConvPlane::Shift, shift);
                }
                let file = AlignedBuf::from_slice(&parts.file().unwrap());
                let model = Model::new(&file).unwrap();
                let mut arena = AlignedBuf::zeroed(model.arena_len());
                let mut want: Option<Vec<f32>> = None;
                for isa in Isa::available() {
                    let mut session = Session::new(&model, &mut arena).unwrap().with_isa(isa);
                    for i in 0..session.input_mut().len() {
                        session.input_mut().set(i, i as f32 - 20.0);
                    }
                    let mut seen = Vec::new();
                    session.run_observed(|o| seen.extend(o.iter()));
                    let want = want.get_or_insert_with(|| seen.clone());
                    assert_eq!(*want, seen, "{} bias {bias}", isa.name());
                }
            }
        }
    }
}

#[test]
fn scales_at_the_ends_of_f32_run() {
    for scale in [f32::MIN_POSITIVE, f32::MAX] {
        let mut parts = Parts::sound(Dtype::I8, 4);
        parts.input.quant.scale = scale;
        parts.conv(STEM).input = parts.input;
        parts.conv(DENSE).output.quant.scale = scale;
        parts.output = parts.ops[DENSE].output();
        let file = AlignedBuf::from_slice(&parts.file().unwrap());
        assert!(runs(&Model::new(&file).unwrap()));
    }
}

#[test]
fn average_of_extremes_over_a_large_window_is_exact() {
    // −128 with a zero point of 127 everywhere: the largest sum that a pixel can add.
    let side = 128u16;
    let mut parts = Parts::sound(Dtype::I8, 4);
    let shape = artifact::Shape::new(side, side, 2);
    parts.input.shape = shape;
    parts.input.quant.zero_point = 127;
    (parts.preprocess.height, parts.preprocess.width) = (side, side);
    parts.output.offset = artifact::layout::activation_bytes(shape, Dtype::I8, 4).unwrap() as u32;
    parts.output.quant.zero_point = 127;
    parts.arena_len = parts.output.offset as usize + ALIGN;
    let (input, output) = (parts.input, parts.output);
    let pool = parts.pool(AVERAGE_POOL);
    pool.kind = PoolKind::Average;
    (pool.input, pool.output) = (input, output);
    pool.filter = [side; 2];
    pool.stride = [1; 2];
    pool.requant = Requant::new(1.0 / f64::from(u32::from(side) * u32::from(side))).unwrap();
    parts.ops = vec![parts.ops[AVERAGE_POOL]];
    parts.blob.clear();
    let file = AlignedBuf::from_slice(&parts.file().unwrap());
    let model = Model::new(&file).unwrap();
    let mut arena = AlignedBuf::zeroed(model.arena_len());
    for isa in Isa::available() {
        let mut session = Session::new(&model, &mut arena).unwrap().with_isa(isa);
        for i in 0..session.input_mut().len() {
            session.input_mut().set(i, f32::NEG_INFINITY);
        }
        assert_eq!(session.run().as_i8(), Some(&[-128, -128][..]), "{}", isa.name());
    }
}

#[test]
fn arena_too_small_or_misaligned() {
    let file = AlignedBuf::from_slice(&Parts::sound(Dtype::I8, 4).file().unwrap());
    let model = Model::new(&file).unwrap();
    let needed = model.arena_len();
    let mut arena = AlignedBuf::zeroed(needed + ALIGN);
    for have in [0, 1, needed - 1] {
        let error = Session::new(&model, &mut arena[..have]).unwrap_err();
        assert_eq!(error, SessionError::ArenaTooSmall { needed, have });
    }
    for offset in [1, 4, 32, 63] {
        let error = Session::new(&model, &mut arena[offset..]).unwrap_err();
        assert_eq!(error, SessionError::ArenaMisaligned);
    }
}

#[test]
fn misaligned_model() {
    let sound = Parts::sound(Dtype::I8, 4).file().unwrap();
    let mut room = AlignedBuf::zeroed(sound.len() + ALIGN);
    for offset in [1, 4, 63] {
        let bytes = &mut room[offset..offset + sound.len()];
        bytes.copy_from_slice(&sound);
        assert_eq!(Model::new(bytes).unwrap_err(), ArtifactError::Misaligned { offset });
    }
}

#[test]
fn residual_with_every_shift_runs() {
    for shift in 0..=24 {
        let mut parts = Parts::sound(Dtype::I8, 16);
        if let Some(residual) = &mut parts.conv(OTHER_RESIDUAL).residual {
            residual.shift = shift;
        }
        let params = parts.conv(OTHER_RESIDUAL).params;
        for channel in 0..16 {
            let largest = artifact::MAX_RESIDUAL_FACTOR - 1;
            parts.set_param(params, ConvPlane::Residual as usize, channel, largest);
        }
        let file = AlignedBuf::from_slice(&parts.file().unwrap());
        assert!(runs(&Model::new(&file).unwrap()));
    }
}
