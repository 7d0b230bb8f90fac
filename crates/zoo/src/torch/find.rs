//! The names that PyTorch's ResNets give their tensors, and the architecture that follows from
//! names and shapes.
//!
//! Those of transformers and others become torchvision's first ([`plain`], [`as_torchvision`]). The head
//! may have any other name.

use super::names::Names;
use crate::{Head, Hints};
use artifact::text::AsPlain;
use network::architecture::resnet::{BlockType, ResNetConfig};
use network::architecture::{Architecture, Family};
use network::checkpoint::Assumption;
use network::padding::ConvPadding;
use std::collections::BTreeMap;

/// A tensor of a file.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its whole name, with all that leads to it.
    pub(super) name: String,
    /// `None` where it has no floats.
    pub(super) shape: Option<Vec<usize>>,
    /// What it is then.
    pub(super) of: String,
}

impl Entry {
    pub(super) fn new(name: &str, shape: Option<Vec<usize>>) -> Self {
        Self { name: name.into(), shape, of: String::new() }
    }
}

/// A ResNet that was found among the tensors of a file.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) config: Architecture,
    /// Names that [`Names`] know, and those in the file.
    pub(super) tensors: BTreeMap<String, String>,
    /// What belongs to no layer.
    pub(super) extra: Vec<String>,
    /// What tensors do not tell.
    pub(super) assumed: Vec<Assumption>,
}

/// What `name` has, whose tensors do not show it: an error's text.
pub(super) fn told_by(name: &str, hints: &Hints) -> Option<String> {
    let name = name.to_lowercase();
    if ["blur", "netaa", "antialias", "anti_alias", "anti-alias"].iter().any(|w| name.contains(w)) {
        return Some(
            "anti-aliased, as its name says: its tensors do not show how it blurs; take another \
             variant, or rename the file where it is a plain ResNet"
                .into(),
        );
    }
    if name.contains("caffe") && hints.bottleneck_stride.is_none() {
        return Some(
            "from Caffe, as its name says, whose bottlenecks stride in their 1×1 convolutions: say \
             --bottleneck-stride 1x1, or 3x3 where this one does not"
                .into(),
        );
    }
    None
}

/// Words in the names of copies: averages of the weights, networks that follow another.
const COPIES: [&str; 9] =
    ["ema", "swa", "averaged", "shadow", "momentum", "teacher", "target", "k", "best"];

/// Parts of other networks, by a word in the names of their tensors.
const STRANGE: [(&str, &str); 6] = [
    ("filt", "blurring (anti-aliased) pools"),
    ("se", "squeeze-and-excitation"),
    ("attn", "attention"),
    ("attnpool", "attention"),
    ("cbam", "attention"),
    ("bn0", "split attention"),
];

/// A name as torchvision has it, without what compilers and wrappers of modules put in.
fn plain(name: &str) -> String {
    let wrapped = ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];
    let parts: Vec<&str> = name.split('.').filter(|part| !wrapped.contains(part)).collect();
    let next = |n: &str| n.parse::<usize>().map_or(n.to_owned(), |n| (n + 1).to_string());
    let mut out: Vec<String> = Vec::new();
    let mut rest = parts.as_slice();
    while let Some((first, after)) = rest.split_first() {
        let (ours, taken) = match *rest {
            ["embedder", "embedder", "convolution", ..] => (vec!["conv1".into()], 3),
            ["embedder", "embedder", "normalization", ..] => (vec!["bn1".into()], 3),
            ["encoder", "stages", s, "layers", b, "layer", n, "convolution", ..] => {
                (vec![format!("layer{}", next(s)), b.into(), format!("conv{}", next(n))], 8)
            }
            ["encoder", "stages", s, "layers", b, "layer", n, "normalization", ..] => {
                (vec![format!("layer{}", next(s)), b.into(), format!("bn{}", next(n))], 8)
            }
            ["encoder", "stages", s, "layers", b, "shortcut", "convolution", ..] => {
                (vec![format!("layer{}", next(s)), b.into(), "downsample.0".into()], 7)
            }
            ["encoder", "stages", s, "layers", b, "shortcut", "normalization", ..] => {
                (vec![format!("layer{}", next(s)), b.into(), "downsample.1".into()], 7)
            }
            _ => {
                out.push((*first).into());
                rest = after;
                continue;
            }
        };
        out.extend(ours);
        rest = &rest[taken..];
    }
    out.join(".")
}

