//! What a TensorFlow Lite file says, table by table.

use super::Fault;
use core::cell::Cell;
use flatbuffers::InvalidFlatbuffer;
use formats::flatbuffer::{Table, part};
use formats::onnx as proto;
use std::collections::HashSet;

/// Numbers of operators (`BuiltinOperator`) that are read or often met, and their names.
const OPERATORS: [(i32, &str); 45] = [
    (0, "ADD"),
    (1, "AVERAGE_POOL_2D"),
    (2, "CONCATENATION"),
    (3, "CONV_2D"),
    (4, "DEPTHWISE_CONV_2D"),
    (6, "DEQUANTIZE"),
    (9, "FULLY_CONNECTED"),
    (14, "LOGISTIC"),
    (16, "LSTM"),
    (17, "MAX_POOL_2D"),
    (18, "MUL"),
    (19, "RELU"),
    (20, "RELU_N1_TO_1"),
    (21, "RELU6"),
    (22, "RESHAPE"),
    (23, "RESIZE_BILINEAR"),
    (25, "SOFTMAX"),
    (28, "TANH"),
    (32, "CUSTOM"),
    (34, "PAD"),
    (36, "GATHER"),
    (37, "BATCH_TO_SPACE_ND"),
    (38, "SPACE_TO_BATCH_ND"),
    (39, "TRANSPOSE"),
    (40, "MEAN"),
    (41, "SUB"),
    (42, "DIV"),
    (43, "SQUEEZE"),
    (45, "STRIDED_SLICE"),
    (49, "SPLIT"),
    (50, "LOG_SOFTMAX"),
    (53, "CAST"),
    (54, "PRELU"),
    (56, "ARG_MAX"),
    (60, "PADV2"),
    (65, "SLICE"),
    (70, "EXPAND_DIMS"),
    (74, "SUM"),
    (82, "REDUCE_MAX"),
    (97, "RESIZE_NEAREST_NEIGHBOR"),
    (98, "LEAKY_RELU"),
    (114, "QUANTIZE"),
    (117, "HARD_SWISH"),
    (126, "BATCH_MATMUL"),
    (150, "GELU"),
];
/// How often the numbers of a file's lists may be copied.
const COPIES: usize = 4;
/// What a tensor or a layer counts itself, in numbers.
const COST: usize = 64;
/// Most dimensions of a tensor.
const MAX_RANK: usize = 8;
/// Longest name that is kept whole.
const MAX_NAME_BYTES: usize = 512;

/// A value of the file (`Tensor`).
pub(super) struct Tensor<'a> {
    /// Its dimensions; −1 where the file leaves one open.
    pub(super) dims: Vec<i64>,
    pub(super) data_type: i32,
    /// The file's own number of the type.
    tensor_type: i8,
    /// Numbers; empty where they are computed.
    pub(super) data: &'a [u8],
    pub(super) name: String,
    pub(super) scales: Vec<f32>,
    pub(super) zero_points: Vec<i64>,
    /// The dimension that scales belong to.
    pub(super) axis: i64,
}

impl Tensor<'_> {
    pub(super) fn is_quantized(&self) -> bool {
        !self.scales.is_empty() && self.data_type != proto::FLOAT
    }

    pub(super) fn type_name(&self) -> String {
        const NAMES: &str = "\
            float32 float16 int32 uint8 int64 string bool int16 complex64 int8 float64 \
            complex128 uint64 resource variant uint32 uint16 int4 bfloat16 int2";
        let name = usize::try_from(self.tensor_type).ok().and_then(|i| NAMES.split(' ').nth(i));
        name.map_or_else(|| format!("type {}", self.tensor_type), Into::into)
    }

    /// Dimensions, axes and borders, which are integers of 32 or 64 bits.
    pub(super) fn to_ints(&self) -> Option<Vec<i64>> {
        let wide = |bytes: &[u8; 4]| i32::from_le_bytes(*bytes).into();
        match self.data_type {
            _ if self.data.is_empty() => None,
            proto::INT32 => Some(self.data.as_chunks().0.iter().map(wide).collect()),
            proto::INT64 => {
                Some(self.data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect())
            }
            _ => None,
        }
    }
}

