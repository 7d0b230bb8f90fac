//! The messages of ONNX (`onnx.proto`) that are written and read,
//! with just the fields they need. Repeated numbers are written unpacked, as the schema declares
//! them, and read either way.

/// A model.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Model {
    #[prost(int64, optional, tag = "1")]
    pub ir_version: Option<i64>,
    #[prost(string, tag = "2")]
    pub producer_name: String,
    #[prost(string, tag = "3")]
    pub producer_version: String,
    #[prost(message, optional, tag = "7")]
    pub graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSet>,
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<StringEntry>,
}

/// Version of the operators used.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OperatorSet {
    /// Empty for ONNX's own operators.
    #[prost(string, optional, tag = "1")]
    pub domain: Option<String>,
    #[prost(int64, optional, tag = "2")]
    pub version: Option<i64>,
}

/// One metadata entry.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StringEntry {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// Nodes in topological order, constants, inputs and outputs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<Node>,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<Tensor>,
    #[prost(string, tag = "10")]
    pub doc_string: String,
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfo>,
}

/// One operation.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Node {
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<Attribute>,
    /// Whose operator it is; empty for ONNX's own.
    #[prost(string, tag = "7")]
    pub domain: String,
}

/// A named constant of an operation; exactly one of the value fields is set.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Attribute {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(float, optional, tag = "2")]
    pub f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    pub i: Option<i64>,
    /// Text.
    #[prost(bytes = "vec", tag = "4")]
    pub s: Vec<u8>,
    #[prost(message, optional, tag = "5")]
    pub t: Option<Tensor>,
    /// A branch.
    #[prost(message, optional, boxed, tag = "6")]
    pub g: Option<Box<Graph>>,
    #[prost(float, repeated, packed = "false", tag = "7")]
    pub floats: Vec<f32>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    #[prost(enumeration = "AttributeType", optional, tag = "20")]
    pub r#type: Option<i32>,
}

/// Which value field of an [`Attribute`] is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum AttributeType {
    Float = 1,
    Int = 2,
    Ints = 7,
}

/// A constant; one of the fields holds its numbers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Tensor {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dims: Vec<i64>,
    /// [`FLOAT`] and others.
    #[prost(int32, optional, tag = "2")]
    pub data_type: Option<i32>,
    #[prost(float, repeated, packed = "true", tag = "4")]
    pub float_data: Vec<f32>,
    /// Also bytes and the bits of halves.
    #[prost(int32, repeated, packed = "true", tag = "5")]
    pub int32_data: Vec<i32>,
    #[prost(int64, repeated, packed = "true", tag = "7")]
    pub int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    pub name: String,
    /// Row-major little-endian values.
    #[prost(bytes = "vec", tag = "9")]
    pub raw_data: Vec<u8>,
    #[prost(double, repeated, packed = "true", tag = "10")]
    pub double_data: Vec<f64>,
    /// Where the numbers lie in another file: `location`, `offset`, `length`.
    #[prost(message, repeated, tag = "13")]
    pub external_data: Vec<StringEntry>,
    /// [`EXTERNAL`] where they do.
    #[prost(int32, optional, tag = "14")]
    pub data_location: Option<i32>,
}

/// `TensorProto.DataLocation.EXTERNAL`.
pub const EXTERNAL: i32 = 1;
/// `TensorProto.DataType.FLOAT`: f32.
pub const FLOAT: i32 = 1;
/// u8.
pub const UINT8: i32 = 2;
/// i8.
pub const INT8: i32 = 3;
/// u16.
pub const UINT16: i32 = 4;
/// i16.
pub const INT16: i32 = 5;
/// i32.
pub const INT32: i32 = 6;
/// i64.
pub const INT64: i32 = 7;
/// One byte, zero or one.
pub const BOOL: i32 = 9;
/// IEEE half.
pub const FLOAT16: i32 = 10;
/// f64.
pub const DOUBLE: i32 = 11;
/// bfloat16.
pub const BFLOAT16: i32 = 16;

/// Name and type of an input or output.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ValueInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<Type>,
}

/// Type of a value; only tensors here.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Type {
    #[prost(message, optional, tag = "1")]
    pub tensor_type: Option<TensorType>,
}

/// Number format and shape.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TensorType {
    #[prost(int32, optional, tag = "1")]
    pub elem_type: Option<i32>,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<TensorShape>,
}

/// Dimensions.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TensorShape {
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<Dimension>,
}

/// One dimension.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Dimension {
    #[prost(int64, optional, tag = "1")]
    pub dim_value: Option<i64>,
}

impl Node {
    /// An operator of one output.
    pub fn new(op_type: &str, inputs: &[&str], output: &str) -> Self {
        Self {
            input: inputs.iter().map(|&i| i.into()).collect(),
            output: vec![output.into()],
            op_type: op_type.into(),
            ..Self::default()
        }
    }

    /// With another attribute: a number.
    pub fn int(mut self, name: &str, value: i64) -> Self {
        self.attribute.push(Attribute::int(name, value));
        self
    }

    /// Several numbers.
    pub fn ints(mut self, name: &str, values: &[i64]) -> Self {
        self.attribute.push(Attribute::ints(name, values));
        self
    }
}

impl Tensor {
    /// A constant of floats.
    pub fn floats(name: &str, dims: &[i64], values: &[f32]) -> Self {
        Self { float_data: values.to_vec(), ..Self::raw(name, dims, FLOAT, Vec::new()) }
    }

    /// A constant of integers.
    pub fn ints(name: &str, dims: &[i64], values: &[i64]) -> Self {
        Self { int64_data: values.to_vec(), ..Self::raw(name, dims, INT64, Vec::new()) }
    }

    /// A constant of little-endian numbers.
    pub fn raw(name: &str, dims: &[i64], data_type: i32, raw_data: Vec<u8>) -> Self {
        let (name, dims, data_type) = (name.into(), dims.to_vec(), Some(data_type));
        Self { name, dims, data_type, raw_data, ..Self::default() }
    }
}

impl Attribute {
    /// A number.
    pub fn int(name: &str, value: i64) -> Self {
        let r#type = Some(AttributeType::Int.into());
        Self { name: name.into(), i: Some(value), r#type, ..Default::default() }
    }

    /// Several numbers.
    pub fn ints(name: &str, values: &[i64]) -> Self {
        let r#type = Some(AttributeType::Ints.into());
        Self { name: name.into(), ints: values.to_vec(), r#type, ..Default::default() }
    }

    /// A real number.
    pub fn float(name: &str, value: f32) -> Self {
        let r#type = Some(AttributeType::Float.into());
        Self { name: name.into(), f: Some(value), r#type, ..Default::default() }
    }
}

impl ValueInfo {
    /// A tensor; dimensions that are not positive are open.
    pub fn tensor(name: &str, data_type: i32, dims: &[i64]) -> Self {
        let dim = |&d: &i64| Dimension { dim_value: Some(d).filter(|&d| d > 0) };
        let shape = Some(TensorShape { dim: dims.iter().map(dim).collect() });
        let tensor_type = Some(TensorType { elem_type: Some(data_type), shape });
        Self { name: name.into(), r#type: Some(Type { tensor_type }) }
    }
}
