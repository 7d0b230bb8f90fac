//! Files that are cut, damaged, or forged byte by byte.

use crate::small_model::{AFFINE, AVERAGE_POOL, DENSE, Parts, STEM};
use crate::{file, refuses, sound};
use artifact::ArtifactError::{self, Geometry, Header, Known, Meta, NoOutput, Truncated};
use artifact::header::{OLDEST_VERSION, SIGNATURE_LEN, VERSION};
use artifact::layout::ALIGN;
use artifact::writer::{Statistics, rewrite, seal, with_known};
use artifact::{Affine, Artifact, Clamp, Dtype, Op, Place, Shape, Span};

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
        assert_eq!(error, Truncated { needed: 64, have: len });
    }
}

#[test]
fn truncated_at_every_byte() {
    for parts in Parts::all() {
        let file = parts.file().unwrap();
        for len in 0..file.len() {
            let error = Artifact::parse(&file[..len]).unwrap_err();
            assert!(matches!(error, Truncated { have, .. } if have == len));
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
        assert_eq!(forged(10, &[bad]), Err(Header { field: 10 }));
    }
    for bad in [0, 1, 8, 17, 255] {
        assert_eq!(forged(11, &[bad]), Err(Header { field: 11 }));
    }
    // Known, but not what the weights were packed for.
    assert!(forged(10, &[0]).is_err());
    assert!(forged(10, &[2]).is_err());
    let error = forged(11, &[16]);
    assert_eq!(error, Err(Geometry { op: STEM }), "a column is no scratch there");
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
        assert_eq!(forged(field, &[2]), Err(Header { field }));
    }
    for field in 37..64 {
        assert_eq!(forged(field, &[1]), Err(Header { field }));
    }
}

#[test]
fn signatures_end_the_file_or_are_none() {
    let whole = file();
    // A signature that is announced and missing.
    let (needed, have) = (whole.len() + SIGNATURE_LEN, whole.len());
    assert_eq!(forged(36, &[1]), Err(Truncated { needed, have }));
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
    for (flag, result) in [(0, Ok(())), (1, Err(Header { field: 36 }))] {
        let mut old = whole.clone();
        old[8..10].copy_from_slice(&4u16.to_le_bytes());
        old[36] = flag;
        seal(&mut old);
        assert_eq!(Artifact::parse(&old).map(|_| ()), result);
    }
}

#[test]
fn statistics_of_what_is_known() {
    for nr in [4, 16] {
        let parts = Parts::with_known(nr);
        let file = parts.file().unwrap();
        let artifact = Artifact::parse(&file).unwrap();
        let known = *artifact.known().unwrap();
        assert_eq!((artifact.header().version, known.rows), (9, 2));
        assert_eq!(known.features, parts.ops[DENSE].input());
        assert_eq!(artifact.span(known.weights), [255, 0, 7, 1]);
        assert_eq!(artifact.span(known.means)[7], 0x80);
        // A new signature leaves it as it is; older readers refuse it, and nothing is added twice.
        let rewritten = rewrite(&file, None::<fn(&[u8]) -> _>).unwrap();
        assert!(rewritten == file);
        assert_eq!(with_known(&file, parts.known.as_ref().unwrap()), Err(Known));
        let mut older = file.clone();
        older[8] = 8;
        seal(&mut older);
        assert_eq!(Artifact::parse(&older).unwrap_err(), Header { field: 38 });
        let refuses = |spoil: &dyn Fn(&mut Statistics)| {
            let mut parts = parts.clone();
            spoil(parts.known.as_mut().unwrap());
            assert_eq!(parts.file(), Err(Known));
        };
        refuses(&|known| known.threshold = 0);
        refuses(&|known| known.usual = 0);
        refuses(&|known| known.weights.fill(0));
        refuses(&|known| known.weights.truncate(3));
        refuses(&|known| known.weights.clear());
        refuses(&|known| known.means.clear());
        refuses(&|known| known.means.truncate(7));
        // More rows than classes.
        refuses(&|known| known.means.extend([0; 4]));
    }
    // In floats, and where the last operator writes over what it reads.
    let known = Parts::with_known(4).known;
    let refused = |parts: Parts| Parts { known: known.clone(), ..parts }.file();
    assert!(refused(Parts::sound(Dtype::F32, 16)).is_err());
    let mut parts = sound();
    let pooled = parts.ops[AVERAGE_POOL].output();
    let shape = Shape { c: 4, ..pooled.shape };
    parts.labels.extend(["cow".into(), "hen".into()]);
    parts.output = Place { shape, ..pooled };
    let clamp = Clamp::None;
    parts.ops.truncate(DENSE);
    let (dense, params) = (sound().conv(DENSE).weights, sound().affine(AFFINE).params);
    parts.blob.truncate(dense.offset as usize);
    let params = Span { offset: dense.offset, ..params };
    let numbers = sound().blob[sound().affine(AFFINE).params.offset as usize..]
        [..params.len as usize]
        .to_vec();
    parts.blob.extend(numbers);
    parts.blob.resize(parts.blob.len().next_multiple_of(64), 0);
    let (input, output) = (pooled, parts.output);
    parts.ops.push(Op::Affine(Affine { input, output, params, shift: 10, clamp }));
    assert!(parts.file().is_ok());
    assert_eq!(refused(parts), Err(Known));
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
            assert!(matches!(error, Header { .. } | Truncated { .. }), "{value} at {at}: {error}");
        }
    }
    for value in [u32::MAX, 1 << 31, (1 << 31) - 1] {
        assert_eq!(forged(24, &value.to_le_bytes()), Err(Header { field: 24 }));
    }
}

#[test]
fn operator_count() {
    assert_eq!(forged(16, &[0; 4]), Err(NoOutput));
    assert_eq!(forged(16, &6u32.to_le_bytes()), Err(NoOutput));
    assert_eq!(forged(16, &8u32.to_le_bytes()), Err(ArtifactError::Record { op: 7 }));
    assert!(matches!(forged(16, &2000u32.to_le_bytes()), Err(Header { .. })));
    refuses(Header { field: 16 }, |p| p.ops = vec![p.ops[STEM]; artifact::MAX_OPS + 1]);
    refuses(NoOutput, |p| p.ops.clear());
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
        assert_eq!(forged(name, bad), Err(Meta));
    }
}

#[test]
fn every_error_has_a_text() {
    for error in [
        Truncated { needed: 64, have: 0 },
        ArtifactError::TrailingBytes { extra: 1 },
        ArtifactError::BadMagic,
        ArtifactError::UnsupportedVersion { found: 2, supported: 1 },
        ArtifactError::Checksum,
        ArtifactError::Misaligned { offset: 4 },
        NoOutput,
    ] {
        assert!(error.to_string().len() > 10);
    }
}
