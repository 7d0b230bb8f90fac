//! The arrays of a weight file by layer, in whichever of Keras' ways they are filed.

use super::layers::Layer;
use artifact::text::AsPlain;
use formats::Array;
use formats::hdf5::Contents;
use std::collections::{BTreeMap, HashMap};

/// A weight file.
#[derive(Debug)]
pub(super) enum Arrays {
    /// Of Keras 3 and `.keras` files: `layers/<group>/…/vars/<i>`.
    Numbered {
        arrays: BTreeMap<String, Array>,
        /// The group of a layer, by the path of the groups that it is in and by its name.
        groups: HashMap<(String, String), String>,
    },
    /// Of `.h5` files: `<layer>/…/<layer in it>/<variable>:0`.
    Named(BTreeMap<String, Array>),
}

impl Arrays {
    /// The weights of a file; the optimizer's are left away.
    pub(super) fn new(contents: Contents) -> Self {
        let Contents { arrays, names, .. } = contents;
        let is_numbered = |path: &String| path.contains("/vars/");
        if !arrays.keys().any(is_numbered) {
            let layer = |path: String| {
                let path = path.strip_prefix("model_weights/").unwrap_or(&path);
                path.trim_end_matches(":0").to_owned()
            };
            let arrays = arrays.into_iter();
            let arrays = arrays.filter(|(path, _)| !path.starts_with("optimizer_weights/"));
            return Self::Named(arrays.map(|(path, array)| (layer(path), array)).collect());
        }
        // As the first versions of `.keras` called the same thing.
        let modern = |path: String| path.replace("_layer_checkpoint_dependencies/", "layers/");
        let group = |(path, name): (String, String)| {
            let path = modern(path);
            let path = path.strip_suffix("/vars")?;
            let (parent, _) = path.rsplit_once('/').unwrap_or(("", path));
            Some(((parent.to_owned(), name), path.to_owned()))
        };
        Self::Numbered {
            groups: names.into_iter().filter_map(group).collect(),
            arrays: arrays.into_iter().map(|(path, array)| (modern(path), array)).collect(),
        }
    }

    /// The arrays of a layer that has just these `variables`, in their order.
    ///
    /// # Errors
    /// Arrays that are missing or too many.
    pub(super) fn of<const N: usize>(
        &self,
        layer: &Layer,
        variables: [&str; N],
    ) -> Result<[&Array; N], String> {
        let all = self.all(layer, &variables)?;
        Ok(core::array::from_fn(|i| all[i]))
    }

    /// The same of any number of variables.
    pub(super) fn all(&self, layer: &Layer, variables: &[&str]) -> Result<Vec<&Array>, String> {
        let (found, prefix) = match self {
            Self::Numbered { arrays, groups } => {
                let path = group(groups, layer);
                let all = arrays.keys().filter(|p| {
                    p.strip_prefix(&path).is_some_and(|rest| rest.starts_with("/vars/"))
                });
                let (all, wanted) = (all.count(), variables.len());
                if all > wanted && wanted > 0 {
                    return Err(layer.misfit(&format!(
                        "{all} arrays, but {wanted} are wanted ({}); save it without quantization or \
                         LoRA",
                        variables.join(", ")
                    )));
                }
                let find = |i: usize| arrays.get(&format!("{path}/vars/{i}"));
                ((0..wanted).map(find).collect::<Vec<_>>(), path)
            }
            Self::Named(arrays) => {
                let outer = layer.place.first().map_or("", |s| &s.name);
                let find = |variable: &&str| named(arrays, outer, layer, variable);
                (variables.iter().map(find).collect(), outer.to_owned())
            }
        };
        let missing = |variable: &str| {
            let below = prefix.plain();
            layer.misfit(&format!("no array `{variable}` of it in the file (below `{below}`)"))
        };
        let each = found.into_iter().zip(variables);
        each.map(|(array, variable)| array.ok_or_else(|| missing(variable))).collect()
    }

    /// Variable `i` of the layer of a name, which files that name variables call one of `variables`;
    /// `None` where there is none, or several layers are called so.
    pub(super) fn variable(&self, layer: &str, i: usize, variables: &[&str]) -> Option<&Array> {
        match self {
            Self::Numbered { arrays, groups } => {
                let mut found = groups.iter().filter(|((_, name), _)| name == layer);
                let (_, group) = found.next()?;
                let array = arrays.get(&format!("{group}/vars/{i}"))?;
                found.next().is_none().then_some(array)
            }
            Self::Named(arrays) => {
                let is_layer = |path: &str| {
                    let (path, variable) = path.rsplit_once('/')?;
                    let before = path.strip_suffix(layer)?;
                    let is_whole = before.is_empty() || before.ends_with('/');
                    (is_whole && variables.contains(&variable)).then_some(())
                };
                let mut found = arrays.iter().filter(|(path, _)| is_layer(path).is_some());
                let (_, array) = found.next()?;
                found.next().is_none().then_some(array)
            }
        }
    }

    /// How many numbers there are.
    pub(super) fn numbers(&self) -> usize {
        let (Self::Numbered { arrays, .. } | Self::Named(arrays)) = self;
        arrays.values().map(|array| array.values.len()).sum()
    }

    /// The names of all layers of a file that names them.
    pub(super) fn layer_names(&self) -> Vec<&str> {
        match self {
            Self::Numbered { groups, .. } => groups.keys().map(|(_, name)| name.as_str()).collect(),
            Self::Named(arrays) => {
                arrays.keys().filter_map(|path| Some(path.split_once('/')?.0)).collect()
            }
        }
    }
}

/// The group of a layer in a file that numbers arrays.
fn group(groups: &HashMap<(String, String), String>, layer: &Layer) -> String {
    let mut path = String::new();
    for segment in &layer.place {
        let parent = if path.is_empty() { "layers".into() } else { path + "/layers" };
        let key = (parent, segment.name.clone());
        path = match groups.get(&key) {
            Some(group) => group.clone(),
            None => format!("{}/{}", key.0, segment.group),
        };
    }
    path
}

/// A layer's array in a file that names arrays; `None` where several have that name.
fn named<'a>(
    arrays: &'a BTreeMap<String, Array>,
    outer: &str,
    layer: &Layer,
    variable: &str,
) -> Option<&'a Array> {
    let in_layer = |path: &str| {
        let rest = path.strip_prefix(outer)?.strip_prefix('/')?;
        let rest = rest.strip_suffix(variable)?;
        let rest = if rest.is_empty() { rest } else { rest.strip_suffix('/')? };
        // What a layer that was renamed calls its arrays does not matter.
        (layer.place.len() == 1
            || rest == layer.name
            || rest.strip_suffix(&layer.name)?.ends_with('/'))
        .then_some(())
    };
    let range = arrays.range(outer.to_owned()..);
    let range = range.take_while(|(path, _)| path.starts_with(outer));
    let mut all = range.filter(|(path, _)| in_layer(path).is_some());
    let first = all.next()?;
    // Layers of the same name in two models of the same model.
    all.next().is_none().then_some(first.1)
}
