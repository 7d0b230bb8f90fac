//! Any bytes give `Ok` or a clear `Err`: files that are cut, damaged or forged.

mod small_model;

use artifact::header::{OLDEST_VERSION, SIGNATURE_LEN, VERSION};
use artifact::layout::{ALIGN, ConvPlane};
use artifact::writer::{rewrite, seal};
use artifact::{Artifact, ArtifactError, Cast, Dtype, Op, Place, PoolKind, Quant, Shape};
use small_model::{
    AFFINE, AVERAGE_POOL, DENSE, IN_PLACE_RESIDUAL, MAX_POOL, OTHER_RESIDUAL, Parts, STEM,
};

fn sound() -> Parts {
    Parts::sound(Dtype::I8, 4)
}

fn file() -> Vec<u8> {
    sound().file().unwrap()
}

/// The error of a small int8 model after `spoil`.
fn refused(spoil: impl FnOnce(&mut Parts)) -> ArtifactError {
    refused_of(sound(), spoil)
}

/// That of another.
fn refused_of(mut parts: Parts, spoil: impl FnOnce(&mut Parts)) -> ArtifactError {
    spoil(&mut parts);
    parts.file().expect_err("a spoiled model was accepted")
}

/// Parses a file with bytes overwritten and the checksum made right again.
fn forged(at: usize, bytes: &[u8]) -> Result<(), ArtifactError> {
    let mut file = file();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    seal(&mut file);
    Artifact::parse(&file).map(|_| ())
}

/// Position of a label's text in the file.
fn find(file: &[u8], text: &str) -> usize {
    file.windows(text.len()).position(|w| w == text.as_bytes()).unwrap()
}

#[test]
fn sound_models_are_accepted() {
    for parts in Parts::all() {
        let file = parts.file().unwrap();
        let artifact = Artifact::parse(&file).unwrap();
        assert_eq!(artifact.ops().collect::<Vec<_>>(), parts.ops);
        assert_eq!(artifact.labels().collect::<Vec<_>>(), ["cat", "dog"]);
    }
}

/// Whether a model is grey is no byte of its own.
#[test]
fn the_inputs_channels_say_whether_it_is_grey() {
    let parts = sound();
    let file = parts.file().unwrap();
    let meta = *Artifact::parse(&file).unwrap().meta();
    assert_eq!(meta.preprocess.grey, meta.input.shape.c == 1);
    let mut other = parts;
    other.preprocess.grey ^= true;
    assert!(other.file().unwrap() == file);
}

#[test]
fn no_bytes_and_eight_bytes() {
    let whole = file();
    for len in [0, 8] {
        let error = Artifact::parse(&whole[..len]).unwrap_err();
        assert_eq!(error, ArtifactError::Truncated { needed: 64, have: len });
    }
}

#[test]
fn truncated_at_every_byte() {
    for parts in Parts::all() {
        let file = parts.file().unwrap();
        for len in 0..file.len() {
            let error = Artifact::parse(&file[..len]).unwrap_err();
            assert!(matches!(error, ArtifactError::Truncated { have, .. } if have == len));
        }
    }
}

#[test]
fn truncated_at_every_byte_and_sealed() {
    // A forger who cuts the file repairs the checksum, too.
    let whole = file();
    for len in 0..whole.len() {
        let mut file = whole[..len].to_vec();
        seal(&mut file);
        assert!(Artifact::parse(&file).is_err(), "{len} bytes");
    }
}

#[test]
fn trailing_bytes() {
    for extra in [1, 63, 64, 4096] {
        let mut file = file();
        file.resize(file.len() + extra, 0);
        seal(&mut file);
        assert_eq!(Artifact::parse(&file).unwrap_err(), ArtifactError::TrailingBytes { extra });
    }
}

