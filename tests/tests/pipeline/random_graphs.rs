//! Random well-formed ONNX graphs: what is read of them computes what tract does of the very file, and
//! int8 of them what its formulas say. `tests/packages/random_graphs.py` asks onnxruntime, too.

use convert::pipeline::{Options, Quantize, convert};
use convert::verify::{source, verify};
use formats::onnx::{self as proto, FLOAT, Graph, Model, Node, OperatorSet, Tensor, ValueInfo};
use network::random::Rng;
use prost::Message;
use std::path::{Path, PathBuf};
use zoo::{Head, Hints, Imported, open_any};

/// Graphs of a test run.
const COUNT: usize = 300;
/// Those about which tract is wrong, or rounds otherwise where a mean is nearly zero: onnxruntime says what we do, to seven
/// digits. Of others, it is one in two hundred.
const TRACT_ERRS: [usize; 2] = [98, 103];
/// `AttributeProto.AttributeType.STRING`.
const TEXT: i32 = 3;
/// Multiply-accumulates of a graph, at most: random depths and widths can be large.
const MAX_WORK: u64 = 1 << 24;

#[test]
fn random_graphs_compute_what_others_do() {
    // For onnxruntime: as many as it likes, into a folder.
    if let Ok(wanted) = std::env::var("EDGE_GRAPHS") {
        let (count, folder) = wanted.split_once(':').expect("COUNT:FOLDER");
        return (0..count.parse().expect("a number")).for_each(|seed| {
            write(Path::new(folder), seed);
        });
    }
    let folder = tempfile::tempdir().unwrap();
    let (mut compared, mut refused, mut wrong) = (0, Vec::new(), Vec::new());
    for seed in (0..COUNT).filter(|seed| !TRACT_ERRS.contains(seed)) {
        match outcome(&write(folder.path(), seed)) {
            Ok(()) => compared += 1,
            Err(Outcome::Refused(why)) => refused.push(format!("{seed}: {why}")),
            Err(Outcome::Wrong(why)) => wrong.push(format!("{seed}: {why}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(compared * 4 >= COUNT * 3, "only {compared} of {COUNT} were compared: {refused:#?}");
}

/// Writes the graph of a seed, and says where.
fn write(folder: &Path, seed: usize) -> PathBuf {
    let file = folder.join(format!("{seed}.onnx"));
    std::fs::write(&file, Builder::graph(seed as u64).encode_to_vec()).unwrap();
    file
}

enum Outcome {
    Refused(String),
    Wrong(String),
}

/// Whether a file becomes one that computes the same, in floats and in int8.
fn outcome(file: &Path) -> Result<(), Outcome> {
    let refused = |why: &dyn ToString| Outcome::Refused(why.to_string());
    let model = match open_any(file, Head::Optional, &Hints::default()) {
        Ok(Imported::Graph(model)) => model,
        Ok(Imported::Checkpoint(_)) => return Err(refused(&"is a checkpoint")),
        Err(e) => return Err(refused(&e)),
    };
    if model.graph.macs() > MAX_WORK {
        return Err(refused(&"is large"));
    }
    let options = Options { quantize: Quantize::None, ..Options::default() };
    let float = convert(&model, &[], options, |_, _| ()).map_err(|e| refused(&e))?;
    let against_source = match source::compare(&model, &float, &[]) {
        Ok(Some(Ok(check))) => check,
        Ok(Some(Err(why))) => return Err(refused(&format!("tract {why}"))),
        other => return Err(Outcome::Wrong(format!("{other:?}"))),
    };
    let mut rng = Rng::keyed(&[7]);
    let len = model.graph.input_shape().len();
    let pictures: Vec<_> = (0..4).map(|_| rng.around(len, 0.0, 2.0)).collect();
    let options = Options { quantize: Quantize::Int8, ..Options::default() };
    let int8 = convert(&model, &pictures, options, |_, _| ()).map_err(|e| refused(&e))?;
    let (mut checks, _) =
        verify(&int8, &model.preprocess, &pictures).map_err(|e| Outcome::Wrong(e.to_string()))?;
    checks.push(against_source);
    match checks.into_iter().find(|check| !check.is_passed()) {
        Some(check) => Err(Outcome::Wrong(format!("{check:?}"))),
        None => Ok(()),
    }
}

/// A map that a graph has computed: `[1, c, h, w]`.
#[derive(Debug, Clone)]
struct Map {
    name: String,
    c: usize,
    h: usize,
    w: usize,
}

/// Writes a graph, operator by operator.
struct Builder {
    rng: Rng,
    opset: i64,
    graph: Graph,
    maps: Vec<Map>,
    names: usize,
}

impl Builder {
    /// The graph of a seed, always the same.
    fn graph(seed: u64) -> Model {
        let mut rng = Rng::keyed(&[seed, 0x9a7]);
        let side = |rng: &mut Rng| 6 + rng.below(15);
        let (h, w, c) = (side(&mut rng), side(&mut rng), [1, 3][rng.below(2)]);
        let opset = [11, 13, 14, 17, 18][rng.below(5)];
        let batch = rng.below(2) as i64;
        let dims = [batch, c as i64, h as i64, w as i64];
        let graph = Graph {
            name: format!("random {seed}"),
            input: vec![ValueInfo::tensor("picture", FLOAT, &dims)],
            ..Graph::default()
        };
        let maps = vec![Map { name: "picture".into(), c, h, w }];
        let mut builder = Self { rng, opset, graph, maps, names: 0 };
        for _ in 0..2 + builder.rng.below(12) {
            builder.step();
        }
        builder.head();
        Model {
            ir_version: Some(8),
            graph: Some(builder.graph),
            opset_import: vec![OperatorSet { domain: None, version: Some(opset) }],
            ..Model::default()
        }
    }

    /// The last map most often, so that graphs are deep; others make them wide.
    fn map(&mut self) -> Map {
        let last = self.maps.len() - 1;
        let at = if self.rng.below(4) == 0 { self.rng.below(self.maps.len()) } else { last };
        self.maps[at].clone()
    }

    fn chance(&mut self, of: usize) -> bool {
        self.rng.below(of) == 0
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("value {}", self.names)
    }

    fn add(&mut self, node: Node) {
        self.graph.node.push(node);
    }

    /// An operator's value.
    fn op(&mut self, kind: &str, inputs: &[&str]) -> String {
        self.with(Node::new(kind, inputs, ""))
    }

    fn with(&mut self, mut node: Node) -> String {
        let name = self.name();
        node.output = vec![name.clone()];
        self.add(node);
        name
    }

    fn constant(&mut self, tensor: Tensor) -> String {
        let name = self.name();
        self.graph.initializer.push(Tensor { name: name.clone(), ..tensor });
        name
    }

    fn floats(&mut self, dims: &[usize], center: f32, spread: f32) -> String {
        let values = self.rng.around(dims.iter().product(), center, spread);
        let dims: Vec<_> = dims.iter().map(|&d| d as i64).collect();
        self.constant(Tensor::floats("", &dims, &values))
    }

    fn integers(&mut self, values: &[i64]) -> String {
        self.constant(Tensor::ints("", &[values.len() as i64], values))
    }

    fn number(&mut self, value: f32) -> String {
        self.constant(Tensor::floats("", &[], &[value]))
    }

    fn keep(&mut self, name: String, like: &Map) {
        self.maps.push(Map { name, ..like.clone() });
    }

    fn step(&mut self) {
        let x = self.map();
        match self.rng.below(16) {
            0..=3 => self.convolution(&x),
            4 | 5 => self.activation(&x),
            6 => self.batch_norm(&x),
            7 => self.arithmetic(&x),
            8 => self.sum(&x),
            9 => self.concat(&x),
            10 | 11 => self.pool(&x),
            12 => self.pad(&x),
            13 => self.excite(&x),
            14 => self.parts(&x),
            _ => self.orders(&x),
        }
    }

    /// Kernel, stride, dilation and borders of a window, as attributes; the sides that it leaves.
    fn window(&mut self, x: &Map, node: Node, is_pool: bool) -> Option<(Node, [usize; 2])> {
        let mut sides = [x.h, x.w];
        let square = !self.chance(4);
        let any = |rng: &mut Rng, choices: &[usize]| {
            let first = choices[rng.below(choices.len())];
            let second = choices[rng.below(choices.len())];
            [first, if square { first } else { second }]
        };
        let kernel = any(&mut self.rng, if is_pool { &[2, 3] } else { &[1, 3, 3, 2, 5] });
        let stride = any(&mut self.rng, &[1, 1, 2, 3]);
        let dilation =
            if !is_pool && self.chance(40) { any(&mut self.rng, &[1, 2]) } else { [1; 2] };
        let way = self.rng.below(6);
        let ceil = is_pool && way > 2 && self.chance(3);
        let mut pads = [0_usize; 4];
        for axis in 0..2 {
            let reach = dilation[axis] * (kernel[axis] - 1) + 1;
            let most = kernel[axis].min(reach) - 1;
            let even = self.rng.below(most + 1);
            let side = sides[axis];
            let mut left = None;
            match way {
                0 | 1 => left = Some(side.div_ceil(stride[axis])),
                2 => {}
                3 => (pads[axis], pads[axis + 2]) = (even, self.rng.below(most + 1)),
                _ => (pads[axis], pads[axis + 2]) = (even, even),
            }
            let room = (side + pads[axis] + pads[axis + 2]).checked_sub(reach)?;
            let step = stride[axis];
            sides[axis] = left.unwrap_or_else(|| {
                let mut out = room / step + 1;
                // A window that begins beyond the map and its border is none.
                if ceil && room % step > 0 && out * step < side + pads[axis] {
                    out += 1;
                }
                out
            });
        }
        let as_ints = |v: &[usize]| v.iter().map(|&v| v as i64).collect::<Vec<_>>();
        let mut node =
            node.ints("kernel_shape", &as_ints(&kernel)).ints("strides", &as_ints(&stride));
        if dilation != [1; 2] {
            node = node.ints("dilations", &as_ints(&dilation));
        }
        if ceil {
            node = node.int("ceil_mode", 1);
        }
        let text = |s: &str| proto::Attribute {
            name: "auto_pad".into(),
            s: s.into(),
            r#type: Some(TEXT),
            ..proto::Attribute::default()
        };
        match way {
            0 => node.attribute.push(text("SAME_UPPER")),
            1 => node.attribute.push(text("SAME_LOWER")),
            2 => node.attribute.push(text("VALID")),
            _ => node = node.ints("pads", &as_ints(&pads)),
        }
        Some((node, sides))
    }

    fn convolution(&mut self, x: &Map) {
        let divisors: Vec<_> = (1..=x.c).filter(|g| x.c.is_multiple_of(*g)).collect();
        let groups = match self.rng.below(3) {
            0 => 1,
            1 => x.c,
            _ => divisors[self.rng.below(divisors.len())],
        };
        let c = groups * (1 + self.rng.below(12usize.div_ceil(groups)));
        let Some((node, [h, w])) = self.window(x, Node::new("Conv", &[], ""), false) else {
            return;
        };
        let kernel = node.attribute[0].ints.clone();
        let kernel = [kernel[0] as usize, kernel[1] as usize];
        let depth = x.c / groups;
        let spread = 1.7 / ((depth * kernel[0] * kernel[1]) as f32).sqrt();
        let mut inputs =
            vec![x.name.clone(), self.floats(&[c, depth, kernel[0], kernel[1]], 0.0, spread)];
        if self.chance(2) {
            inputs.push(self.floats(&[c], 0.0, 0.5));
        }
        let node = Node { input: inputs, ..node };
        let node = if groups > 1 { node.int("group", groups as i64) } else { node };
        let name = self.with(node);
        self.maps.push(Map { name, c, h, w });
    }

    fn activation(&mut self, x: &Map) {
        let i = x.name.as_str();
        let out = match self.rng.below(8) {
            0 | 1 => self.op("Relu", &[i]),
            2 => {
                let (low, high) = (-(self.rng.unit() as f32), 0.5 + self.rng.unit() as f32 * 6.0);
                let low = if self.chance(3) { String::new() } else { self.number(low) };
                let high = if self.chance(3) { String::new() } else { self.number(high) };
                self.op("Clip", &[i, &low, &high])
            }
            3 if self.opset >= 14 => self.op("HardSwish", &[i]),
            3 | 4 => {
                let mut node = Node::new("HardSigmoid", &[i], "");
                node.attribute.push(proto::Attribute::float("alpha", 1.0 / 6.0));
                let gate = self.with(node);
                if self.chance(2) { self.op("Mul", &[i, &gate]) } else { gate }
            }
            5 => {
                let [three, zero, six] = [3.0, 0.0, 6.0].map(|v| self.number(v));
                let sum = self.op("Add", &[i, &three]);
                let part = self.op("Clip", &[&sum, &zero, &six]);
                let product = self.op("Mul", &[i, &part]);
                self.op("Div", &[&product, &six])
            }
            6 => self.op("Sigmoid", &[i]),
            _ => {
                let gate = self.op("Sigmoid", &[i]);
                self.op("Mul", &[&gate, i])
            }
        };
        self.keep(out, x);
    }

    fn batch_norm(&mut self, x: &Map) {
        let c = [x.c];
        let [scale, shift, mean, variance] = [
            self.floats(&c, 1.0, 0.5),
            self.floats(&c, 0.0, 0.5),
            self.floats(&c, 0.0, 0.5),
            self.floats(&c, 1.0, 0.7),
        ];
        let inputs = [&x.name, &scale, &shift, &mean, &variance].map(String::as_str);
        let mut node = Node::new("BatchNormalization", &inputs, "");
        if self.chance(2) {
            node.attribute.push(proto::Attribute::float("epsilon", 1e-3));
        }
        let out = self.with(node);
        self.keep(out, x);
    }

    /// With a constant of each shape that broadcasts over channels.
    fn arithmetic(&mut self, x: &Map) {
        let dims: &[usize] = match self.rng.below(4) {
            0 => &[],
            1 => &[1],
            2 => &[x.c, 1, 1],
            _ => &[1, x.c, 1, 1],
        };
        let constant = self.floats(dims, 1.0, 0.7);
        let (i, k) = (x.name.as_str(), constant.as_str());
        let out = match self.rng.below(6) {
            0 => self.op("Add", &[i, k]),
            1 => self.op("Add", &[k, i]),
            2 => self.op("Sub", &[i, k]),
            3 => self.op("Sub", &[k, i]),
            4 => self.op("Mul", &[i, k]),
            _ => self.op("Div", &[i, k]),
        };
        self.keep(out, x);
    }

    /// Another map that has the same sides, and channels where that matters; or the map itself.
    fn like(&mut self, x: &Map, channels: bool) -> Map {
        let fits = |m: &&Map| (m.h, m.w) == (x.h, x.w) && (!channels || m.c == x.c);
        let others: Vec<Map> = self.maps.iter().filter(fits).cloned().collect();
        others[self.rng.below(others.len())].clone()
    }

    fn sum(&mut self, x: &Map) {
        let y = self.like(x, true);
        let out = match self.rng.below(4) {
            0 => {
                let z = self.like(x, true);
                self.op("Sum", &[&x.name, &y.name, &z.name])
            }
            1 => {
                // The usual end of a shortcut.
                let sum = self.op("Add", &[&x.name, &y.name]);
                self.op("Relu", &[&sum])
            }
            _ => self.op("Add", &[&x.name, &y.name]),
        };
        self.keep(out, x);
    }

    fn concat(&mut self, x: &Map) {
        let y = self.like(x, false);
        if x.c + y.c > 32 {
            return;
        }
        let out = self.with(Node::new("Concat", &[&x.name, &y.name], "").int("axis", 1));
        self.maps.push(Map { name: out, c: x.c + y.c, ..x.clone() });
    }

    fn pool(&mut self, x: &Map) {
        let is_max = self.chance(2);
        let kind = if is_max { "MaxPool" } else { "AveragePool" };
        let Some((node, [h, w])) = self.window(x, Node::new(kind, &[&x.name], ""), true) else {
            return;
        };
        let counts = !is_max && self.chance(2);
        let node = if counts { node.int("count_include_pad", 1) } else { node };
        let name = self.with(node);
        self.maps.push(Map { name, c: x.c, h, w });
    }

    fn pad(&mut self, x: &Map) {
        let [top, left, bottom, right] = [(); 4].map(|()| self.rng.below(3));
        let pads = [0, 0, top, left, 0, 0, bottom, right].map(|p| p as i64);
        let pads = self.integers(&pads);
        let name = self.op("Pad", &[&x.name, &pads]);
        let (h, w) = (x.h + top + bottom, x.w + left + right);
        self.maps.push(Map { name, c: x.c, h, w });
        // Borders are read where a window follows them.
        if !self.chance(8) {
            let padded = self.maps[self.maps.len() - 1].clone();
            self.convolution(&padded);
        }
    }

    /// Means of channels, as a map of one pixel.
    fn mean(&mut self, x: &Map) -> String {
        match self.rng.below(3) {
            0 if self.opset < 18 => {
                let node = Node::new("ReduceMean", &[&x.name], "").ints("axes", &[2, 3]);
                self.with(node.int("keepdims", 1))
            }
            1 => {
                let kernel = [x.h as i64, x.w as i64];
                self.with(Node::new("AveragePool", &[&x.name], "").ints("kernel_shape", &kernel))
            }
            _ => self.op("GlobalAveragePool", &[&x.name]),
        }
    }

    /// A convolution of 1×1.
    fn pointwise(&mut self, x: &str, from: usize, to: usize) -> String {
        let weights = self.floats(&[to, from, 1, 1], 0.0, 1.7 / (from as f32).sqrt());
        let bias = self.floats(&[to], 0.0, 0.5);
        self.op("Conv", &[x, &weights, &bias])
    }

    fn excite(&mut self, x: &Map) {
        let mean = self.mean(x);
        let inner = 1 + self.rng.below(6);
        let squeezed = self.pointwise(&mean, x.c, inner);
        let squeezed = self.op("Relu", &[&squeezed]);
        let gate = self.pointwise(&squeezed, inner, x.c);
        let kind = if self.chance(2) { "Sigmoid" } else { "HardSigmoid" };
        let gate = self.op(kind, &[&gate]);
        let out = self.op("Mul", &[&x.name, &gate]);
        self.keep(out, x);
    }

    /// Some of the channels.
    fn parts(&mut self, x: &Map) {
        if x.c < 2 {
            return;
        }
        let cut = 1 + self.rng.below(x.c - 1);
        if self.chance(2) {
            let [from, to, axis] = [cut, x.c, 1].map(|v| self.integers(&[v as i64]));
            let name = self.op("Slice", &[&x.name, &from, &to, &axis]);
            self.maps.push(Map { name, c: x.c - cut, ..x.clone() });
            return;
        }
        let names = [self.name(), self.name()];
        let mut node = Node::new("Split", &[&x.name], "").int("axis", 1);
        let sizes = [cut, x.c - cut];
        let lengths = sizes.map(|c| c as i64);
        if self.opset < 13 {
            node = node.ints("split", &lengths);
        } else {
            node.input.push(self.integers(&lengths));
        }
        node.output = names.to_vec();
        self.add(node);
        for (name, c) in names.into_iter().zip(sizes) {
            self.maps.push(Map { name, c, ..x.clone() });
        }
    }

    /// Other orders of channels, or of axes.
    fn orders(&mut self, x: &Map) {
        let groups: Vec<_> = (2..x.c).filter(|g| x.c.is_multiple_of(*g)).collect();
        let [c, h, w] = [x.c, x.h, x.w].map(|v| v as i64);
        let out = match groups.as_slice() {
            [_, ..] if self.chance(2) => {
                let g = groups[self.rng.below(groups.len())] as i64;
                let shapes = [self.integers(&[1, g, c / g, h, w]), self.integers(&[1, c, h, w])];
                let split = self.op("Reshape", &[&x.name, &shapes[0]]);
                let turned =
                    self.with(Node::new("Transpose", &[&split], "").ints("perm", &[0, 2, 1, 3, 4]));
                self.op("Reshape", &[&turned, &shapes[1]])
            }
            _ if self.chance(3) => self.op("Identity", &[&x.name]),
            _ => {
                let last =
                    self.with(Node::new("Transpose", &[&x.name], "").ints("perm", &[0, 2, 3, 1]));
                let constant = self.floats(&[x.c], 0.5, 0.5);
                let added = self.op("Add", &[&last, &constant]);
                let added = self.op("Relu", &[&added]);
                self.with(Node::new("Transpose", &[&added], "").ints("perm", &[0, 3, 1, 2]))
            }
        };
        self.keep(out, x);
    }

    /// From the last map to scores.
    fn head(&mut self) {
        let x = self.maps[self.maps.len() - 1].clone();
        let classes = 2 + self.rng.below(7);
        let mut features = x.c;
        let flat = if x.c * x.h * x.w <= 600 && self.chance(3) {
            features = x.c * x.h * x.w;
            self.with(Node::new("Flatten", &[&x.name], "").int("axis", 1))
        } else {
            let mean = self.mean(&x);
            if self.chance(4) {
                let scores = self.pointwise(&mean, x.c, classes);
                let flat = self.op("Flatten", &[&scores]);
                return self.finish(&flat, classes);
            }
            match self.rng.below(3) {
                0 => {
                    let shape = self.integers(&[-1, x.c as i64]);
                    self.op("Reshape", &[&mean, &shape])
                }
                1 if self.opset < 13 => {
                    self.with(Node::new("Squeeze", &[&mean], "").ints("axes", &[2, 3]))
                }
                1 => {
                    let axes = self.integers(&[2, 3]);
                    self.op("Squeeze", &[&mean, &axes])
                }
                _ => self.op("Flatten", &[&mean]),
            }
        };
        let spread = 1.7 / (features as f32).sqrt();
        let bias = self.floats(&[classes], 0.0, 0.5);
        let scores = if self.chance(2) {
            let weights = self.floats(&[classes, features], 0.0, spread);
            self.with(Node::new("Gemm", &[&flat, &weights, &bias], "").int("transB", 1))
        } else {
            let weights = self.floats(&[features, classes], 0.0, spread);
            let product = self.op("MatMul", &[&flat, &weights]);
            self.op("Add", &[&product, &bias])
        };
        self.finish(&scores, classes);
    }

    fn finish(&mut self, scores: &str, classes: usize) {
        let out = match self.rng.below(4) {
            0 => self.with(Node::new("Softmax", &[scores], "").int("axis", 1)),
            _ => scores.into(),
        };
        self.graph.output.push(ValueInfo::tensor(&out, FLOAT, &[0, classes as i64]));
    }
}
