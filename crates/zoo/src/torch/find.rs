//! The network among the tensors of a file, whatever leads to it.

use super::families::{Known, Rules, Shapes, Source, Traces, families, unknown};
use super::foreign_names::{as_torchvision, plain};
use crate::{Head, Hints};
use artifact::text::AsPlain;
use network::architecture::Architecture;
use network::blueprint::HEAD;
use network::checkpoint::Assumption;
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

/// A network that was found among the tensors of a file.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) config: Architecture,
    /// Our names, and those in the file.
    pub(super) tensors: BTreeMap<String, String>,
    /// What belongs to no layer.
    pub(super) extra: Vec<String>,
    /// What tensors do not tell.
    pub(super) assumed: Vec<Assumption>,
    /// ε of the batch-norms.
    pub(super) epsilon: f64,
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

/// The path of each network that is among these tensors, and its family.
fn networks(entries: &BTreeMap<String, Entry>) -> Vec<(&str, &'static Traces)> {
    let stems = || families().flat_map(|f| f.stems.iter().map(move |pair| (pair, f)));
    let network = |name| {
        stems().find_map(|([stem, block], family)| {
            let prefix = str::strip_suffix(name, stem)?;
            let whole = prefix.is_empty() || prefix.ends_with('.');
            (whole && entries.contains_key(&format!("{prefix}{block}"))).then_some((prefix, family))
        })
    };
    entries.keys().filter_map(|name| network(name.as_str())).collect()
}

/// The network to take.
fn choose<'a>(
    networks: &[(&'a str, &'static Traces)],
    wanted: Option<&str>,
) -> Result<(&'a str, &'static Traces), String> {
    let is_copy = |prefix: &str| {
        let words = prefix.split(|c: char| !c.is_alphanumeric());
        words.into_iter().any(|word| COPIES.contains(&word.to_lowercase().as_str()))
    };
    let is_wanted = |prefix: &str, name: &str| {
        prefix.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let is_chosen = |(prefix, _): &&(&str, _)| match wanted {
        Some(name) => is_wanted(prefix, name),
        None => networks.len() == 1 || !is_copy(prefix),
    };
    let [one] = networks.iter().filter(is_chosen).collect::<Vec<_>>()[..] else {
        let names: Vec<&str> = networks.iter().map(|(p, _)| p.trim_end_matches('.')).collect();
        return Err(format!(
            "{} networks, under `{}`; choose one by --state-dict",
            networks.len(),
            names.join("`, `").plain()
        ));
    };
    Ok(*one)
}

impl Network {
    /// The network among `entries`; its architecture follows from names and shapes, and where those do
    /// not say, from `hints`.
    ///
    /// # Errors
    /// No network of a known family, or several; networks with other layers; no head where one is needed.
    pub(super) fn find(
        name: &str,
        entries: Vec<Entry>,
        head: Head,
        hints: &Hints,
        rules: Option<Rules>,
    ) -> Result<Self, String> {
        let entries = entries.into_iter().map(|entry| (plain(&entry.name), entry)).collect();
        let entries = as_torchvision(entries);
        let networks = networks(&entries);
        if networks.is_empty() {
            return Err(unknown(entries.keys().map(String::as_str)));
        }
        let (prefix, family) = choose(&networks, hints.state_dict.as_deref())?;
        let mut assumed = Vec::new();
        let other = networks.iter().find(|(other, _)| *other != prefix);
        if let Some((other, _)) = other.filter(|_| hints.state_dict.is_none()) {
            let name = |prefix: &str| prefix.trim_end_matches('.').plain().to_string();
            let what = format!("the weights under `{}`, not `{}`", name(prefix), name(other));
            assumed.push(Assumption::new(what, Hints::STATE_DICT));
        }
        let place = Place::new(&entries, prefix, family)?;
        let source = Source { name, shapes: &place.shapes, hints, rules };
        let Known { config, names, epsilon } = (family.architecture)(&source, &mut assumed)?;
        config.check()?;
        let mut tensors: BTreeMap<String, String> = BTreeMap::new();
        let mut extra = Vec::new();
        for (name, shape) in place.shapes.iter().filter(|(name, _)| family.is_backbone(name)) {
            match names.canonical(name) {
                Some(ours) => tensors.extend(place.path(name).map(|theirs| (ours, theirs))),
                None => extra.push(format!("`{}` {shape:?}", name.plain())),
            }
        }
        let mut network = Self { config, tensors, extra, assumed, epsilon };
        network.add_head(&place, &place.rest(&networks), head)?;
        Ok(network)
    }

    /// Adds the dense layer that `rest` is, where it is one.
    fn add_head(
        &mut self,
        place: &Place<'_>,
        rest: &[(&str, &[usize])],
        head: Head,
    ) -> Result<(), String> {
        let features = self.config.blueprint().features();
        let Some((layer, classes)) = head_of(rest, features) else {
            return match head {
                // Fine-tuning makes a new one.
                Head::Optional => Ok(()),
                Head::Required if rest.is_empty() => {
                    Err("a backbone without a head; fine-tune it to some classes first".into())
                }
                Head::Required => {
                    let names: Vec<&str> = rest.iter().map(|(name, _)| *name).take(5).collect();
                    Err(format!(
                        "a head that is more, or other, than one dense layer of {features} features \
                         (`{}`): fine-tuning makes a new one, and as ONNX (torch.onnx.export) it is \
                         read as it is",
                        names.join("`, `").plain()
                    ))
                }
            };
        };
        self.config.classes = classes;
        if !place.family.head.contains(&layer) {
            let what = format!("`{}` as the head, alone", layer.plain());
            self.assumed.push(Assumption::new(what, None));
        }
        for part in ["weight", "bias"] {
            let theirs = place.path(&format!("{layer}.{part}"));
            self.tensors.extend(theirs.map(|theirs| (format!("{HEAD}.{part}"), theirs)));
        }
        Ok(())
    }
}

/// Where a network lies.
struct Place<'e> {
    entries: &'e BTreeMap<String, Entry>,
    prefix: &'e str,
    /// What it is a part of: what stands beside the network may be its head.
    parent: &'e str,
    family: &'e Traces,
    /// Of its tensors, without the prefix.
    shapes: Shapes<'e>,
}