/// A layer of the file (`Operator`).
pub(super) struct Layer<'a> {
    pub(super) operator: i32,
    /// Of an operator that the file brings itself.
    pub(super) custom: String,
    /// Indices of tensors; −1 where one is left out.
    pub(super) inputs: Vec<i32>,
    pub(super) outputs: Vec<i32>,
    pub(super) options: Option<Table<'a>>,
}

impl Layer<'_> {
    pub(super) fn operator_name(&self) -> String {
        let known = OPERATORS.iter().find(|(number, _)| *number == self.operator);
        match known {
            _ if !self.custom.is_empty() => self.custom.clone(),
            Some((_, name)) => (*name).into(),
            None => format!("operator {}", self.operator),
        }
    }

    /// A number of the options; zero where it is left out.
    fn option<const N: usize>(
        &self,
        field: u16,
        read: fn([u8; N]) -> i64,
    ) -> Result<i64, InvalidFlatbuffer> {
        self.options.map_or(Ok(0), |options| options.number(field, read, 0))
    }

    pub(super) fn byte(&self, field: u16) -> Result<i64, InvalidFlatbuffer> {
        self.option(field, |[byte]| byte.into())
    }

    pub(super) fn int(&self, field: u16) -> Result<i64, InvalidFlatbuffer> {
        self.option(field, |bytes| i32::from_le_bytes(bytes).into())
    }
}

/// What is read of a file: its first graph.
pub(super) struct File<'a> {
    /// How long it is.
    pub(super) bytes: usize,
    pub(super) tensors: Vec<Tensor<'a>>,
    pub(super) layers: Vec<Layer<'a>>,
    pub(super) inputs: Vec<i32>,
    pub(super) outputs: Vec<i32>,
}