#[test]
fn every_single_bit_flip() {
    for parts in Parts::all() {
        let mut file = parts.file().unwrap();
        for bit in 0..file.len() * 8 {
            file[bit / 8] ^= 1 << (bit % 8);
            assert!(Artifact::parse(&file).is_err(), "bit {} of byte {}", bit % 8, bit / 8);
            file[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn every_byte_of_the_records_forged() {
    let mut file = file();
    let end = 64 + Artifact::parse(&file).unwrap().header().records_len;
    for at in 64..end {
        let old = file[at];
        for new in 0..=u8::MAX {
            file[at] = new;
            seal(&mut file);
            if let Ok(artifact) = Artifact::parse(&file) {
                assert_eq!(artifact.ops().count(), artifact.header().op_count);
                assert_eq!(artifact.labels().count(), 2);
            }
        }
        file[at] = old;
    }
}

#[test]
fn bad_magic() {
    assert_eq!(forged(0, b"\x89PNG\r\n\x1a\n"), Err(ArtifactError::BadMagic));
    assert_eq!(forged(5, b"\n\x1a\0"), Err(ArtifactError::BadMagic));
}

#[test]
fn foreign_version() {
    for found in [0, OLDEST_VERSION - 1, VERSION + 1, 0x0100, u16::MAX] {
        let error = forged(8, &found.to_le_bytes());
        assert_eq!(error, Err(ArtifactError::UnsupportedVersion { found, supported: VERSION }));
    }
}

#[test]
fn wrong_endianness() {
    // Each length that can be checked against another, with its bytes reversed.
    for at in [12, 16, 20] {
        let mut bytes: [u8; 4] = file()[at..at + 4].try_into().unwrap();
        bytes.reverse();
        assert!(forged(at, &bytes).is_err(), "field at {at}");
    }
}

#[test]
fn unknown_dtype_and_panel_width() {
    for bad in [4, 255] {
        assert_eq!(forged(10, &[bad]), Err(ArtifactError::Header { field: 10 }));
    }
    for bad in [0, 1, 8, 17, 255] {
        assert_eq!(forged(11, &[bad]), Err(ArtifactError::Header { field: 11 }));
    }
    // Known, but not what the weights were packed for.
    assert!(forged(10, &[0]).is_err());
    assert!(forged(10, &[2]).is_err());
    let error = forged(11, &[16]);
    assert_eq!(error, Err(ArtifactError::Geometry { op: STEM }), "a column is no scratch there");
}

#[test]
fn wrong_checksum() {
    let mut file = file();
    file[28..36].fill(0);
    assert_eq!(Artifact::parse(&file).unwrap_err(), ArtifactError::Checksum);
}

#[test]
fn reserved_header_bytes() {
    for field in 36..64 {
        assert_eq!(forged(field, &[2]), Err(ArtifactError::Header { field }));
    }
    for field in 37..64 {
        assert_eq!(forged(field, &[1]), Err(ArtifactError::Header { field }));
    }
}

#[test]
fn signatures_end_the_file_or_are_none() {
    let whole = file();
    // A signature that is announced and missing.
    let (needed, have) = (whole.len() + SIGNATURE_LEN, whole.len());
    assert_eq!(forged(36, &[1]), Err(ArtifactError::Truncated { needed, have }));
    let sign = |bytes: &[u8]| [bytes.len() as u8; SIGNATURE_LEN];
    let signed = rewrite(&whole, Some(sign)).unwrap();
    let artifact = Artifact::parse(&signed).unwrap();
    assert!(artifact.header().is_signed);
    assert_eq!(artifact.header().content_len(), whole.len());
    assert_eq!(signed[whole.len()..], sign(&whole));
    // The signature is not part of the checksum, so that it can be made of it.
    let mut other = signed.clone();
    other[whole.len() + 3] ^= 1;
    assert!(Artifact::parse(&other).is_ok());
    // Signed again, and not any more.
    let again = rewrite(&signed, Some(|_: &[u8]| [7; SIGNATURE_LEN])).unwrap();
    assert_eq!((again.len(), again[whole.len()]), (signed.len(), 7));
    assert_eq!(rewrite(&again, None::<fn(&[u8]) -> _>).unwrap(), whole);
    // Version 4 had none, and is read without one.
    for (flag, result) in [(0, Ok(())), (1, Err(ArtifactError::Header { field: 36 }))] {
        let mut old = whole.clone();
        old[8..10].copy_from_slice(&4u16.to_le_bytes());
        old[36] = flag;
        seal(&mut old);
        assert_eq!(Artifact::parse(&old).map(|_| ()), result);
    }
}

#[test]
fn misaligned_address() {
    let file = file();
    let mut room = vec![0; file.len() + 2 * ALIGN];
    let aligned = room.as_ptr().addr().wrapping_neg() % ALIGN;
    for offset in 0..ALIGN {
        let at = aligned + offset;
        room[at..at + file.len()].copy_from_slice(&file);
        let bytes = &room[at..at + file.len()];
        match Artifact::new_checked(bytes) {
            Ok(_) => assert_eq!(offset, 0),
            Err(error) => assert_eq!(error, ArtifactError::Misaligned { offset }),
        }
        assert!(Artifact::parse(bytes).is_ok());
    }
}

#[test]
fn huge_header_fields() {
    let huge = [u32::MAX, u32::MAX - 1, u32::MAX - 63, 1 << 31, (1 << 31) - 1, 1 << 30];
    for value in huge {
        for at in [12, 16, 20] {
            let error = forged(at, &value.to_le_bytes()).unwrap_err();
            assert!(
                matches!(error, ArtifactError::Header { .. } | ArtifactError::Truncated { .. }),
                "{value} at {at}: {error}"
            );
        }
    }
    for value in [u32::MAX, 1 << 31, (1 << 31) - 1] {
        assert_eq!(forged(24, &value.to_le_bytes()), Err(ArtifactError::Header { field: 24 }));
    }
}

#[test]
fn operator_count() {
    assert_eq!(forged(16, &[0; 4]), Err(ArtifactError::NoOutput));
    assert_eq!(forged(16, &6u32.to_le_bytes()), Err(ArtifactError::NoOutput));
    assert_eq!(forged(16, &8u32.to_le_bytes()), Err(ArtifactError::Record { op: 7 }));
    assert!(matches!(forged(16, &2000u32.to_le_bytes()), Err(ArtifactError::Header { .. })));
    let error = refused(|p| p.ops = vec![p.ops[STEM]; artifact::MAX_OPS + 1]);
    assert_eq!(error, ArtifactError::Header { field: 16 });
    assert_eq!(refused(|p| p.ops.clear()), ArtifactError::NoOutput);
}

#[test]
fn arena_too_small() {
    let needed = sound().arena_len;
    for len in [0, 1, 63, 64, needed - 64, needed - 1] {
        let error = refused(|p| p.arena_len = len);
        assert!(matches!(error, ArtifactError::Operand { .. } | ArtifactError::Meta), "{error}");
    }
}

#[test]
fn spans_that_overlap() {
    let error = refused(|p| p.conv(STEM).params = p.conv(STEM).weights);
    assert_eq!(error, ArtifactError::Weights { op: STEM });
    let error = refused(|p| {
        let weights = p.conv(OTHER_RESIDUAL).weights;
        p.conv(IN_PLACE_RESIDUAL).weights = weights;
    });
    assert_eq!(error, ArtifactError::Weights { op: IN_PLACE_RESIDUAL });
}

#[test]
fn spans_that_leave_holes() {
    let error = refused(|p| {
        p.conv(DENSE).params.offset += 64;
        p.blob.extend([0; 64]);
    });
    assert_eq!(error, ArtifactError::Weights { op: DENSE });
    // A blob that goes on after its last range.
    let error = refused(|p| p.blob.extend([0; 64]));
    assert_eq!(error, ArtifactError::Weights { op: DENSE + 1 });
    // Data hidden in the gap between two ranges.
    let error = refused(|p| {
        let weights = p.conv(STEM).weights;
        p.blob[weights.len as usize] = 1;
    });
    assert_eq!(error, ArtifactError::Weights { op: STEM });
}

#[test]
fn spans_that_point_past_the_end() {
    for offset in [64, 1 << 20, 1 << 31, u32::MAX - 63, u32::MAX] {
        let error = refused(|p| p.conv(STEM).weights.offset = offset);
        assert_eq!(error, ArtifactError::Weights { op: STEM });
    }
    for len in [0, 1, 1 << 20, u32::MAX] {
        let error = refused(|p| p.conv(STEM).weights.len = len);
        assert_eq!(error, ArtifactError::Weights { op: STEM });
        let error = refused(|p| p.affine(AFFINE).params.len = len);
        assert_eq!(error, ArtifactError::Weights { op: AFFINE });
    }
    let error = refused(|p| p.blob.truncate(p.blob.len() - 64));
    assert_eq!(error, ArtifactError::Weights { op: DENSE });
}

#[test]
fn shape_products_that_overflow() {
    let huge = Shape::new(u16::MAX, u16::MAX, u16::MAX);
    assert_eq!(
        refused(|p| {
            p.input.shape = huge;
            (p.preprocess.height, p.preprocess.width) = (huge.h, huge.w);
        }),
        ArtifactError::Meta
    );
    assert_eq!(refused(|p| p.conv(STEM).output.shape = huge), ArtifactError::Operand { op: STEM });
    assert_eq!(refused(|p| p.output.shape = huge), ArtifactError::NoOutput);
    let wrap = Shape::new(1 << 15, 1 << 15, 4); // 2^32 elements
    assert_eq!(refused(|p| p.conv(STEM).output.shape = wrap), ArtifactError::Operand { op: STEM });
}

#[test]
fn dimensions_zero_and_largest() {
    for op in STEM..=DENSE {
        for axis in 0..3 {
            for size in [0, u16::MAX] {
                for of_output in [false, true] {
                    let error = refused(|p| {
                        let place = match (&mut p.ops[op], of_output) {
                            (Op::Conv2d(o), false) => &mut o.input,
                            (Op::Conv2d(o), true) => &mut o.output,
                            (Op::Pool2d(o), false) => &mut o.input,
                            (Op::Pool2d(o), true) => &mut o.output,
                            (Op::Affine(o), false) => &mut o.input,
                            (Op::Affine(o), true) => &mut o.output,
                            (Op::Cast(_), _) => unreachable!("only in mixed models"),
                        };
                        match axis {
                            0 => place.shape.h = size,
                            1 => place.shape.w = size,
                            _ => place.shape.c = size,
                        }
                    });
                    assert_eq!(error, ArtifactError::Operand { op });
                }
            }
        }
    }
}

#[test]
fn operand_read_before_it_is_written() {
    let b = sound().ops[OTHER_RESIDUAL].output();
    assert_eq!(
        refused(|p| p.conv(OTHER_RESIDUAL).input = b),
        ArtifactError::Operand { op: OTHER_RESIDUAL }
    );
    let error = refused(|p| p.ops.swap(STEM, OTHER_RESIDUAL));
    assert_eq!(error, ArtifactError::Operand { op: STEM });
    // The right memory, read with another meaning.
    let error = refused(|p| p.conv(OTHER_RESIDUAL).input.quant.zero_point += 1);
    assert_eq!(error, ArtifactError::Operand { op: OTHER_RESIDUAL });
    // A residual that nobody wrote.
    let error = refused(|p| {
        let place = p.output;
        if let Some(residual) = &mut p.conv(IN_PLACE_RESIDUAL).residual {
            residual.input = place;
        }
    });
    assert_eq!(error, ArtifactError::Operand { op: IN_PLACE_RESIDUAL });
}

#[test]
fn output_over_live_input() {
    for (nr, shift) in [(4, 0), (16, 0), (16, 64)] {
        let error = refused_of(Parts::sound(Dtype::I8, nr), |p| {
            let op = p.conv(OTHER_RESIDUAL);
            op.output.offset = op.input.offset + shift;
        });
        assert_eq!(error, ArtifactError::Operand { op: OTHER_RESIDUAL });
    }
    let error = refused(|p| {
        let op = p.pool(MAX_POOL);
        op.output.offset = op.input.offset;
    });
    assert_eq!(error, ArtifactError::Operand { op: MAX_POOL });
    // An affine may work in place, but not half over itself.
    let padded = Parts::sound(Dtype::I8, 16);
    let error = refused_of(padded, |p| p.affine(AFFINE).output.offset += 64);
    assert_eq!(error, ArtifactError::Operand { op: AFFINE });
}

#[test]
fn operand_overwritten_before_its_last_use() {
    // The stem's output is still wanted as a residual when something else is laid over it. Maps with
    // a pad pixel are longer than the alignment, so that they can overlap in part.
    let error = refused_of(Parts::sound(Dtype::I8, 16), |p| {
        let stem = p.ops[STEM].output();
        let end = p.arena_len as u32;
        p.arena_len *= 2;
        p.conv(OTHER_RESIDUAL).output.offset = end;
        p.conv(IN_PLACE_RESIDUAL).input.offset = end;
        p.conv(IN_PLACE_RESIDUAL).output.offset = stem.offset + 64;
    });
    assert_eq!(error, ArtifactError::Operand { op: IN_PLACE_RESIDUAL });
}

#[test]
fn misplaced_activations() {
    for offset in [1, 4, 63, 1 << 31, u32::MAX - 63, u32::MAX] {
        let error = refused(|p| p.conv(STEM).output.offset = offset);
        assert_eq!(error, ArtifactError::Operand { op: STEM });
        assert_eq!(refused(|p| p.input.offset = offset), ArtifactError::Meta);
    }
}

#[test]
fn stride_zero_and_empty_filter() {
    for axis in 0..2 {
        for op in [STEM, DENSE] {
            let error = refused(|p| p.conv(op).stride[axis] = 0);
            assert_eq!(error, ArtifactError::Geometry { op });
            let error = refused(|p| p.conv(op).filter[axis] = 0);
            assert_eq!(error, ArtifactError::Geometry { op });
        }
        for op in [MAX_POOL, AVERAGE_POOL] {
            assert_eq!(refused(|p| p.pool(op).stride[axis] = 0), ArtifactError::Geometry { op });
            assert_eq!(refused(|p| p.pool(op).filter[axis] = 0), ArtifactError::Geometry { op });
        }
    }
}

#[test]
fn padding_as_large_as_the_filter() {
    // Two more rows of padding and an output that fits them, so that only the rule objects.
    for side in 0..4 {
        let error = refused(|p| {
            let op = p.pool(MAX_POOL);
            let pad = &mut op.padding;
            let (pad, size) = match side {
                0 => (&mut pad.top, &mut op.output.shape.h),
                1 => (&mut pad.left, &mut op.output.shape.w),
                2 => (&mut pad.bottom, &mut op.output.shape.h),
                _ => (&mut pad.right, &mut op.output.shape.w),
            };
            *pad = 2;
            *size += 1;
        });
        assert_eq!(error, ArtifactError::Geometry { op: MAX_POOL });
    }
    let error = refused(|p| p.conv(STEM).padding.top = 255);
    assert_eq!(error, ArtifactError::Geometry { op: STEM });
}

#[test]
fn window_larger_than_the_map() {
    for filter in [5, 1000, u16::MAX] {
        let error = refused(|p| p.pool(MAX_POOL).filter = [filter; 2]);
        assert_eq!(error, ArtifactError::Geometry { op: MAX_POOL });
        let error = refused(|p| p.conv(DENSE).filter = [filter; 2]);
        assert_eq!(error, ArtifactError::Geometry { op: DENSE });
    }
}

#[test]
fn output_of_the_wrong_size() {
    let error = refused(|p| p.conv(STEM).output.shape.h = 3);
    assert_eq!(error, ArtifactError::Geometry { op: STEM });
    let error = refused(|p| p.pool(MAX_POOL).output.shape.w = 1);
    assert_eq!(error, ArtifactError::Geometry { op: MAX_POOL });
    // Offset 128 leaves room, so that only the sizes differ.
    let error = refused(|p| p.affine(AFFINE).output = p.ops[OTHER_RESIDUAL].output());
    assert!(matches!(error, ArtifactError::Operand { .. }), "{error}");
    let error = refused(|p| {
        let mut output = p.ops[OTHER_RESIDUAL].output();
        output.shape.h = 3;
        p.affine(AFFINE).output = output;
    });
    assert_eq!(error, ArtifactError::Geometry { op: AFFINE });
}

#[test]
fn channels_that_disagree_with_the_weights() {
    let error = refused(|p| p.conv(OTHER_RESIDUAL).output.shape.c = 3);
    assert!(matches!(error, ArtifactError::Geometry { op: OTHER_RESIDUAL }), "{error}");
    let error = refused(|p| p.conv(STEM).output.shape.c = 5);
    assert_eq!(error, ArtifactError::Weights { op: STEM });
    // Five input channels make a second group of four, for which there are no weights.
    let error = refused(|p| {
        p.input.shape.c = 5;
        p.arena_len = p.arena_len.next_multiple_of(64) + 128;
        p.input.offset = p.arena_len as u32 - 128;
        p.conv(STEM).input = p.input;
    });
    assert_eq!(error, ArtifactError::Weights { op: STEM });
    let error = refused(|p| p.pool(MAX_POOL).output.shape.c = 3);
    assert_eq!(error, ArtifactError::Geometry { op: MAX_POOL });
}

#[test]
fn residual_of_another_shape() {
    // The picture has as many pixels as the stem's output, but fewer channels.
    let error = refused(|p| {
        let place = p.input;
        if let Some(residual) = &mut p.conv(OTHER_RESIDUAL).residual {
            residual.input = place;
        }
    });
    assert_eq!(error, ArtifactError::Geometry { op: OTHER_RESIDUAL });
}

#[test]
fn scales_that_are_no_steps() {
    let bad = [0.0, -0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-40];
    for scale in bad {
        assert_eq!(refused(|p| p.input.quant.scale = scale), ArtifactError::Meta);
        let error = refused(|p| p.conv(STEM).output.quant.scale = scale);
        assert_eq!(error, ArtifactError::Operand { op: STEM });
        let error = refused(|p| {
            if let Some(residual) = &mut p.conv(OTHER_RESIDUAL).residual {
                residual.input.quant.scale = scale;
            }
        });
        assert_eq!(error, ArtifactError::Operand { op: OTHER_RESIDUAL });
    }
}

#[test]
fn preprocessing_that_is_no_number_or_empty() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(refused(|p| p.preprocess.scale[1] = bad), ArtifactError::Meta);
        assert_eq!(refused(|p| p.preprocess.offset[2] = bad), ArtifactError::Meta);
    }
    assert_eq!(refused(|p| p.preprocess.scale[0] = 0.0), ArtifactError::Meta);
    for size in [0, 3, 5, u16::MAX] {
        assert_eq!(refused(|p| p.preprocess.height = size), ArtifactError::Meta);
        assert_eq!(refused(|p| p.preprocess.width = size), ArtifactError::Meta);
    }
}

#[test]
fn shifts_and_multipliers_out_of_range() {
    let set = |plane: ConvPlane, value| {
        refused(move |p: &mut Parts| {
            let params = p.conv(STEM).params;
            p.set_param(params, plane as usize, 1, value);
        })
    };
    let error = ArtifactError::Quantization { op: STEM };
    for shift in [0, -1, 63, 64, 256 + 30, i32::MIN, i32::MAX] {
        assert_eq!(set(ConvPlane::Shift, shift), error, "{shift}");
    }
    for multiplier in [-1, i32::MIN] {
        assert_eq!(set(ConvPlane::Multiplier, multiplier), error);
    }
    for factor in [-1, i32::MIN, artifact::MAX_RESIDUAL_FACTOR, i32::MAX] {
        assert_eq!(set(ConvPlane::Residual, factor), error);
    }
    for shift in [25, 31, 32, 255] {
        let error = refused(|p| {
            if let Some(residual) = &mut p.conv(OTHER_RESIDUAL).residual {
                residual.shift = shift;
            }
        });
        assert_eq!(error, ArtifactError::Quantization { op: OTHER_RESIDUAL });
        let error = refused(|p| p.affine(AFFINE).shift = shift);
        assert_eq!(error, ArtifactError::Quantization { op: AFFINE });
    }
    assert_eq!(refused(|p| p.affine(AFFINE).shift = 0), ArtifactError::Quantization { op: AFFINE });
    for shift in [0, 63, 255] {
        let error = refused(|p| p.pool(AVERAGE_POOL).requant.shift = shift);
        assert_eq!(error, ArtifactError::Quantization { op: AVERAGE_POOL });
    }
    let error = refused(|p| p.pool(AVERAGE_POOL).requant.multiplier = -1);
    assert_eq!(error, ArtifactError::Quantization { op: AVERAGE_POOL });
}

#[test]
fn pairs_of_weights_that_do_not_fit() {
    // The two are neighbours, and nobody else's sum is checked.
    let set = |pair: [i8; 2], pairs_fit| {
        let mut parts = sound();
        let conv = parts.conv(STEM);
        conv.pairs_fit = pairs_fit;
        let (at, len) = (conv.weights.offset as usize, conv.weights.len as usize);
        let weights = &mut parts.blob[at..at + len];
        for w in weights.iter_mut() {
            *w = w.cast_signed().clamp(-64, 64).cast_unsigned();
        }
        weights[..2].copy_from_slice(&pair.map(i8::cast_unsigned));
        parts.file().map(|_| ())
    };
    let error = Err(ArtifactError::Quantization { op: STEM });
    for pair in [[64, 65], [-64, -65], [127, 2], [127, 127]] {
        assert_eq!(set(pair, true), error, "{pair:?}");
        assert_eq!(set(pair, false), Ok(()), "{pair:?}");
    }
}

#[test]
fn winograd_where_it_does_not_fit() {
    // Of three channels, and in int8.
    for dtype in [Dtype::F32, Dtype::I8] {
        let mut parts = Parts::sound(dtype, 16);
        let offset = parts.arena_len as u32;
        parts.arena_len += 1 << 20;
        let output = parts.conv(STEM).output.shape;
        let len = artifact::winograd::scratch_bytes(3, output).unwrap() as u32;
        parts.conv(STEM).scratch = Some(artifact::Span { offset, len });
        assert_eq!(parts.file(), Err(ArtifactError::Geometry { op: STEM }));
    }
}

#[test]
fn biases_that_leave_the_accumulator() {
    let taps = 3 * 3 * 3;
    for bias in [i32::MAX, i32::MIN, i32::MIN + 1, i32::MAX - taps * (1 << 14)] {
        for op in [STEM, OTHER_RESIDUAL, IN_PLACE_RESIDUAL] {
            let error = refused(|p| {
                let params = p.conv(op).params;
                p.set_param(params, ConvPlane::Bias as usize, 0, bias);
            });
            assert_eq!(error, ArtifactError::Quantization { op }, "{bias}");
        }
    }
    // The largest that is safe.
    let mut parts = sound();
    let params = parts.conv(STEM).params;
    let largest = i32::MAX - taps * (1 << 14) - 1;
    parts.set_param(params, ConvPlane::Bias as usize, 0, largest);
    assert!(parts.file().is_ok());
    for value in [1 << 29, i32::MAX, i32::MIN] {
        let error = refused(|p| {
            let params = p.affine(AFFINE).params;
            p.set_param(params, 1, 0, value);
        });
        assert_eq!(error, ArtifactError::Quantization { op: AFFINE });
        let error = refused(|p| {
            let params = p.affine(AFFINE).params;
            p.set_param(params, 0, 0, value);
        });
        assert_eq!(error, ArtifactError::Quantization { op: AFFINE });
    }
}

#[test]
fn a_weight_without_a_negative() {
    let set = |at: u32| {
        refused(move |p| {
            let weights = p.conv(OTHER_RESIDUAL).weights;
            p.blob[(weights.offset + at.min(weights.len - 1)) as usize] = 0x80;
        })
    };
    for at in [0, 1, u32::MAX] {
        assert_eq!(set(at), ArtifactError::Quantization { op: OTHER_RESIDUAL });
    }
}

#[test]
fn pooling_that_changes_the_quantization() {
    let error = refused(|p| {
        p.pool(AVERAGE_POOL).kind = PoolKind::Max;
    });
    assert_eq!(error, ArtifactError::Quantization { op: AVERAGE_POOL });
}

#[test]
fn float_models_with_weights_that_are_no_numbers() {
    // Refusing them is the converter's task; reading them must only do no harm.
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        let mut parts = Parts::sound(dtype, 4);
        let weights = parts.conv(STEM).weights;
        parts.blob[..weights.len as usize].fill(0xff);
        assert!(parts.file().is_ok());
    }
}

#[test]
fn label_count_differs_from_the_classes() {
    assert_eq!(refused(|p| p.labels.truncate(1)), ArtifactError::NoOutput);
    assert_eq!(refused(|p| p.labels.push("bird".into())), ArtifactError::NoOutput);
    assert_eq!(refused(|p| p.labels.clear()), ArtifactError::NoOutput);
}

#[test]
fn empty_and_long_labels() {
    assert_eq!(refused(|p| p.labels[1].clear()), ArtifactError::Labels { index: 1 });
    for len in [257, 65_536] {
        let error = refused(|p| p.labels[0] = "x".repeat(len));
        assert_eq!(error, ArtifactError::Labels { index: 0 });
    }
    let mut parts = sound();
    parts.labels[0] = "x".repeat(256);
    assert!(parts.file().is_ok());
}

#[test]
fn labels_that_are_not_utf8() {
    let at = find(&file(), "dog");
    for bad in [&b"\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"do\xe2"] {
        assert_eq!(forged(at, bad), Err(ArtifactError::Labels { index: 1 }));
    }
}

#[test]
fn label_lengths_that_are_forged() {
    let at = find(&file(), "dog") - 1;
    // Longer than the section; ten bytes of varint that leave usize; eleven that never end.
    for bad in [&[0xff, 0xff, 0xff, 0x7f][..], &[0xff; 10], &[0xff; 11]] {
        assert_eq!(forged(at, bad), Err(ArtifactError::Labels { index: 1 }));
    }
    let name = find(&file(), "small") - 1;
    for bad in [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0xff; 10]] {
        assert_eq!(forged(name, bad), Err(ArtifactError::Meta));
    }
}

