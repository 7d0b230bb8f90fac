//! Constants of an ONNX file: arrays of numbers, also of other files beside it.

use core::cell::RefCell;
use formats::onnx as proto;
use half::{bf16, f16};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Most dimensions of a constant.
pub(super) const MAX_RANK: usize = 8;
/// What the dimensions of a constant without numbers, those of zero aside, multiply to at most.
const MAX_EMPTY: usize = 1 << 16;
/// How often the bytes of a file beside the model may be read.
const COPIES: u64 = 4;

/// How many numbers these dimensions count, where those that are not zero multiply to no more than
/// `most`: so no dimension is longer than that, nor is any product of some of them.
pub(super) fn count(dims: &[usize], most: usize) -> Option<usize> {
    let product = dims.iter().try_fold(1usize, |product, &d| product.checked_mul(d.max(1)));
    product.filter(|&product| product <= most).map(|_| dims.iter().product())
}

/// The files beside a model that its constants may lie in.
#[derive(Debug, Default)]
pub(super) struct Outside<'a> {
    /// Where they are; nothing is read without.
    pub(super) folder: Option<&'a Path>,
    /// Where the model itself lies, maybe behind links.
    model: Option<PathBuf>,
    /// How many bytes of each may still be read.
    left: RefCell<HashMap<PathBuf, u64>>,
}

impl<'a> Outside<'a> {
    /// Those of the model `model` in `folder`.
    pub(super) fn new(folder: &'a Path, model: &Path) -> Self {
        let model = model.canonicalize().ok();
        let model = model.as_deref().and_then(Path::parent).map(Path::to_path_buf);
        Self { folder: Some(folder), model, ..Self::default() }
    }

    /// Refuses a link that leads out of the model's folder, other than to the model's own neighbour: the
    /// caches of Hugging Face keep all files in one folder and link to them.
    fn check(&self, path: &Path) -> std::io::Result<()> {
        let target = path.canonicalize()?;
        let folder = self.folder.map(|folder| Path::new(".").join(folder).canonicalize());
        let folder = folder.transpose()?;
        let is_below = folder.is_some_and(|folder| target.starts_with(folder));
        match is_below || target.parent() == self.model.as_deref() {
            true => Ok(()),
            false => Err(std::io::Error::other("is a link out of the model's folder")),
        }
    }
}

/// A constant.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Constant {
    pub(super) dims: Vec<usize>,
    pub(super) values: Values,
    /// ONNX's number of the type that it is stored in; zero where it was computed.
    pub(super) data_type: i32,
    /// Where it was quantized: the size of a step, of all or of each place along `axis`. Zero where
    /// its numbers are no multiples of one that int8 holds.
    pub(super) scales: Vec<f32>,
    pub(super) axis: usize,
}

/// Its numbers, row by row.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Values {
    Float(Vec<f32>),
    Int(Vec<i64>),
}

impl Values {
    /// Those at `places`.
    pub(super) fn picked(&self, places: impl Iterator<Item = usize>) -> Self {
        match self {
            Self::Float(values) => Self::Float(places.map(|i| values[i]).collect()),
            Self::Int(values) => Self::Int(places.map(|i| values[i]).collect()),
        }
    }
}

impl Constant {
    pub(super) fn new(dims: Vec<usize>, values: Values) -> Self {
        Self { dims, values, data_type: 0, scales: Vec::new(), axis: 0 }
    }

    pub(super) fn ints(values: Vec<i64>) -> Self {
        Self::new(vec![values.len()], Values::Int(values))
    }

    /// Reads a constant, perhaps of a file `outside`.
    pub(super) fn read(tensor: &proto::Tensor, outside: &Outside<'_>) -> Result<Self, String> {
        let dims: Option<Vec<usize>> =
            tensor.dims.iter().map(|&d| usize::try_from(d).ok()).collect();
        let dims = dims.filter(|d| d.len() <= MAX_RANK);
        let dims = dims.ok_or_else(|| format!("dimensions {:?}", tensor.dims))?;
        let bytes;
        let raw = if tensor.data_location == Some(proto::EXTERNAL) {
            bytes = external(&tensor.external_data, outside)?;
            bytes.as_slice()
        } else {
            tensor.raw_data.as_slice()
        };
        let values = values(tensor, raw)?;
        let data_type = tensor.data_type.unwrap_or_default();
        let constant = Self { data_type, ..Self::new(dims, values) };
        if count(&constant.dims, constant.len().max(MAX_EMPTY)) != Some(constant.len()) {
            return Err(format!("{} numbers for dimensions {:?}", constant.len(), constant.dims));
        }
        Ok(constant)
    }

    /// How many numbers it has.
    pub(super) fn len(&self) -> usize {
        match &self.values {
            Values::Float(values) => values.len(),
            Values::Int(values) => values.len(),
        }
    }

