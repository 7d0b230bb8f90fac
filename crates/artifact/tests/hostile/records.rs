//! Records whose places, shapes, windows or labels do not fit.

use crate::small_model::{
    AFFINE, AVERAGE_POOL, DENSE, IN_PLACE_RESIDUAL, MAX_POOL, OTHER_RESIDUAL, Parts, STEM,
};
use crate::{refused, refuses, refuses_of, sound};
use artifact::ArtifactError::{self, Geometry, Meta, NoOutput, Operand, Quantization, Weights};
use artifact::{Artifact, Dtype, Op, Shape};

#[test]
fn arena_too_small() {
    let needed = sound().arena_len;
    for len in [0, 1, 63, 64, needed - 64, needed - 1] {
        let error = refused(|p| p.arena_len = len);
        assert!(matches!(error, Operand { .. } | Meta), "{error}");
    }
}

#[test]
fn spans_that_overlap() {
    refuses(Weights { op: STEM }, |p| p.conv(STEM).params = p.conv(STEM).weights);
    refuses(Weights { op: IN_PLACE_RESIDUAL }, |p| {
        let weights = p.conv(OTHER_RESIDUAL).weights;
        p.conv(IN_PLACE_RESIDUAL).weights = weights;
    });
}

#[test]
fn spans_that_leave_holes() {
    refuses(Weights { op: DENSE }, |p| {
        p.conv(DENSE).params.offset += 64;
        p.blob.extend([0; 64]);
    });
    // A blob that goes on after its last range.
    refuses(Weights { op: DENSE + 1 }, |p| p.blob.extend([0; 64]));
    // Data hidden in the gap between two ranges.
    refuses(Weights { op: STEM }, |p| {
        let weights = p.conv(STEM).weights;
        p.blob[weights.len as usize] = 1;
    });
}

#[test]
fn spans_that_point_past_the_end() {
    for offset in [64, 1 << 20, 1 << 31, u32::MAX - 63, u32::MAX] {
        refuses(Weights { op: STEM }, |p| p.conv(STEM).weights.offset = offset);
    }
    for len in [0, 1, 1 << 20, u32::MAX] {
        refuses(Weights { op: STEM }, |p| p.conv(STEM).weights.len = len);
        refuses(Weights { op: AFFINE }, |p| p.affine(AFFINE).params.len = len);
    }
    refuses(Weights { op: DENSE }, |p| p.blob.truncate(p.blob.len() - 64));
}

#[test]
fn shape_products_that_overflow() {
    let huge = Shape::new(u16::MAX, u16::MAX, u16::MAX);
    refuses(Meta, |p| {
        p.input.shape = huge;
        (p.preprocess.height, p.preprocess.width) = (huge.h, huge.w);
    });
    refuses(Operand { op: STEM }, |p| p.conv(STEM).output.shape = huge);
    refuses(NoOutput, |p| p.output.shape = huge);
    let wrap = Shape::new(1 << 15, 1 << 15, 4); // 2^32 elements
    refuses(Operand { op: STEM }, |p| p.conv(STEM).output.shape = wrap);
}

#[test]
fn dimensions_zero_and_largest() {
    for op in STEM..=DENSE {
        for axis in 0..3 {
            for size in [0, u16::MAX] {
                for of_output in [false, true] {
                    refuses(Operand { op }, |p| {
                        let place = match (&mut p.ops[op], of_output) {
                            (Op::Conv2d(o), false) => &mut o.input,
                            (Op::Conv2d(o), true) => &mut o.output,
                            (Op::Pool2d(o), false) => &mut o.input,
                            (Op::Pool2d(o), true) => &mut o.output,
                            (Op::Affine(o), false) => &mut o.input,
                            (Op::Affine(o), true) => &mut o.output,
                            (_, _) => unreachable!("in other models"),
                        };
                        match axis {
                            0 => place.shape.h = size,
                            1 => place.shape.w = size,
                            _ => place.shape.c = size,
                        }
                    });
                }
            }
        }
    }
}

#[test]
fn operand_read_before_it_is_written() {
    let b = sound().ops[OTHER_RESIDUAL].output();
    refuses(Operand { op: OTHER_RESIDUAL }, |p| p.conv(OTHER_RESIDUAL).input = b);
    refuses(Operand { op: STEM }, |p| p.ops.swap(STEM, OTHER_RESIDUAL));
    // The right memory, read with another meaning.
    refuses(Operand { op: OTHER_RESIDUAL }, |p| p.conv(OTHER_RESIDUAL).input.quant.zero_point += 1);
    // A residual that nobody wrote.
    refuses(Operand { op: IN_PLACE_RESIDUAL }, |p| {
        let place = p.output;
        if let Some(residual) = &mut p.conv(IN_PLACE_RESIDUAL).residual {
            residual.input = place;
        }
    });
}

