//! NumPy's `.npy` files of float32: magic, version, a Python dict as text, then the numbers.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>

use anyhow::{Context, Result, bail, ensure};

const MAGIC: &[u8] = b"\x93NUMPY";

/// An array in row-major order.
#[derive(Debug)]
pub(crate) struct Array {
    /// Length of each dimension, outermost first.
    pub(crate) shape: Vec<usize>,
    /// As many as the shape's product.
    pub(crate) values: Vec<f32>,
}

/// Reads a whole file.
pub(crate) fn parse(file: &[u8]) -> Result<Array> {
    let rest = file.strip_prefix(MAGIC).context("not a .npy file (save it with numpy.save)")?;
    let (header_len, rest) = match *rest {
        [1, _, a, b, ref rest @ ..] => (usize::from(u16::from_le_bytes([a, b])), rest),
        [2 | 3, _, a, b, c, d, ref rest @ ..] => {
            (usize::try_from(u32::from_le_bytes([a, b, c, d]))?, rest)
        }
        [version, _, ..] if !(1..=3).contains(&version) => {
            bail!(".npy version {version}, but 1 to 3 are read")
        }
        _ => bail!("truncated .npy header"),
    };
    let (header, data) = rest.split_at_checked(header_len).context("truncated .npy header")?;
    let header = str::from_utf8(header).context(".npy header is not text")?;

    let descr = value_of(header, "descr")?;
    ensure!(
        matches!(quoted(descr), Some("<f4")),
        ".npy of {}, but float32 is wanted (use .astype(\"<f4\"))",
        quoted(descr).unwrap_or("a structured type")
    );
    ensure!(
        value_of(header, "fortran_order")?.starts_with("False"),
        ".npy in Fortran order, but C order is wanted (use numpy.ascontiguousarray)"
    );
    let shape = value_of(header, "shape")?;
    let shape = shape.strip_prefix('(').and_then(|s| s.split_once(')')).map(|(inside, _)| inside);
    let shape = shape
        .and_then(|s| {
            let dims = s.split(',').map(str::trim).filter(|d| !d.is_empty());
            dims.map(|d| d.parse().ok()).collect::<Option<Vec<usize>>>()
        })
        .context(".npy header has no readable shape")?;

    let needed = shape.iter().try_fold(4usize, |len, &dim| len.checked_mul(dim));
    let needed = needed.with_context(|| format!(".npy shape {shape:?} is too large"))?;
    ensure!(
        data.len() == needed,
        ".npy of shape {shape:?} needs {needed} bytes of numbers, but has {}",
        data.len()
    );
    let values = data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    Ok(Array { shape, values })
}

/// The text after a key of the header's dict.
fn value_of<'a>(header: &'a str, key: &str) -> Result<&'a str> {
    ['\'', '"']
        .iter()
        .find_map(|q| header.split_once(&format!("{q}{key}{q}")))
        .and_then(|(_, rest)| rest.trim_start().strip_prefix(':'))
        .map(str::trim_start)
        .with_context(|| format!(".npy header has no '{key}'"))
}

/// The contents of the string that `text` starts with.
fn quoted(text: &str) -> Option<&str> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote).map(|(inside, _)| inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u8, header: &str, values: &[f32]) -> Vec<u8> {
        let mut file = MAGIC.to_vec();
        file.extend([version, 0]);
        let len = header.len() as u32;
        file.extend(&len.to_le_bytes()[..if version == 1 { 2 } else { 4 }]);
        file.extend(header.as_bytes());
        file.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        file
    }

    #[test]
    fn versions_and_shapes() {
        for version in 1..=3 {
            for (shape, len) in [("()", 1), ("(2,)", 2), ("(1, 2, 3)", 6), ("(0, 5)", 0)] {
                let header =
                    format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}  \n");
                let values: Vec<f32> = (0..len).map(|v| v as f32 - 0.5).collect();
                let array = parse(&file(version, &header, &values)).unwrap();
                assert_eq!(array.values, values);
                assert_eq!(array.shape.iter().product::<usize>(), len);
            }
        }
    }

    #[test]
    fn every_truncation_and_trailing_byte_is_refused() {
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }\n";
        let mut whole = file(1, header, &[1.0, 2.0]);
        for len in 0..whole.len() {
            assert!(parse(&whole[..len]).is_err(), "{len}");
        }
        whole.push(0);
        assert!(parse(&whole).is_err());
    }

    #[test]
    fn errors_say_what_to_do() {
        let ok = "'fortran_order': False, 'shape': (1,)";
        for (header, want) in [
            (format!("{{'descr': '<f8', {ok}}}"), "float32 is wanted"),
            (format!("{{'descr': '>f4', {ok}}}"), "float32 is wanted"),
            (format!("{{'descr': [('x', '<f4')], {ok}}}"), "structured"),
            (format!("{{{ok}}}"), "no 'descr'"),
            ("{'descr': '<f4', 'fortran_order': True, 'shape': (1,)}".into(), "C order"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}".into(), "shape"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (1".into(), "shape"),
            (
                format!(
                    "{{'descr': '<f4', 'fortran_order': False, 'shape': ({0}, {0})}}",
                    usize::MAX
                ),
                "too large",
            ),
            ("{'descr': '".into(), "float32 is wanted"),
        ] {
            let err = parse(&file(1, &header, &[1.0])).unwrap_err().to_string();
            assert!(err.contains(want), "{header}: {err}");
        }
        assert!(parse(&file(9, "", &[])).unwrap_err().to_string().contains("version 9"));
        assert!(parse(b"PK\x03\x04").unwrap_err().to_string().contains("numpy.save"));
    }
}