    /// Number `i`, wide enough for integers, too.
    pub(super) fn number(&self, i: usize) -> f64 {
        match &self.values {
            Values::Float(values) => values[i].into(),
            Values::Int(values) => values[i] as f64,
        }
    }

    /// Its numbers, as [`Self::number`] gives them.
    pub(super) fn numbers(&self) -> impl Iterator<Item = f64> {
        (0..self.len()).map(|i| self.number(i))
    }

    /// Numbers that were computed of this one's, of the same kind.
    pub(super) fn like(&self, dims: Vec<usize>, values: impl Iterator<Item = f64>) -> Self {
        let values = match self.values {
            Values::Float(_) => Values::Float(values.map(|v| v as f32).collect()),
            Values::Int(_) => Values::Int(values.map(|v| v as i64).collect()),
        };
        Self::new(dims, values)
    }

    /// Its numbers as floats.
    pub(super) fn to_floats(&self) -> Vec<f32> {
        match &self.values {
            Values::Float(values) => values.clone(),
            Values::Int(values) => values.iter().map(|&v| v as f32).collect(),
        }
    }

    /// Its numbers, where they are integers.
    pub(super) fn to_ints(&self) -> Option<&[i64]> {
        match &self.values {
            Values::Int(values) => Some(values),
            Values::Float(_) => None,
        }
    }

    /// In another type.
    pub(super) fn cast(mut self, data_type: i32) -> Self {
        let is_real =
            matches!(data_type, proto::FLOAT | proto::DOUBLE | proto::FLOAT16 | proto::BFLOAT16);
        self.values = match self.values {
            Values::Int(values) if is_real => {
                Values::Float(values.iter().map(|&v| v as f32).collect())
            }
            Values::Float(values) if data_type == proto::BOOL => {
                Values::Int(values.iter().map(|&v| (v != 0.0).into()).collect())
            }
            Values::Float(values) if !is_real => {
                Values::Int(values.iter().map(|&v| v as i64).collect())
            }
            same => same,
        };
        Self { data_type, ..self }
    }

    /// With its dimensions in another order: dimension `i` is the old `order[i]`.
    pub(super) fn transposed(&self, order: &[usize]) -> Option<Self> {
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..self.dims.len()) {
            return None;
        }
        let dims: Vec<usize> = order.iter().map(|&i| self.dims[i]).collect();
        let mut strides = vec![1; dims.len()];
        for i in (1..dims.len()).rev() {
            strides[i - 1] = strides[i] * self.dims[i];
        }
        let strides: Vec<usize> = order.iter().map(|&i| strides[i]).collect();
        let place = |mut index: usize| {
            let mut place = 0;
            for (dim, stride) in dims.iter().zip(&strides).rev() {
                place += index % dim * stride;
                index /= dim;
            }
            place
        };
        let values = self.values.picked((0..self.len()).map(place));
        let axis = order.iter().position(|&i| i == self.axis).unwrap_or(0);
        Some(Self { dims, values, scales: self.scales.clone(), axis, ..*self })
    }

    /// With other dimensions of as many numbers.
    pub(super) fn reshaped(mut self, dims: Vec<usize>) -> Self {
        if self.scales.len() > 1 && (self.axis > 0 || self.dims.first() != dims.first()) {
            self.scales = vec![0.0];
        }
        Self { dims, ..self }
    }

    /// The sizes of its steps, one for each place of the first dimension, zero where int8 has none
    /// for it; empty where it was not quantized.
    pub(super) fn steps(&self) -> Vec<f32> {
        /// As far from zero int8 has steps.
        const STEPS: f32 = 128.25;
        let places = self.dims.first().copied().unwrap_or(1);
        let values = self.to_floats();
        let row = (values.len() / places.max(1)).max(1);
        let fits = |i: usize, scale: f32| {
            let row = values.get(i * row..).unwrap_or_default().iter().take(row);
            row.fold(0f32, |largest, v| largest.max(v.abs())) <= STEPS * scale
        };
        let each = |i: usize| match self.scales[..] {
            [one] => one,
            _ if self.axis == 0 => self.scales[i],
            _ => 0.0,
        };
        let places = if self.scales.is_empty() { 0 } else { places };
        (0..places).map(|i| if fits(i, each(i)) { each(i) } else { 0.0 }).collect()
    }
}

/// Name of ONNX's type with this number.
pub(super) fn type_name(data_type: i32) -> String {
    const NAMES: &str = "\
        an unknown type,float32,uint8,int8,uint16,int16,int32,int64,string,bool,float16,float64,\
        uint32,uint64,complex64,complex128,bfloat16,float8e4m3fn,float8e4m3fnuz,float8e5m2,\
        float8e5m2fnuz,uint4,int4,float4e2m1";
    let name = usize::try_from(data_type).ok().and_then(|i| NAMES.split(',').nth(i));
    name.map_or_else(|| format!("type {data_type}"), Into::into)
}