/// Entries with torchvision's names where others are known by what stands beside them: a `Sequential`
/// of the network's children (`0`, `1`, `4.0.conv1`), `MMPretrain`'s deep stem (`stem.0`), and blocks
/// with a `residual_function` (`conv2_x.0.residual_function.0`).
fn as_torchvision(entries: BTreeMap<String, Entry>) -> BTreeMap<String, Entry> {
    let forms = ["4.0.conv1.weight", "stem.6.weight", "conv2_x.0.residual_function.0.weight"];
    let known = |form: &str| -> Vec<String> {
        let prefixes = entries.keys().filter_map(|name| name.strip_suffix(form));
        prefixes.filter(|p| p.is_empty() || p.ends_with('.')).map(Into::into).collect()
    };
    let [children, stems, functions] = forms.map(known);
    let renamed = |name: &str| -> Option<String> {
        let of = |prefixes: &[String]| {
            let prefix = prefixes.iter().find(|p| name.starts_with(p.as_str()))?;
            Some((prefix.clone(), &name[prefix.len()..]))
        };
        let numbered = |n: &str, first: usize| n.parse::<usize>().ok()?.checked_sub(first);
        if let Some((prefix, rest)) = of(&children) {
            let (n, rest) = rest.split_once('.')?;
            let ours = match numbered(n, 0)? {
                0 => "conv1".into(),
                1 => "bn1".into(),
                n @ 4..=7 => format!("layer{}", n - 3),
                _ => return None,
            };
            return Some(format!("{prefix}{ours}.{rest}"));
        }
        if let Some((prefix, rest)) = of(&stems)
            && let Some((n, rest)) = rest.strip_prefix("stem.")?.split_once('.')
        {
            let ours = if n == "7" { "bn1".into() } else { format!("conv1.{}", numbered(n, 0)?) };
            return Some(format!("{prefix}{ours}.{rest}"));
        }
        let (prefix, rest) = of(&functions)?;
        let ours = match *rest.split('.').collect::<Vec<_>>() {
            ["conv1", "0", part] => format!("conv1.{part}"),
            ["conv1", "1", part] => format!("bn1.{part}"),
            [stack, block, "residual_function", n, part] => {
                let stack = numbered(stack.strip_prefix("conv")?.strip_suffix("_x")?, 1)?;
                let n = numbered(n, 0)?;
                let layer = ["conv", "bn"].get(n % 3)?;
                format!("layer{stack}.{block}.{layer}{}.{part}", n / 3 + 1)
            }
            [stack, block, "shortcut", n, part] => {
                let stack = numbered(stack.strip_prefix("conv")?.strip_suffix("_x")?, 1)?;
                format!("layer{stack}.{block}.shortcut.{n}.{part}")
            }
            _ => return None,
        };
        Some(format!("{prefix}{ours}"))
    };
    let named = |(name, entry): (String, Entry)| (renamed(&name).unwrap_or(name), entry);
    entries.into_iter().map(named).collect()
}

/// Whether a name is one of the network's layers before the head.
fn is_backbone(name: &str) -> bool {
    ["layer", "stages.", "stem.", "conv", "bn", "norm", "maxpool"]
        .iter()
        .any(|p| name.starts_with(p))
}

/// The path of each ResNet that is among these tensors.
fn prefixes(entries: &BTreeMap<String, Entry>) -> Vec<&str> {
    let stems = [
        ("conv1.weight", "layer1.0.conv1.weight"),
        ("conv1.0.weight", "layer1.0.conv1.weight"),
        ("stem.conv.weight", "stages.0.blocks.0.conv1.weight"),
    ];
    let prefix = |name: &'_ String| {
        stems.iter().find_map(|(stem, block)| {
            let prefix = name.strip_suffix(stem)?;
            let whole = prefix.is_empty() || prefix.ends_with('.');
            (whole && entries.contains_key(&format!("{prefix}{block}"))).then_some(prefix.len())
        })
    };
    entries.keys().filter_map(|name| Some(&name[..prefix(name)?])).collect()
}