#[test]
fn hostile_label_text_is_kept_as_it_is() {
    // Duplicates and control characters are the printer's concern, not the reader's.
    let mut parts = sound();
    parts.labels = vec!["\u{1b}[2J\0\n\u{202e}".into(); 2];
    let file = parts.file().unwrap();
    assert!(Artifact::parse(&file).unwrap().labels().eq(["\u{1b}[2J\0\n\u{202e}"; 2]));
}

#[test]
fn output_that_no_operator_writes() {
    assert_eq!(refused(|p| p.output.offset = 0), ArtifactError::NoOutput);
    assert_eq!(refused(|p| p.output.quant.zero_point = 9), ArtifactError::NoOutput);
    let error = refused(|p| {
        p.ops.truncate(STEM + 1);
        p.output = p.ops[STEM].output();
        let end = p.conv(STEM).params.offset as usize + p.conv(STEM).params.len as usize;
        p.blob.truncate(end.next_multiple_of(64));
    });
    assert_eq!(error, ArtifactError::NoOutput, "the output is a map, not a list of scores");
}

#[test]
fn every_error_has_a_text() {
    for error in [
        ArtifactError::Truncated { needed: 64, have: 0 },
        ArtifactError::TrailingBytes { extra: 1 },
        ArtifactError::BadMagic,
        ArtifactError::UnsupportedVersion { found: 2, supported: 1 },
        ArtifactError::Checksum,
        ArtifactError::Misaligned { offset: 4 },
        ArtifactError::NoOutput,
    ] {
        assert!(error.to_string().len() > 10);
    }
}