fn values(tensor: &proto::Tensor, raw: &[u8]) -> Result<Values, String> {
    /// Little-endian numbers of `N` bytes.
    fn numbers<T, const N: usize>(raw: &[u8], read: fn([u8; N]) -> T) -> Result<Vec<T>, String> {
        match raw.as_chunks() {
            (numbers, []) => Ok(numbers.iter().map(|&bytes| read(bytes)).collect()),
            _ => Err(format!("{} bytes, in numbers of {N}", raw.len())),
        }
    }
    let stored = !raw.is_empty();
    let words = || tensor.int32_data.iter().map(|&v| v as u16);
    Ok(match tensor.data_type.unwrap_or_default() {
        proto::FLOAT if stored => Values::Float(numbers(raw, f32::from_le_bytes)?),
        proto::FLOAT => Values::Float(tensor.float_data.clone()),
        proto::DOUBLE if stored => {
            Values::Float(numbers(raw, |bytes| f64::from_le_bytes(bytes) as f32)?)
        }
        proto::DOUBLE => Values::Float(tensor.double_data.iter().map(|&v| v as f32).collect()),
        proto::FLOAT16 if stored => {
            Values::Float(numbers(raw, |bytes| f16::from_le_bytes(bytes).to_f32())?)
        }
        proto::FLOAT16 => Values::Float(words().map(|v| f16::from_bits(v).to_f32()).collect()),
        proto::BFLOAT16 if stored => {
            Values::Float(numbers(raw, |bytes| bf16::from_le_bytes(bytes).to_f32())?)
        }
        proto::BFLOAT16 => Values::Float(words().map(|v| bf16::from_bits(v).to_f32()).collect()),
        proto::INT64 if stored => Values::Int(numbers(raw, i64::from_le_bytes)?),
        proto::INT64 => Values::Int(tensor.int64_data.clone()),
        proto::INT32 if stored => {
            Values::Int(numbers(raw, |bytes| i32::from_le_bytes(bytes).into())?)
        }
        proto::INT16 if stored => {
            Values::Int(numbers(raw, |bytes| i16::from_le_bytes(bytes).into())?)
        }
        proto::UINT16 if stored => {
            Values::Int(numbers(raw, |bytes| u16::from_le_bytes(bytes).into())?)
        }
        proto::UINT8 | proto::BOOL if stored => {
            Values::Int(raw.iter().map(|&v| v.into()).collect())
        }
        proto::INT8 if stored => Values::Int(raw.iter().map(|&v| (v as i8).into()).collect()),
        proto::INT32 | proto::INT16 | proto::UINT16 | proto::UINT8 | proto::INT8 | proto::BOOL => {
            Values::Int(tensor.int32_data.iter().map(|&v| v.into()).collect())
        }
        other => {
            return Err(format!(
                "numbers in {}, which are not read; export the model in floats, or quantize it to 8 \
                 bits",
                type_name(other)
            ));
        }
    })
}

/// The part of another file that holds a constant.
fn external(entries: &[proto::StringEntry], outside: &Outside<'_>) -> Result<Vec<u8>, String> {
    use std::io::{Read, Seek, SeekFrom};
    let entry = |key: &str| entries.iter().find(|e| e.key == key).map(|e| e.value.as_str());
    let number = |key: &str| match entry(key) {
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| format!("{key} `{text}`")),
        None => Ok(None),
    };
    let location = entry("location").ok_or("numbers in another file, which is not named")?;
    // Nothing outside of the model's folder is read.
    let plain = Path::new(location)
        .components()
        .all(|c| matches!(c, std::path::Component::Normal(_) | std::path::Component::CurDir));
    if !plain {
        return Err(format!("numbers in `{location}`, which is not below the model's folder"));
    }
    let folder = outside.folder.ok_or("numbers in another file, which only initializers have")?;
    let path = folder.join(location);
    let read = || -> std::io::Result<Vec<u8>> {
        // A pipe would be waited for.
        if !std::fs::metadata(&path)?.is_file() {
            return Err(std::io::Error::other("is no file"));
        }
        outside.check(&path)?;
        let mut file = std::fs::File::open(&path)?;
        let size = file.metadata()?.len();
        let offset = number("offset").map_err(std::io::Error::other)?.unwrap_or(0);
        let rest = size.saturating_sub(offset);
        let length = number("length").map_err(std::io::Error::other)?.unwrap_or(rest);
        if length > rest {
            return Err(std::io::Error::other(format!(
                "ends after {size} bytes, before {length} from {offset} on"
            )));
        }
        let mut files = outside.left.borrow_mut();
        let left = files.entry(path.clone()).or_insert(size.saturating_mul(COPIES));
        *left = left.checked_sub(length).ok_or_else(|| {
            std::io::Error::other("is read far more often than it is long; the model is damaged")
        })?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = vec![0; length as usize];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|e| format!("{}: {e}", path.display()))
}