/// The prefix to take, and those of others.
fn choose<'a>(
    prefixes: &[&'a str],
    wanted: Option<&str>,
) -> Result<(&'a str, Vec<&'a str>), String> {
    let is_copy = |prefix: &str| {
        let words = prefix.split(|c: char| !c.is_alphanumeric());
        words.into_iter().any(|word| COPIES.contains(&word.to_lowercase().as_str()))
    };
    let is_wanted = |prefix: &str, name: &str| {
        prefix.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let chosen: Vec<&str> = match wanted {
        Some(name) => prefixes.iter().copied().filter(|p| is_wanted(p, name)).collect(),
        None if prefixes.len() == 1 => prefixes.to_vec(),
        None => prefixes.iter().copied().filter(|p| !is_copy(p)).collect(),
    };
    let [one] = chosen[..] else {
        let names: Vec<&str> = prefixes.iter().map(|p| p.trim_end_matches('.')).collect();
        return Err(format!(
            "{} networks, under `{}`; choose one by --state-dict",
            prefixes.len(),
            names.join("`, `").plain()
        ));
    };
    Ok((one, prefixes.iter().copied().filter(|p| *p != one).collect()))
}

impl Network {
    /// The ResNet among `entries`; its architecture follows from names and shapes, and where those do
    /// not say, from `hints`.
    ///
    /// # Errors
    /// No ResNet, or several; networks with other layers; no head where one is needed.
    pub(super) fn find(
        name: &str,
        entries: Vec<Entry>,
        head: Head,
        hints: &Hints,
    ) -> Result<Self, String> {
        let entries: BTreeMap<String, Entry> =
            entries.into_iter().map(|entry| (plain(&entry.name), entry)).collect();
        let entries = as_torchvision(entries);
        let prefixes = prefixes(&entries);
        if prefixes.is_empty() {
            return Err(unknown(entries.keys()));
        }
        let (prefix, others) = choose(&prefixes, hints.state_dict.as_deref())?;
        let mut assumed = Vec::new();
        if let [other, ..] = others[..]
            && hints.state_dict.is_none()
        {
            let name = |prefix: &str| prefix.trim_end_matches('.').plain().to_string();
            let what = format!("the weights under `{}`, not `{}`", name(prefix), name(other));
            assumed.push(Assumption::new(what, Hints::STATE_DICT));
        }
        // A counter, which `.half()` turns into a number like all others.
        let counts = |name: &str| name.ends_with(".num_batches_tracked");
        let inside: BTreeMap<&str, &Entry> = (entries.iter())
            .filter_map(|(name, entry)| Some((name.strip_prefix(prefix)?, entry)))
            .filter(|(name, _)| !counts(name))
            .collect();
        let is_part = |name: &str| {
            let part = name.rsplit('.').next();
            matches!(part, Some("weight" | "bias" | "running_mean" | "running_var"))
        };
        let strange =
            inside.iter().find(|(n, e)| is_backbone(n) && is_part(n) && e.shape.is_none());
        if let Some((_, entry)) = strange {
            return Err(format!(
                "`{}` is {}, but tensors of floats are read; save the float model's state_dict()",
                entry.name.plain(),
                entry.of
            ));
        }
        let shapes: BTreeMap<&str, &[usize]> = (inside.iter())
            .filter_map(|(name, entry)| Some((*name, entry.shape.as_deref()?)))
            .collect();
        refuse_strange(shapes.keys().copied().filter(|name| is_backbone(name)))?;
        let mut config = architecture(name, &shapes, hints, &mut assumed)?;
        config.check()?;
        let (names, features) = (Names::of(&config), config.blueprint().features());
        // What stands beside the network may be its head.
        let parent = &prefix[..prefix.trim_end_matches('.').rfind('.').map_or(0, |dot| dot + 1)];
        let beside = entries.iter().filter(|(name, _)| {
            let is_of = |p: &&str| !p.is_empty() && name.starts_with(*p);
            let trains = name.contains("optim") || name.contains("scheduler");
            name.starts_with(parent) && !prefixes.iter().any(is_of) && is_part(name) && !trains
        });
        let mut rest: Vec<(&str, &[usize])> =
            shapes.iter().map(|(n, s)| (*n, *s)).filter(|(n, _)| !is_backbone(n)).collect();
        if rest.is_empty() && !prefix.is_empty() {
            rest.extend(
                beside.filter_map(|(n, e)| Some((&n[parent.len()..], e.shape.as_deref()?))),
            );
        }
        let path = |name: &str| {
            let inner = entries.get(&format!("{prefix}{name}"));
            inner.or_else(|| entries.get(&format!("{parent}{name}"))).map(|e| e.name.clone())
        };
        let mut tensors: BTreeMap<String, String> = BTreeMap::new();
        let mut extra = Vec::new();
        for (name, shape) in shapes.iter().filter(|(name, _)| is_backbone(name)) {
            match names.canonical(name) {
                Some(_) => tensors.extend(path(name).map(|theirs| ((*name).to_owned(), theirs))),
                None => extra.push(format!("`{}` {shape:?}", name.plain())),
            }
        }
        match (head_of(&rest, features), head) {
            (Some((layer, classes)), _) => {
                config.classes = classes;
                if !["fc", "head.fc", "linear", "classifier.1"].contains(&layer) {
                    let what = format!("`{}` as the head, alone", layer.plain());
                    assumed.push(Assumption::new(what, None));
                }
                for part in ["weight", "bias"] {
                    let theirs = path(&format!("{layer}.{part}"));
                    tensors.extend(theirs.map(|theirs| (format!("fc.{part}"), theirs)));
                }
            }
            // Fine-tuning makes a new one.
            (None, Head::Optional) => {}
            (None, Head::Required) if rest.is_empty() => {
                return Err("a backbone without a head; fine-tune it to some classes first".into());
            }
            (None, Head::Required) => {
                let names: Vec<&str> = rest.iter().map(|(name, _)| *name).take(5).collect();
                return Err(format!(
                    "a head that is more, or other, than one dense layer of {} features (`{}`): \
                     fine-tuning makes a new one, and as ONNX (torch.onnx.export) it is read as it is",
                    features,
                    names.join("`, `").plain()
                ));
            }
        }
        Ok(Self { config, tensors, extra, assumed })
    }
}

/// Name and classes of the dense layer of `features` that `rest` is.
fn head_of<'a>(rest: &[(&'a str, &[usize])], features: usize) -> Option<(&'a str, usize)> {
    let layers =
        rest.iter().filter_map(|(name, shape)| Some((name.strip_suffix(".weight")?, *shape)));
    let (layer, shape) = layers.into_iter().next()?;
    let (&[classes, inputs] | &[classes, inputs, 1, 1]) = shape else { return None };
    let is_bias = |(name, _): &&(&str, &[usize])| name.strip_suffix(".bias") == Some(layer);
    let biases = rest.iter().filter(is_bias).count();
    (inputs == features && rest.len() == 1 + biases).then_some((layer, classes))
}