impl<'e> Place<'e> {
    fn new(
        entries: &'e BTreeMap<String, Entry>,
        prefix: &'e str,
        family: &'e Traces,
    ) -> Result<Self, String> {
        // A counter, which `.half()` turns into a number like all others.
        let counts = |name: &str| name.ends_with(".num_batches_tracked");
        let inside: Vec<(&str, &Entry)> = (entries.iter())
            .filter_map(|(name, entry)| Some((name.strip_prefix(prefix)?, entry)))
            .filter(|(name, _)| !counts(name))
            .collect();
        let strange =
            inside.iter().find(|(n, e)| family.is_backbone(n) && is_part(n) && e.shape.is_none());
        if let Some((_, entry)) = strange {
            return Err(format!(
                "`{}` is {}, but tensors of floats are read; save the float model's state_dict()",
                entry.name.plain(),
                entry.of
            ));
        }
        let shapes: Shapes<'_> = (inside.iter())
            .filter_map(|(name, entry)| Some((*name, entry.shape.as_deref()?)))
            .collect();
        let parent = &prefix[..prefix.trim_end_matches('.').rfind('.').map_or(0, |dot| dot + 1)];
        Ok(Self { entries, prefix, parent, family, shapes })
    }

    /// What is no backbone: the network's own, else what stands beside all `networks`.
    fn rest(&self, networks: &[(&str, &Traces)]) -> Vec<(&'e str, &'e [usize])> {
        let is_own = |(name, _): &(&str, _)| !self.family.is_backbone(name);
        let own: Vec<_> = self.shapes.iter().map(|(n, s)| (*n, *s)).filter(is_own).collect();
        if !own.is_empty() || self.prefix.is_empty() {
            return own;
        }
        let beside = self.entries.iter().filter(|(name, _)| {
            let is_of = |(p, _): &(&str, _)| !p.is_empty() && name.starts_with(p);
            let trains = name.contains("optim") || name.contains("scheduler");
            name.starts_with(self.parent) && !networks.iter().any(is_of) && is_part(name) && !trains
        });
        beside.filter_map(|(n, e)| Some((&n[self.parent.len()..], e.shape.as_deref()?))).collect()
    }

    /// The file's name of a tensor.
    fn path(&self, name: &str) -> Option<String> {
        let of = |path: &str| self.entries.get(&format!("{path}{name}"));
        of(self.prefix).or_else(|| of(self.parent)).map(|entry| entry.name.clone())
    }
}

/// Whether a name is one of a layer's weights or statistics.
fn is_part(name: &str) -> bool {
    let part = name.rsplit('.').next();
    matches!(part, Some("weight" | "bias" | "running_mean" | "running_var"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::families::Names;
    use network::architecture::resnet::{BottleneckStride, ResNetConfig};

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
        Network::find("n", entries, Head::Required, &Hints::default(), None)
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
            assert_eq!(network.tensors["conv1_conv.weight"], format!("{one}conv1.weight"));
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
        let chosen =
            Network::find("n", two("net_a.", "net_b."), Head::Required, &hints, None).unwrap();
        assert_eq!(chosen.tensors["conv1_conv.weight"], "net_b.conv1.weight");
        let hints = Hints { state_dict: Some("net".into()), ..Hints::default() };
        Network::find("n", two("net_a.", "net_b."), Head::Required, &hints, None).unwrap_err();
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
            assert_eq!(network.tensors["predictions.bias"], format!("{head}.bias"));
        }
        // One without a bias.
        let mut all = backbone("resnet_18", "");
        add(&mut all, &[("fc.weight", &[7, 512])]);
        assert!(!find(all).unwrap().tensors.contains_key("predictions.bias"));
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
            let network =
                Network::find("n", all(), Head::Optional, &Hints::default(), None).unwrap();
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
        let told = Network::find("n", all, Head::Required, &hints, None).unwrap();
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
}