#[test]
fn output_over_live_input() {
    for (nr, shift) in [(4, 0), (16, 0), (16, 64)] {
        refuses_of(Operand { op: OTHER_RESIDUAL }, Parts::sound(Dtype::I8, nr), |p| {
            let op = p.conv(OTHER_RESIDUAL);
            op.output.offset = op.input.offset + shift;
        });
    }
    refuses(Operand { op: MAX_POOL }, |p| {
        let op = p.pool(MAX_POOL);
        op.output.offset = op.input.offset;
    });
    // An affine may work in place, but not half over itself.
    let padded = Parts::sound(Dtype::I8, 16);
    refuses_of(Operand { op: AFFINE }, padded, |p| p.affine(AFFINE).output.offset += 64);
}

#[test]
fn operand_overwritten_before_its_last_use() {
    // The stem's output is still wanted as a residual when something else is laid over it. Maps with
    // a pad pixel are longer than the alignment, so that they can overlap in part.
    refuses_of(Operand { op: IN_PLACE_RESIDUAL }, Parts::sound(Dtype::I8, 16), |p| {
        let stem = p.ops[STEM].output();
        let end = p.arena_len as u32;
        p.arena_len *= 2;
        p.conv(OTHER_RESIDUAL).output.offset = end;
        p.conv(IN_PLACE_RESIDUAL).input.offset = end;
        p.conv(IN_PLACE_RESIDUAL).output.offset = stem.offset + 64;
    });
}

#[test]
fn misplaced_activations() {
    for offset in [1, 4, 63, 1 << 31, u32::MAX - 63, u32::MAX] {
        refuses(Operand { op: STEM }, |p| p.conv(STEM).output.offset = offset);
        refuses(Meta, |p| p.input.offset = offset);
    }
}

#[test]
fn stride_zero_and_empty_filter() {
    for axis in 0..2 {
        for op in [STEM, DENSE] {
            refuses(Geometry { op }, |p| p.conv(op).stride[axis] = 0);
            refuses(Geometry { op }, |p| p.conv(op).filter[axis] = 0);
        }
        for op in [MAX_POOL, AVERAGE_POOL] {
            refuses(Geometry { op }, |p| p.pool(op).stride[axis] = 0);
            refuses(Geometry { op }, |p| p.pool(op).filter[axis] = 0);
        }
    }
}

