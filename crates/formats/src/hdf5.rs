//! The arrays of an HDF5 file, by path.

use crate::Array;
use core::panic::AssertUnwindSafe;
use hdf5_pure::{DType, Dataset, Datatype, File, Group};
use std::collections::BTreeMap;
use std::panic::catch_unwind;

/// What every HDF5 file starts with.
pub const MAGIC: &[u8] = b"\x89HDF\r\n\x1a\n";
/// Deepest nesting of groups: hard links can form cycles.
const MAX_DEPTH: usize = 12;
/// Most arrays of a file.
const MAX_ARRAYS: usize = 100_000;

/// What a file holds.
#[derive(Debug, Default)]
pub struct Contents {
    /// By path without a leading slash.
    pub arrays: BTreeMap<String, Array>,
    /// Keras' `name` attribute of a layer's `vars` group, by the group's path.
    pub names: BTreeMap<String, String>,
    /// The network of a model that Keras wrote into one `.h5` file, as JSON.
    pub model_config: Option<String>,
}

/// Reads every numeric array of a file in memory.
///
/// # Errors
/// Damaged files, and arrays of types that no weights have.
pub fn parse(bytes: Vec<u8>) -> Result<Contents, String> {
    let walk = || {
        let len = bytes.len();
        let file = File::from_bytes(bytes).map_err(|e| format!("not readable as HDF5 ({e})"))?;
        let attributes = file.root().attrs().map_err(|e| format!("damaged HDF5 ({e})"))?;
        let config = attributes.get("model_config").and_then(|c| c.as_str());
        let mut contents =
            Contents { model_config: config.map(str::to_owned), ..Contents::default() };
        visit(&file.root(), "", 0, len, &mut contents)?;
        Ok(contents)
    };
    // The reader faces hostile bytes; a panic in it must cost one file, not the program.
    catch_unwind(AssertUnwindSafe(walk))
        .unwrap_or_else(|_| Err("the HDF5 reader failed; the file is damaged".into()))
}

fn visit(
    group: &Group,
    path: &str,
    depth: usize,
    file_len: usize,
    out: &mut Contents,
) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("groups nested deeper than {MAX_DEPTH} at `{path}`"));
    }
    let inside = |name: &str| if path.is_empty() { name.into() } else { format!("{path}/{name}") };
    let damaged = |e: hdf5_pure::Error| format!("damaged HDF5 at `{path}` ({e})");
    if path.ends_with("/vars")
        && let Some(name) = group.attrs().map_err(damaged)?.get("name").and_then(|n| n.as_str())
    {
        out.names.insert(path.into(), name.into());
    }
    for name in group.datasets().map_err(damaged)? {
        let at: String = inside(&name);
        let dataset = group.dataset(&name).map_err(damaged)?;
        if let Some(array) = array(&dataset, file_len).map_err(|e| format!("`{at}`: {e}"))? {
            out.arrays.insert(at, array);
        }
        if out.arrays.len() > MAX_ARRAYS {
            return Err(format!("more than {MAX_ARRAYS} arrays"));
        }
    }
    for name in group.groups().map_err(damaged)? {
        let inner = group.group(&name).map_err(damaged)?;
        visit(&inner, &inside(&name), depth + 1, file_len, out)?;
    }
    Ok(())
}

/// The numbers of a dataset; `None` for texts and the like.
fn array(dataset: &Dataset, file_len: usize) -> Result<Option<Array>, String> {
    let text = |e: hdf5_pure::Error| e.to_string();
    let shape: Option<Vec<usize>> =
        dataset.shape().map_err(text)?.into_iter().map(|d| usize::try_from(d).ok()).collect();
    // Also of an array without numbers, no side is longer than the file.
    let sides = |s: &Vec<usize>| s.iter().try_fold(1usize, |l, d| l.checked_mul((*d).max(1)));
    let is_sound = |s: &Vec<usize>| sides(s).is_some_and(|sides| sides <= file_len);
    let shape = shape.filter(is_sound);
    let len = shape.as_ref().map(|s| s.iter().product::<usize>());
    let (Some(shape), Some(len)) = (shape, len) else { return Err("too large".into()) };
    let dtype = dataset.dtype().map_err(text)?;
    // Keras stores weights as they are; what it does not compress cannot outgrow the file.
    let size = usize::try_from(dataset.element_size().map_err(text)?).map_err(|e| e.to_string())?;
    if len.checked_mul(size).is_none_or(|bytes| bytes > file_len) {
        return Err(format!("{shape:?} numbers of {size} bytes in a file of {file_len} bytes"));
    }
    let values = match dtype {
        DType::F32 | DType::F64 | DType::I8 | DType::I32 | DType::I64 => {
            dataset.read_f32().map_err(text)?
        }
        DType::Other(kind) if matches!(*kind, Datatype::FloatingPoint { size: 2, .. }) => {
            let raw = dataset.read_raw().map_err(text)?;
            raw.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect()
        }
        // What Keras marks `bfloat16` is opaque to HDF5.
        DType::Other(_) if size == 2 => {
            let attributes = dataset.attrs().map_err(text)?;
            if attributes.get("dtype").and_then(|d| d.as_str()) != Some("bfloat16") {
                return Err("2-byte values that are not marked bfloat16".into());
            }
            let raw = dataset.read_raw().map_err(text)?;
            raw.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect()
        }
        _ => return Ok(None),
    };
    match values.len() == len {
        true => Ok(Some(Array { shape, values })),
        false => Err(format!("{} numbers, its shape {shape:?} needs {len}", values.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdf5_pure::FileBuilder;

    fn sample() -> Vec<u8> {
        let mut builder = FileBuilder::new();
        let mut layer = builder.create_group("dense");
        layer.create_dataset("kernel").with_f32_data(&[1.0, 2.0, 3.0, 4.0]).with_shape(&[2, 2]);
        builder.add_group(layer.finish());
        builder.finish().unwrap()
    }

    #[test]
    fn arrays_are_found_by_path() {
        let contents = parse(sample()).unwrap();
        let kernel = Array { shape: vec![2, 2], values: vec![1.0, 2.0, 3.0, 4.0] };
        assert_eq!(contents.arrays["dense/kernel"], kernel);
    }

    #[test]
    fn cut_and_flipped_files_are_refused_or_read() {
        let whole = sample();
        for len in 0..whole.len() {
            // A file may end in padding; what is read must then be whole.
            if let Ok(contents) = parse(whole[..len].to_vec()) {
                assert!(contents.arrays.values().all(|a| a.values.len() == 4));
            }
        }
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let _ = parse(damaged);
        }
    }
}
