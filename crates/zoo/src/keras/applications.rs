//! Keras Applications' networks, known by the names of their layers.
//!
//! They do not say how pictures are prepared for them, but their package does: ResNets and VGGs as
//! Caffe had them, blue, green and red less their means; ResNets v2 and MobileNets from −1 to 1. Files of nothing
//! but weights name all layers of a ResNet, so that the network can be told from them.

use super::arrays::Arrays;
use super::config::Object;
use super::layers::{Layer, Network};
use super::passed_over::is_passed_over;
use artifact::Preprocess;
use serde_json::{Value, json};

/// Networks that are prepared for alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// ResNet50, ResNet101 and ResNet152.
    ResNet,
    /// ResNet50 of Keras before 2.2.5.
    OldResNet,
    /// ResNet50V2, ResNet101V2 and ResNet152V2.
    ResNetV2,
    /// VGG16 and VGG19.
    Vgg,
    /// MobileNet, MobileNetV2, and MobileNetV3 without its own scaling.
    MobileNet,
}

/// Means of red, green and blue in 0..=255, as Caffe's networks were trained with.
const CAFFE_MEANS: [f32; 3] = [123.68, 116.779, 103.939];

impl Family {
    /// The family of a model whose first layer is one's, if nothing but borders and layers for
    /// training come before it: else the model itself prepares pictures.
    pub(super) fn of(network: &Network) -> Option<Self> {
        let has = |name: &str| network.layers.iter().any(|layer| layer.name == name);
        let family = if has("conv1_conv") && has("conv2_block1_1_conv") {
            if has("post_bn") { Self::ResNetV2 } else { Self::ResNet }
        } else if has("conv1") && has("bn_conv1") && has("res2a_branch2a") {
            Self::OldResNet
        } else if has("block1_conv1") && has("block1_conv2") && has("block5_conv3") {
            Self::Vgg
        } else if has("conv_dw_1")
            || has("expanded_conv_depthwise")
            || has("expanded_conv/depthwise")
        {
            Self::MobileNet
        } else {
            return None;
        };
        let mut layer = network.layers.iter().find(|layer| family.first_layer(layer))?;
        while layer.class != "InputLayer" {
            let mut inputs = layer.inputs();
            let (Some(input), None) = (inputs.next(), inputs.next()) else { return None };
            layer = &network.layers[input];
            let prepares = ["InputLayer", "ZeroPadding2D", "Resizing", "CenterCrop", "RandomCrop"];
            let class = layer.class.as_str();
            if !prepares.contains(&class) && !is_passed_over(class) {
                return None;
            }
        }
        Some(family)
    }

    /// Whether this is the convolution that reads the picture.
    pub(super) fn first_layer(self, layer: &Layer) -> bool {
        let names: &[&str] = match self {
            Self::ResNet | Self::ResNetV2 => &["conv1_conv"],
            Self::OldResNet => &["conv1"],
            Self::Vgg => &["block1_conv1"],
            Self::MobileNet => &["conv1", "Conv1", "conv", "Conv"],
        };
        layer.class == "Conv2D" && names.contains(&layer.name.as_str())
    }

    /// Whether channels come as blue, green and red.
    pub(super) const fn takes_bgr(self) -> bool {
        !matches!(self, Self::ResNetV2 | Self::MobileNet)
    }

    /// How pictures of red, green and blue are prepared, where the network's first layer reads these.
    pub(super) fn preprocess(self, raw: Preprocess) -> Preprocess {
        if self.takes_bgr() {
            Preprocess { offset: CAFFE_MEANS.map(|mean| -mean), ..raw }
        } else {
            Preprocess { scale: [1.0 / 127.5; 3], offset: [-1.0; 3], ..raw }
        }
    }

    /// What is said of it.
    pub(super) const fn note(self) -> &'static str {
        match self {
            Self::ResNet | Self::OldResNet | Self::Vgg => {
                "layers as in Keras Applications' ResNet and VGG: taken for blue, green and red less \
                 Caffe's means, and turned to red, green and blue; --channels rgb is for others"
            }
            Self::ResNetV2 => "layers as in Keras Applications' ResNetV2: taken for -1 to 1",
            Self::MobileNet => "layers as in Keras Applications' MobileNet: taken for -1 to 1",
        }
    }
}