#[test]
fn padding_as_large_as_the_filter() {
    // Two more rows of padding and an output that fits them, so that only the rule objects.
    for side in 0..4 {
        refuses(Geometry { op: MAX_POOL }, |p| {
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
    }
    refuses(Geometry { op: STEM }, |p| p.conv(STEM).padding.top = 255);
}

#[test]
fn window_larger_than_the_map() {
    for filter in [5, 1000, u16::MAX] {
        refuses(Geometry { op: MAX_POOL }, |p| p.pool(MAX_POOL).filter = [filter; 2]);
        refuses(Geometry { op: DENSE }, |p| p.conv(DENSE).filter = [filter; 2]);
    }
}

#[test]
fn output_of_the_wrong_size() {
    refuses(Geometry { op: STEM }, |p| p.conv(STEM).output.shape.h = 3);
    refuses(Geometry { op: MAX_POOL }, |p| p.pool(MAX_POOL).output.shape.w = 1);
    // Offset 128 leaves room, so that only the sizes differ.
    let error = refused(|p| p.affine(AFFINE).output = p.ops[OTHER_RESIDUAL].output());
    assert!(matches!(error, Operand { .. }), "{error}");
    refuses(Geometry { op: AFFINE }, |p| {
        let mut output = p.ops[OTHER_RESIDUAL].output();
        output.shape.h = 3;
        p.affine(AFFINE).output = output;
    });
}

#[test]
fn channels_that_disagree_with_the_weights() {
    let error = refused(|p| p.conv(OTHER_RESIDUAL).output.shape.c = 3);
    assert!(matches!(error, Geometry { op: OTHER_RESIDUAL }), "{error}");
    refuses(Weights { op: STEM }, |p| p.conv(STEM).output.shape.c = 5);
    // Five input channels make a second group of four, for which there are no weights.
    refuses(Weights { op: STEM }, |p| {
        p.input.shape.c = 5;
        p.arena_len = p.arena_len.next_multiple_of(64) + 128;
        p.input.offset = p.arena_len as u32 - 128;
        p.conv(STEM).input = p.input;
    });
    refuses(Geometry { op: MAX_POOL }, |p| p.pool(MAX_POOL).output.shape.c = 3);
}

#[test]
fn residual_of_another_shape() {
    // The picture has as many pixels as the stem's output, but fewer channels.
    refuses(Geometry { op: OTHER_RESIDUAL }, |p| {
        let place = p.input;
        if let Some(residual) = &mut p.conv(OTHER_RESIDUAL).residual {
            residual.input = place;
        }
    });
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
        assert_eq!(parts.file(), Err(Geometry { op: STEM }));
    }
}

#[test]
fn label_count_differs_from_the_classes() {
    refuses(NoOutput, |p| p.labels.truncate(1));
    refuses(NoOutput, |p| p.labels.push("bird".into()));
    refuses(NoOutput, |p| p.labels.clear());
}

#[test]
fn empty_and_long_labels() {
    refuses(ArtifactError::Labels { index: 1 }, |p| p.labels[1].clear());
    for len in [257, 65_536] {
        refuses(ArtifactError::Labels { index: 0 }, |p| p.labels[0] = "x".repeat(len));
    }
    let mut parts = sound();
    parts.labels[0] = "x".repeat(256);
    assert!(parts.file().is_ok());
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
    refuses(NoOutput, |p| p.output.offset = 0);
    refuses(NoOutput, |p| p.output.quant.zero_point = 9);
    // The output is a map, not a list of scores.
    refuses(NoOutput, |p| {
        p.ops.truncate(STEM + 1);
        p.output = p.ops[STEM].output();
        let end = p.conv(STEM).params.offset as usize + p.conv(STEM).params.len as usize;
        p.blob.truncate(end.next_multiple_of(64));
    });
}

#[test]
fn gates() {
    const GATE: usize = 2;
    let refuses = |error, change: fn(&mut artifact::Gate, artifact::Place)| {
        for (dtype, nr) in [(Dtype::I8, 4), (Dtype::I8, 16), (Dtype::F32, 16)] {
            refuses_of(error, Parts::gated(dtype, nr), |p| {
                let picture = p.input;
                let Op::Gate(gate) = &mut p.ops[GATE] else { unreachable!() };
                change(gate, picture);
            });
        }
    };
    // Factors of another number, of more than a pixel, or that nobody wrote.
    refuses(Operand { op: GATE }, |gate, _| gate.gate.shape.c = 3);
    refuses(Operand { op: GATE }, |gate, _| gate.gate = gate.input);
    refuses(Operand { op: GATE }, |gate, picture| gate.gate.offset = picture.offset + 64);
    // Over its factors.
    refuses(Operand { op: GATE }, |gate, _| gate.output.offset = gate.gate.offset);
    refuses(Operand { op: GATE }, |gate, _| gate.output.shape.h = 3);
    for nr in [4, 16] {
        for by_itself in [false, true] {
            refuses_of(Geometry { op: GATE }, Parts::gated(Dtype::I8, nr), |p| {
                let apart = p.arena_len.next_multiple_of(64) as u32;
                p.arena_len *= 3;
                let Op::Gate(gate) = &mut p.ops[GATE] else { unreachable!() };
                gate.output.offset = apart;
                if by_itself { gate.gate = gate.input } else { gate.output.shape.h = 3 }
            });
        }
        refuses_of(Quantization { op: GATE }, Parts::gated(Dtype::I8, nr), |p| {
            let Op::Gate(gate) = &mut p.ops[GATE] else { unreachable!() };
            gate.requant.shift = 0;
        });
    }
}

#[test]
fn a_last_operator_that_waits_for_another() {
    refuses(NoOutput, |p| p.conv(DENSE).lines = 1);
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
    assert_eq!(set(None), Err(Geometry { op: STEM }));
    let shorter = artifact::Span { len: scratch.len - 1, ..scratch };
    assert_eq!(set(Some(shorter)), Err(Geometry { op: STEM }));
    for offset in [0, 64, scratch.offset + 64, u32::MAX - 63] {
        let moved = artifact::Span { offset, ..scratch };
        assert_eq!(set(Some(moved)), Err(Operand { op: STEM }), "{offset}");
    }
}
