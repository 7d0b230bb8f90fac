//! What files leave open.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use network::architecture::resnet::BottleneckStride;

/// Whether a model without a classification head will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// The model is to classify.
    Required,
    /// The model is to be fine-tuned, which makes a new head: where there is none, it is zero
    /// and has one class.
    Optional,
}

/// By the filter that strides.
fn bottleneck_stride() -> impl TypedValueParser<Value = BottleneckStride> {
    let first =
        PossibleValue::new("1x1").help("The 1×1 convolution before: He et al., Caffe, Keras");
    let second = PossibleValue::new("3x3")
        .help("The 3×3 convolution (\"version 1.5\"): torchvision, timm, KerasHub");
    PossibleValuesParser::new([first, second]).map(|name| match name.as_str() {
        "1x1" => BottleneckStride::First,
        _ => BottleneckStride::Second,
    })
}

/// What a user says of a model that its file may leave open.
#[derive(Debug, Clone, Default, Args)]
pub struct Hints {
    /// Height and width of the input, for a model that does not say them
    #[arg(long = "input-size", value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(1..=8192))]
    pub size: Option<u16>,
    /// Whether a max-pool follows the stem, of a state dict; `=false` where none does [default: unless
    /// the stem is a single 3×3 convolution]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub stem_pool: Option<bool>,
    /// Stride of its stem [default: 1 of a single 3×3 convolution, else 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=4))]
    pub stem_stride: Option<u8>,
    /// Strides of its stacks, such as 1,2,2,1 [default: 1,2,2,…]
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=4))]
    pub stack_strides: Option<Vec<u8>>,
    /// The convolution of its bottlenecks that strides [default: 3x3]
    #[arg(long, value_name = "FILTER", value_parser = bottleneck_stride())]
    pub bottleneck_stride: Option<BottleneckStride>,
    /// Which state dict of a training checkpoint with several, by the name that leads to it
    #[arg(long, value_name = "NAME")]
    pub state_dict: Option<String>,
    /// The output that is a score for each class, of an ONNX or TensorFlow Lite model with several
    #[arg(long, value_name = "NAME")]
    pub output_node: Option<String>,
    /// Order of the colors in the network's own input, which --mean and --std do not change:
    /// pictures and tensors always come as rgb, and the first layer is rewritten for that
    /// [default: rgb, and bgr of Keras Applications' ResNet and VGG]
    #[arg(long, value_enum)]
    pub channels: Option<Channels>,
}

impl Hints {
    pub(crate) const SIZE: Option<&'static str> = Some("--input-size");
    pub(crate) const STEM_POOL: Option<&'static str> = Some("--stem-pool");
    pub(crate) const STEM_STRIDE: Option<&'static str> = Some("--stem-stride");
    pub(crate) const STACK_STRIDES: Option<&'static str> = Some("--stack-strides");
    pub(crate) const BOTTLENECK_STRIDE: Option<&'static str> = Some("--bottleneck-stride");
    pub(crate) const STATE_DICT: Option<&'static str> = Some("--state-dict");

    /// An option that was given and that only state dicts leave open.
    pub(crate) fn of_state_dicts(&self) -> Option<&'static str> {
        let given = [
            (self.stem_pool.is_some(), Self::STEM_POOL),
            (self.stem_stride.is_some(), Self::STEM_STRIDE),
            (self.stack_strides.is_some(), Self::STACK_STRIDES),
            (self.bottleneck_stride.is_some(), Self::BOTTLENECK_STRIDE),
            (self.state_dict.is_some(), Self::STATE_DICT),
        ];
        given.into_iter().find_map(|(is_given, option)| option.filter(|_| is_given))
    }
}

/// Order of colors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Channels {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red, as OpenCV's pictures: Caffe's networks, and keras.applications' ResNet50,
    /// ResNet101 and ResNet152
    Bgr,
}
