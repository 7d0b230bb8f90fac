//! Names that become torchvision's before anything is looked for.

use std::collections::BTreeMap;

/// A name as torchvision has it, without what compilers and wrappers of modules put in.
pub(super) fn plain(name: &str) -> String {
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
pub(super) fn as_torchvision<T>(entries: BTreeMap<String, T>) -> BTreeMap<String, T> {
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
    let named = |(name, entry): (String, T)| (renamed(&name).unwrap_or(name), entry);
    entries.into_iter().map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_names_become_torchvisions_by_what_stands_beside_them() {
        let renamed = |names: &[&str]| -> Vec<String> {
            let named = as_torchvision(names.iter().map(|n| ((*n).to_owned(), n)).collect());
            let mut named: Vec<String> =
                named.into_iter().map(|(ours, theirs)| format!("{theirs} {ours}")).collect();
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