#[test]
fn a_last_operator_that_waits_for_another() {
    let error = refused(|p| p.conv(DENSE).lines = 1);
    assert_eq!(error, ArtifactError::NoOutput);
}

#[test]
fn columns_that_are_missing_or_have_another_size() {
    let set = |scratch| {
        let mut parts = Parts::sound(Dtype::I8, 4);
        parts.conv(STEM).scratch = scratch;
        parts.file().map(drop)
    };
    let scratch = Parts::sound(Dtype::I8, 4).conv(STEM).scratch.unwrap();
    assert_eq!(set(Some(scratch)), Ok(()));
    assert_eq!(set(None), Err(ArtifactError::Geometry { op: STEM }));
    let shorter = artifact::Span { len: scratch.len - 1, ..scratch };
    assert_eq!(set(Some(shorter)), Err(ArtifactError::Geometry { op: STEM }));
    for offset in [0, 64, scratch.offset + 64, u32::MAX - 63] {
        let moved = artifact::Span { offset, ..scratch };
        assert_eq!(set(Some(moved)), Err(ArtifactError::Operand { op: STEM }), "{offset}");
    }
}

#[test]
fn number_formats_meet_in_casts_only() {
    for nr in [4, 16] {
        let sound = Parts::mixed(nr);
        let has_floats = |parts: &Parts| {
            let file = parts.file().unwrap();
            artifact::Header::parse(&file).unwrap().has_floats
        };
        assert!(has_floats(&sound) && !has_floats(&Parts::sound(Dtype::I8, nr)));
        let refused = |spoil: &dyn Fn(&mut Parts)| {
            let mut parts = sound.clone();
            spoil(&mut parts);
            parts.file().unwrap_err()
        };
        let (first, summed) = (1, 2);
        let [stem, read] = [&sound.ops[first].input(), &sound.ops[first].output()].map(|p| *p);
        let quantization = |op| ArtifactError::Quantization { op };
        assert_eq!(refused(&|p| p.conv(summed).input = stem), quantization(summed));
        assert_eq!(
            refused(&|p| p.conv(summed).residual.as_mut().unwrap().input = stem),
            quantization(summed)
        );
        assert_eq!(refused(&|p| p.pool(4).output.quant.scale = 0.5), quantization(4));
        // What is written over itself, and what is neither a float nor a scale.
        let cast = |p: &mut Parts, output: Place| {
            p.ops[first] = Op::Cast(Cast { input: stem, output });
        };
        let operand = ArtifactError::Operand { op: first };
        assert_eq!(refused(&|p| cast(p, Place { offset: stem.offset, ..read })), operand);
        for quant in [
            Quant { scale: 0.0, zero_point: 1 },
            Quant { scale: -0.5, zero_point: 0 },
            Quant { scale: f32::NAN, zero_point: 0 },
        ] {
            assert_eq!(refused(&|p| cast(p, Place { quant, ..read })), operand);
        }
        let smaller = Shape { h: 3, ..read.shape };
        let geometry = ArtifactError::Geometry { op: first };
        assert_eq!(refused(&|p| cast(p, Place { shape: smaller, ..read })), geometry);
        // Of one format, a cast is a copy.
        let other = Quant { scale: 0.25, zero_point: 5 };
        assert_eq!(refused(&|p| cast(p, Place { quant: other, ..read })), quantization(first));
        // A header that knows of no floats.
        let mut file = sound.file().unwrap();
        file[37] = 0;
        seal(&mut file);
        assert_eq!(Artifact::parse(&file).unwrap_err(), operand);
    }
}