impl<'a> File<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Fault> {
        let model = Table::root(bytes)?;
        let buffers = model.tables(4)?;
        let codes = model.tables(1)?;
        let graphs = model.tables(2)?;
        let graph = graphs.first();
        let graph = graph.ok_or_else(|| Fault::Unsupported("a model without a graph".into()))?;
        // Tables may share what they list, which is copied here.
        let room = Cell::new(bytes.len() * COPIES);
        let counted = |len: usize| {
            let what = "tensors or layers that share their lists too often; the file is damaged";
            let left = room.get().checked_sub(len);
            room.set(left.ok_or_else(|| Fault::Unsupported(what.into()))?);
            Ok::<_, Fault>(())
        };
        let tensor = |table: &Table<'a>| -> Result<Tensor<'a>, Fault> {
            let buffer = table.number(2, u32::from_le_bytes, 0)? as usize;
            let data = match buffers.get(buffer) {
                Some(buffer) => data(bytes, *buffer)?,
                None => &[],
            };
            let [shape, signature] = [0, 7].map(|field| table.numbers(field, i32::from_le_bytes));
            let (shape, signature) = (shape?, signature?);
            let name = short(table.bytes(3)?);
            counted(shape.len() + signature.len() + name.len() + COST)?;
            let dims = if signature.is_empty() { shape } else { signature };
            if dims.len() > MAX_RANK {
                let what = format!("a tensor of {} dimensions; the file is damaged", dims.len());
                return Err(Fault::Unsupported(what));
            }
            let quantization = table.table(4)?;
            let (mut scales, mut zero_points, mut axis) = (Vec::new(), Vec::new(), 0);
            if let Some(q) = quantization {
                scales = q.numbers(2, f32::from_le_bytes)?;
                zero_points = q.numbers(3, i64::from_le_bytes)?;
                axis = q.number(6, i32::from_le_bytes, 0)?.into();
                counted(scales.len() + zero_points.len())?;
            }
            let tensor_type = table.number(1, i8::from_le_bytes, 0)?;
            Ok(Tensor {
                dims: dims.into_iter().map(i64::from).collect(),
                data_type: data_type(tensor_type),
                tensor_type,
                data,
                name,
                scales,
                zero_points,
                axis,
            })
        };
        let layer = |table: Table<'a>| -> Result<Layer<'a>, Fault> {
            let code = codes.get(table.number(0, u32::from_le_bytes, 0)? as usize);
            let code = code.ok_or_else(|| Fault::Unsupported("an operator without code".into()))?;
            // The first field holds what fits a byte, and is all that old files have.
            let old = i32::from(code.number(0, i8::from_le_bytes, 0)?);
            let [inputs, outputs] = [1, 2].map(|field| table.numbers(field, i32::from_le_bytes));
            let (inputs, outputs) = (inputs?, outputs?);
            let custom = short(code.bytes(1)?);
            counted(inputs.len() + outputs.len() + custom.len() + COST)?;
            Ok(Layer {
                operator: old.max(code.number(3, i32::from_le_bytes, 0)?),
                custom,
                inputs,
                outputs,
                options: table.table(4)?,
            })
        };
        Ok(Self {
            bytes: bytes.len(),
            tensors: graph.tables(0)?.iter().map(tensor).collect::<Result<_, _>>()?,
            layers: graph.tables(3)?.into_iter().map(layer).collect::<Result<_, _>>()?,
            inputs: graph.numbers(1, i32::from_le_bytes)?,
            outputs: graph.numbers(2, i32::from_le_bytes)?,
        })
    }

    pub(super) fn tensor(&self, index: i32) -> Result<&Tensor<'a>, Fault> {
        usize::try_from(index)
            .ok()
            .and_then(|i| self.tensors.get(i))
            .ok_or_else(|| Fault::Unsupported(format!("a layer names tensor {index}, of none")))
    }

    /// The operands of a layer that become operands of a node.
    pub(super) fn operands<'b>(&self, layer: &'b Layer<'_>) -> &'b [i32] {
        match layer.operator_name().as_str() {
            // The others say what the shape of the result says, too.
            "RESHAPE" | "SQUEEZE" | "EXPAND_DIMS" | "MEAN" | "REDUCE_MAX" | "TRANSPOSE" | "PAD"
            | "STRIDED_SLICE" => layer.inputs.get(..1).unwrap_or(&[]),
            _ => &layer.inputs,
        }
    }

    /// Tensors that outputs depend on.
    pub(super) fn needed(&self) -> HashSet<i32> {
        let mut needed: HashSet<i32> = self.outputs.iter().copied().collect();
        for layer in self.layers.iter().rev() {
            if layer.outputs.iter().any(|o| needed.contains(o)) {
                needed.extend(self.operands(layer));
            }
        }
        needed
    }
}

/// A name; of one that is too long for people, its beginning.
fn short(name: &[u8]) -> String {
    String::from_utf8_lossy(&name[..name.len().min(MAX_NAME_BYTES)]).into_owned()
}

/// The numbers of a `Buffer`, which in files beyond 2 GiB lie behind all tables.
fn data<'a>(file: &'a [u8], buffer: Table<'a>) -> Result<&'a [u8], InvalidFlatbuffer> {
    let [offset, size] = [1, 2].map(|field| buffer.number(field, u64::from_le_bytes, 0));
    match (offset?, size?) {
        (0 | 1, _) => buffer.bytes(0),
        (offset, size) => part(
            file,
            usize::try_from(offset).unwrap_or(usize::MAX),
            usize::try_from(size).unwrap_or(usize::MAX),
        ),
    }
}

/// ONNX's number of a `TensorType`; zero, which is none, for those that are not read.
fn data_type(tensor_type: i8) -> i32 {
    match tensor_type {
        0 => proto::FLOAT,
        1 => proto::FLOAT16,
        2 => proto::INT32,
        3 => proto::UINT8,
        4 => proto::INT64,
        9 => proto::INT8,
        18 => proto::BFLOAT16,
        _ => 0,
    }
}