fn unknown<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let mut names = names.take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.is_empty() {
        names = "none".into();
    }
    format!(
        "not a ResNet of torchvision, timm, transformers or the CIFAR kind; its tensors are {}, …; as \
         ONNX (torch.onnx.export) other networks are read, too",
        names.plain()
    )
}

/// Names the parts of other networks, instead of all their tensors.
fn refuse_strange<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    for name in names {
        let what = name.split('.').find_map(|word| STRANGE.iter().find(|(w, _)| *w == word));
        if let Some((_, what)) = what {
            return Err(format!(
                "a ResNet with {what} (`{}`), which is not read; choose a plain one",
                name.plain()
            ));
        }
    }
    Ok(())
}

/// The architecture of a state dict; a head adds its classes.
fn architecture(
    name: &str,
    shapes: &BTreeMap<&str, &[usize]>,
    hints: &Hints,
    assumed: &mut Vec<Assumption>,
) -> Result<Architecture, String> {
    let shape = |tensor: &str| shapes.get(tensor).copied();
    let unknown = || unknown(shapes.keys().map(|n| (*n).to_owned()).collect::<Vec<_>>().iter());
    let v2 = shapes.contains_key("stem.conv.weight");
    let deep = shapes.contains_key("conv1.0.weight");
    let stem: Vec<&str> = match (v2, deep) {
        (true, _) => vec!["stem.conv.weight"],
        (false, true) => vec!["conv1.0.weight", "conv1.3.weight", "conv1.6.weight"],
        (false, false) => vec!["conv1.weight"],
    };
    let (mut channels, mut filters, mut kernels) = (None, Vec::new(), Vec::new());
    for conv in stem {
        let [out, input, k, _] = shape(conv).ok_or_else(unknown)? else { return Err(unknown()) };
        channels.get_or_insert(*input);
        filters.push(*out);
        kernels.push(*k);
    }
    let block = |stack: usize, block: usize| match v2 {
        true => format!("stages.{stack}.blocks.{block}"),
        false => format!("layer{}.{block}", stack + 1),
    };
    let conv = |s: usize, b: usize, n: usize| shape(&format!("{}.conv{n}.weight", block(s, b)));
    let (mut widths, mut blocks) = (Vec::new(), Vec::new());
    while let Some([width, ..]) = conv(widths.len(), 0, 1) {
        let stack = widths.len();
        let Some([_, inputs, ..]) = conv(stack, 0, 2) else { return Err(unknown()) };
        if inputs != width {
            return Err(
                "grouped convolutions (ResNeXt), which are not read; choose a ResNet".into()
            );
        }
        widths.push(*width);
        blocks.push((0..).take_while(|b| conv(stack, *b, 1).is_some()).count());
    }
    if !shapes.keys().any(|name| name.ends_with(".running_mean")) {
        return Err("no running statistics, so that its norms are no batch-norms: not read".into());
    }
    let bottleneck = conv(0, 0, 3);
    let expansion = match (bottleneck, widths.first()) {
        (Some([out, ..]), Some(width)) if *width > 0 => out / width,
        _ => 4,
    };
    // Convolution after a pool: place 1 of the shortcut's sequence.
    let projects = |stack: usize, name: &str| {
        shape(&format!("{}.{name}.1.weight", block(stack, 0))).is_some_and(|s| s.len() == 4)
    };
    let vd = (0..widths.len()).any(|s| projects(s, "downsample") || projects(s, "shortcut"));
    // A 3×3 stem is a small picture's: it keeps the size and has no pool.
    let small = kernels == [3];
    let stem_stride = hints.stem_stride.map_or(if small { 1 } else { 2 }, usize::from);
    let stem_pool = hints.stem_pool.unwrap_or(!small);
    if hints.stem_pool.is_none() {
        let pool = if stem_pool { "a max-pool" } else { "no pool" };
        assumed.push(Assumption::new(format!("{pool} after the stem"), Hints::STEM_POOL));
    }
    if hints.stem_stride.is_none() {
        let what = format!("a stem of stride {stem_stride}");
        assumed.push(Assumption::new(what, Hints::STEM_STRIDE));
    }
    if bottleneck.is_some() && hints.bottleneck_stride.is_none() {
        let what = "strides in 3×3 convolutions";
        assumed.push(Assumption::new(what, Hints::BOTTLENECK_STRIDE));
    }
    let strides: Vec<usize> =
        (0..widths.len()).map(|stack| if stack == 0 { 1 } else { 2 }).collect();
    let strides = match &hints.stack_strides {
        Some(given) => given.iter().map(|s| usize::from(*s)).collect(),
        None => {
            assumed.push(Assumption::new(
                format!("stacks of strides {strides:?}"),
                Hints::STACK_STRIDES,
            ));
            strides
        }
    };
    assumed.push(Assumption::new("ReLUs, neither blur nor dilation", None));
    let config = ResNetConfig {
        input_conv_filters: filters,
        input_conv_kernel_sizes: kernels,
        stem_stride,
        stem_pool,
        stackwise_num_strides: strides,
        stackwise_num_filters: widths,
        stackwise_num_blocks: blocks,
        block_type: match (bottleneck.is_some(), vd) {
            (false, false) => BlockType::BasicBlock,
            (true, false) => BlockType::BottleneckBlock,
            (false, true) => BlockType::BasicBlockVd,
            (true, true) => BlockType::BottleneckBlockVd,
        },
        use_pre_activation: v2,
        padding: ConvPadding::Symmetric,
        expansion,
        bottleneck_stride: hints.bottleneck_stride.unwrap_or_default(),
    };
    Ok(Architecture {
        channels: channels.unwrap_or(3),
        ..Architecture::new(name, 1, Family::ResNet(config))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use network::architecture::resnet::BottleneckStride;

    /// The tensors of an architecture under a prefix, in PyTorch's layout.
    fn entries(config: &Architecture, prefix: &str) -> Vec<Entry> {
        let names = Names::of(config);
        let entry = |(name, shape): (String, Vec<usize>)| {
            let shape = match shape[..] {
                [o, h, w, i] => vec![o, i, h, w],
                _ => shape,
            };
            let theirs = names.torch(&name).unwrap();
            Entry::new(&format!("{prefix}{theirs}"), Some(shape))
        };
        config.blueprint().tensors().map(entry).collect()
    }

    fn resnet(architecture: &str) -> Architecture {
        Architecture::by_name(architecture, 10).unwrap()
    }

    fn config_of(network: &Network) -> &ResNetConfig {
        network.config.family.resnet().unwrap()
    }

    fn find(entries: Vec<Entry>) -> Result<Network, String> {
        Network::find("n", entries, Head::Required, &Hints::default())
    }

    /// Without the head.
    fn backbone(architecture: &str, prefix: &str) -> Vec<Entry> {
        let mut entries = entries(&resnet(architecture), prefix);
        entries.retain(|e| !["fc", "linear"].iter().any(|head| e.name.contains(head)));
        entries
    }

    fn add(entries: &mut Vec<Entry>, tensors: &[(&str, &[usize])]) {
        entries.extend(tensors.iter().map(|(name, shape)| Entry::new(name, Some(shape.to_vec()))));
    }

    #[test]
    fn wrappers_and_prefixes_in_any_order_lead_to_the_network() {
        let config = resnet("resnet_18");
        for prefix in [
            "",
            "net.",
            "weights.",
            "params.",
            "model_ema.",
            "state_dict_ema.module.",
            "state_dict.state_dict.model.",
            "_orig_mod.module.backbone.",
            "checkpoint.network.encoder.module._orig_mod.",
            "backbone.body.",
        ] {
            let mut all = entries(&config, prefix);
            // An optimizer's, and a counter.
            if !prefix.is_empty() {
                add(&mut all, &[("optimizer.state.0.exp_avg", &[64, 3, 7, 7]), ("epoch", &[])]);
            }
            let counter = format!("{prefix}bn1.num_batches_tracked");
            all.push(Entry::new(&counter, None));
            let network = find(all).unwrap();
            assert_eq!(network.config, Architecture { name: "n".into(), ..config.clone() });
            assert_eq!(network.tensors.len(), config.blueprint().tensors().count(), "{prefix}");
            assert!(network.extra.is_empty());
        }
    }

    #[test]
    fn copies_are_passed_over_and_others_are_asked_for() {
        let config = resnet("resnet_18");
        let two = |a: &str, b: &str| {
            let mut all = entries(&config, a);
            all.extend(entries(&config, b));
            all
        };
        for (one, copy) in [
            ("state_dict.module.encoder_q.", "state_dict.module.encoder_k."),
            ("model.", "model_ema."),
            ("student.backbone.", "teacher.backbone."),
        ] {
            let network = find(two(copy, one)).unwrap();
            assert_eq!(network.tensors["conv1.weight"], format!("{one}conv1.weight"));
            let [kept, left] = [one, copy].map(|p| p.trim_end_matches('.'));
            assert_eq!(
                network.assumed[0].what,
                format!("the weights under `{kept}`, not `{left}`")
            );
            assert_eq!(network.assumed[0].option, Some("--state-dict"));
        }
        let error = find(two("net_a.", "net_b.")).unwrap_err();
        assert_eq!(error, "2 networks, under `net_a`, `net_b`; choose one by --state-dict");
        let hints = Hints { state_dict: Some("net_b".into()), ..Hints::default() };
        let chosen = Network::find("n", two("net_a.", "net_b."), Head::Required, &hints).unwrap();
        assert_eq!(chosen.tensors["conv1.weight"], "net_b.conv1.weight");
        let hints = Hints { state_dict: Some("net".into()), ..Hints::default() };
        Network::find("n", two("net_a.", "net_b."), Head::Required, &hints).unwrap_err();
    }

    #[test]
    fn a_head_may_have_any_name_and_place_but_is_one_dense_layer() {
        for (prefix, head) in [
            ("", "fc.1"),
            ("", "classifier.2.0"),
            ("model.", "model.head"),
            ("state_dict.net.backbone.", "state_dict.net.classifier"),
            ("resnet.", "classifier.1"),
        ] {
            let mut all = backbone("resnet_18", prefix);
            add(
                &mut all,
                &[(&format!("{head}.weight"), &[7, 512]), (&format!("{head}.bias"), &[7])],
            );
            let network = find(all).unwrap();
            assert_eq!(network.config.classes, 7, "{head}");
            assert_eq!(network.tensors["fc.bias"], format!("{head}.bias"));
        }
        // One without a bias.
        let mut all = backbone("resnet_18", "");
        add(&mut all, &[("fc.weight", &[7, 512])]);
        assert!(!find(all).unwrap().tensors.contains_key("fc.bias"));
        // What fine-tuning throws away does not matter to it.
        let none: &[(&str, &[usize])] = &[];
        let several: &[(&str, &[usize])] =
            &[("fc.0.weight", &[128, 512]), ("fc.0.bias", &[128]), ("fc.3.weight", &[7, 128])];
        let normed: &[(&str, &[usize])] = &[("fc.0.weight", &[512]), ("fc.1.weight", &[7, 512])];
        for (head, said) in [
            (none, "a backbone without a head; fine-tune it"),
            (several, "(`fc.0.bias`, `fc.0.weight`, `fc.3.weight`): fine-tuning makes a new one"),
            (normed, "one dense layer of 512 features"),
        ] {
            let all = || {
                let mut all = backbone("resnet_18", "");
                add(&mut all, head);
                all
            };
            let error = find(all()).unwrap_err();
            assert!(error.contains(said), "{error}");
            let network = Network::find("n", all(), Head::Optional, &Hints::default()).unwrap();
            assert_eq!((network.config.classes, network.extra.len()), (1, 0));
        }
    }

    #[test]
    fn what_tensors_do_not_tell_is_assumed_and_hints_say_otherwise() {
        let line = |network: &Network| Assumption::line(&network.assumed).unwrap();
        let small = find(entries(&resnet("resnet_18_cifar"), "")).unwrap();
        assert_eq!((config_of(&small).stem_stride, config_of(&small).stem_pool), (1, false));
        assert_eq!(
            line(&small),
            "assumed: no pool after the stem, a stem of stride 1, stacks of strides [1, 2, 2, 2], \
             ReLUs, neither blur nor dilation; --stem-pool, --stem-stride, --stack-strides say otherwise"
        );
        let usual = find(entries(&resnet("resnet_50"), "")).unwrap();
        assert_eq!(usual.config, Architecture { name: "n".into(), ..resnet("resnet_50") });
        assert!(line(&usual).contains("a max-pool after the stem, a stem of stride 2"));
        assert!(line(&usual).contains("strides in 3×3 convolutions"));
        let hints = Hints {
            stem_pool: Some(true),
            stem_stride: Some(2),
            stack_strides: Some(vec![1, 2, 2, 1]),
            bottleneck_stride: Some(BottleneckStride::First),
            ..Hints::default()
        };
        let all = entries(&resnet("resnet_50"), "");
        let told = Network::find("n", all, Head::Required, &hints).unwrap();
        assert_eq!((config_of(&told).stem_stride, config_of(&told).stem_pool), (2, true));
        assert_eq!(config_of(&told).stackwise_num_strides, [1, 2, 2, 1]);
        assert_eq!(config_of(&told).bottleneck_stride, BottleneckStride::First);
        assert_eq!(line(&told), "assumed: ReLUs, neither blur nor dilation");
    }

    #[test]
    fn names_tell_what_tensors_do_not() {
        let hints = Hints::default();
        for name in ["resnetblur50.bt_in1k", "timm_resnetaa50d", "seresnetaa50d", "antialiased_r18"]
        {
            assert!(told_by(name, &hints).unwrap().contains("anti-aliased"), "{name}");
        }
        assert!(told_by("resnet50_caffe", &hints).unwrap().contains("--bottleneck-stride 1x1"));
        let told = Hints { bottleneck_stride: Some(BottleneckStride::First), ..hints.clone() };
        assert_eq!(told_by("resnet50_caffe", &told), None);
        assert_eq!(told_by("resnet50-0676ba61", &hints), None);
    }

    #[test]
    fn other_networks_are_refused_by_name() {
        let with = |name: &str, shape: &[usize]| {
            let mut all = entries(&resnet("resnet_50"), "");
            add(&mut all, &[(name, shape)]);
            find(all).unwrap_err()
        };
        assert!(with("layer1.0.se.fc1.weight", &[16, 64, 1, 1]).contains("squeeze-and-excitation"));
        assert!(with("layer2.0.downsample.0.filt", &[64, 1, 3, 3]).contains("blurring"));
        // ResNeXt, GroupNorm, no floats, another network.
        let changed = |change: &dyn Fn(&mut Entry)| {
            let mut all = entries(&resnet("resnet_50"), "");
            all.iter_mut().for_each(change);
            find(all).unwrap_err()
        };
        let grouped = changed(&|e| {
            if e.name.ends_with("conv2.weight") {
                e.shape.as_mut().unwrap()[1] /= 32;
            }
        });
        assert!(grouped.contains("ResNeXt"), "{grouped}");
        let other = changed(&|e| e.name = e.name.replace("running_", "of_"));
        assert!(other.contains("no running statistics"), "{other}");
        let arrays = changed(&|e| {
            e.shape = None;
            e.of = "a `numpy._reconstruct`".into();
        });
        assert!(arrays.contains("is a `numpy._reconstruct`, but tensors of floats"), "{arrays}");
        let vgg = find(vec![Entry::new("features.0.weight", Some(vec![64, 3, 3, 3]))]).unwrap_err();
        assert!(vgg.contains("features.0.weight") && vgg.contains("torch.onnx.export"), "{vgg}");
    }

    #[test]
    fn wide_bottlenecks_follow_from_shapes() {
        let mut wide = resnet("resnet_50");
        let family = wide.family.resnet_mut().unwrap();
        family.stackwise_num_filters = vec![128, 256, 512, 1024];
        family.expansion = 2;
        let network = find(entries(&wide, "")).unwrap();
        assert_eq!(network.config, Architecture { name: "n".into(), ..wide });
    }

    #[test]
    fn other_names_become_torchvisions_by_what_stands_beside_them() {
        let renamed = |names: &[&str]| -> Vec<String> {
            let entries = names.iter().map(|n| ((*n).to_owned(), Entry::new(n, None))).collect();
            let named = as_torchvision(entries).into_iter();
            let mut named: Vec<String> =
                named.map(|(name, e)| format!("{} {name}", e.name)).collect();
            named.sort();
            named
        };
        assert_eq!(
            renamed(&[
                "b.0.weight",
                "b.1.bias",
                "b.4.0.conv1.weight",
                "b.7.1.bn2.bias",
                "fc.weight"
            ]),
            [
                "b.0.weight b.conv1.weight",
                "b.1.bias b.bn1.bias",
                "b.4.0.conv1.weight b.layer1.0.conv1.weight",
                "b.7.1.bn2.bias b.layer4.1.bn2.bias",
                "fc.weight fc.weight",
            ]
        );
        assert_eq!(
            renamed(&["stem.0.weight", "stem.4.bias", "stem.6.weight", "stem.7.bias", "bn.bias"]),
            [
                "bn.bias bn.bias",
                "stem.0.weight conv1.0.weight",
                "stem.4.bias conv1.4.bias",
                "stem.6.weight conv1.6.weight",
                "stem.7.bias bn1.bias",
            ]
        );
        let functions = [
            ("conv1.0.weight", "conv1.weight"),
            ("conv1.1.bias", "bn1.bias"),
            ("conv2_x.0.residual_function.0.weight", "layer1.0.conv1.weight"),
            ("conv3_x.0.shortcut.1.bias", "layer2.0.shortcut.1.bias"),
            ("conv3_x.1.residual_function.4.bias", "layer2.1.bn2.bias"),
            ("fc.bias", "fc.bias"),
        ];
        assert_eq!(
            renamed(&functions.map(|(theirs, _)| theirs)),
            functions.map(|(theirs, ours)| format!("{theirs} {ours}"))
        );
    }

    #[test]
    fn transformers_names_become_torchvisions() {
        for (theirs, ours) in [
            ("resnet.embedder.embedder.convolution.weight", "resnet.conv1.weight"),
            ("embedder.embedder.normalization.bias", "bn1.bias"),
            ("encoder.stages.0.layers.1.layer.2.convolution.weight", "layer1.1.conv3.weight"),
            (
                "encoder.stages.3.layers.0.layer.0.normalization.running_var",
                "layer4.0.bn1.running_var",
            ),
            (
                "encoder.stages.1.layers.0.shortcut.convolution.weight",
                "layer2.0.downsample.0.weight",
            ),
            ("encoder.stages.1.layers.0.shortcut.normalization.bias", "layer2.0.downsample.1.bias"),
            ("layer1._orig_mod.0.conv1.weight", "layer1.0.conv1.weight"),
        ] {
            assert_eq!(plain(theirs), ours);
        }
    }
}