/// The network of a file of weights alone, `None` where its layers are not those of a ResNet of
/// Keras Applications.
///
/// # Errors
/// Such a ResNet without a head.
pub(super) fn network(arrays: &Arrays) -> Result<Option<Network>, String> {
    let names: std::collections::BTreeSet<&str> = arrays.layer_names().into_iter().collect();
    let blocks = |stack: usize| {
        (1..)
            .take_while(|block| names.contains(format!("conv{stack}_block{block}_1_conv").as_str()))
            .count()
    };
    if !names.contains("conv1_conv") || blocks(2) == 0 {
        return Ok(None);
    }
    if !names.contains("predictions") {
        return Err(
            "the weights of a ResNet without a head (include_top=False); save the whole classifier: \
             model.save(\"model.keras\")"
                .into(),
        );
    }
    let v2 = names.contains("post_bn");
    let mut layers = Layers(vec![json!({
        "class_name": "InputLayer",
        "name": "input",
        "config": { "batch_shape": [null, null, null, 3] },
        "inbound_nodes": [],
    })]);
    let mut x = layers.pad("conv1_pad", 3, "input");
    x = layers.conv("conv1_conv", [7, 2, 64], true, &x);
    if !v2 {
        x = layers.norm("conv1", &x);
    }
    x = layers.pad("pool1_pad", 1, &x);
    x = layers.pool("pool1_pool", [3, 2], &x);
    for stack in 2..=5 {
        let (filters, blocks) = (32 << (stack - 1), blocks(stack));
        for block in 1..=blocks {
            let projects = block == 1;
            // v1 strides where a stack starts, v2 where it ends.
            let stride = match (v2, stack) {
                (false, 3..) if projects => 2,
                (true, ..=4) if block == blocks => 2,
                _ => 1,
            };
            let name = format!("conv{stack}_block{block}");
            let block = Block { name, filters, stride, projects };
            x = if v2 { layers.block_v2(&block, &x) } else { layers.block(&block, &x) };
        }
    }
    if v2 {
        x = layers.norm("post", &x);
    }
    x = layers.push("GlobalAveragePooling2D", "avg_pool", json!({}), &[&x]);
    let head = json!({ "activation": "softmax", "use_bias": true });
    layers.push("Dense", "predictions", head, &[&x]);
    let config = json!({ "layers": layers.0, "output_layers": ["predictions", 0, 0] });
    Network::new(&Object { class_name: "Functional".into(), config }).map(Some)
}

/// A residual block.
struct Block {
    name: String,
    filters: usize,
    stride: usize,
    projects: bool,
}

impl Block {
    fn layer(&self, name: &str) -> String {
        format!("{}_{name}", self.name)
    }
}

/// Writes layers down as Keras does.
struct Layers(Vec<Value>);

impl Layers {
    fn push(&mut self, class: &str, name: &str, config: Value, inputs: &[&str]) -> String {
        let inputs: Vec<Value> = inputs.iter().map(|name| json!([name, 0, 0, {}])).collect();
        self.0.push(json!({
            "class_name": class,
            "name": name,
            "config": config,
            "inbound_nodes": [inputs],
        }));
        name.into()
    }

    fn pad(&mut self, name: &str, sides: usize, x: &str) -> String {
        self.push("ZeroPadding2D", name, json!({ "padding": sides }), &[x])
    }

    fn conv(
        &mut self,
        name: &str,
        [filter, stride, filters]: [usize; 3],
        bias: bool,
        x: &str,
    ) -> String {
        let config = json!({
            "filters": filters,
            "kernel_size": [filter, filter],
            "strides": [stride, stride],
            "padding": "valid",
            "use_bias": bias,
        });
        self.push("Conv2D", name, config, &[x])
    }

    fn pool(&mut self, name: &str, [size, stride]: [usize; 2], x: &str) -> String {
        let config = json!({
            "pool_size": [size, size],
            "strides": [stride, stride],
            "padding": "valid",
        });
        self.push("MaxPooling2D", name, config, &[x])
    }

    fn only_norm(&mut self, name: &str, x: &str) -> String {
        let config = json!({ "axis": 3, "epsilon": 1.001e-5, "center": true, "scale": true });
        self.push("BatchNormalization", &format!("{name}_bn"), config, &[x])
    }

    /// A batch-norm and a ReLU.
    fn norm(&mut self, name: &str, x: &str) -> String {
        let x = self.only_norm(name, x);
        self.push("ReLU", &format!("{name}_relu"), json!({}), &[&x])
    }

    fn block(&mut self, block: &Block, x: &str) -> String {
        let &Block { filters, stride, projects, .. } = block;
        let mut shortcut = x.to_owned();
        if projects {
            shortcut = self.conv(&block.layer("0_conv"), [1, stride, 4 * filters], true, x);
            shortcut = self.only_norm(&block.layer("0"), &shortcut);
        }
        let mut x = self.conv(&block.layer("1_conv"), [1, stride, filters], true, x);
        x = self.norm(&block.layer("1"), &x);
        x = self.pad(&block.layer("2_pad"), 1, &x);
        x = self.conv(&block.layer("2_conv"), [3, 1, filters], true, &x);
        x = self.norm(&block.layer("2"), &x);
        x = self.conv(&block.layer("3_conv"), [1, 1, 4 * filters], true, &x);
        x = self.only_norm(&block.layer("3"), &x);
        x = self.push("Add", &block.layer("add"), json!({}), &[&shortcut, &x]);
        self.push("ReLU", &block.layer("out"), json!({}), &[&x])
    }

    fn block_v2(&mut self, block: &Block, x: &str) -> String {
        let &Block { filters, stride, projects, .. } = block;
        let activated = self.norm(&block.layer("preact"), x);
        let shortcut = if projects {
            self.conv(&block.layer("0_conv"), [1, stride, 4 * filters], true, &activated)
        } else if stride > 1 {
            self.pool(&block.layer("0_pool"), [1, stride], x)
        } else {
            x.to_owned()
        };
        let mut x = self.conv(&block.layer("1_conv"), [1, 1, filters], false, &activated);
        x = self.norm(&block.layer("1"), &x);
        x = self.pad(&block.layer("2_pad"), 1, &x);
        x = self.conv(&block.layer("2_conv"), [3, stride, filters], false, &x);
        x = self.norm(&block.layer("2"), &x);
        x = self.conv(&block.layer("3_conv"), [1, 1, 4 * filters], true, &x);
        self.push("Add", &block.layer("out"), json!({}), &[&shortcut, &x])
    }
}
