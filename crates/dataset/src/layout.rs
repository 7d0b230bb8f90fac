//! Where the pictures of a data set lie, found out before any of them is read.
//!
//! Folders called `train`, `val` or `test`, in whatever spelling people have for them, are parts
//! of a data set where they hold class folders; a folder that holds nothing but one other is
//! looked through. What remains are classes, unless they hold the same folders: then they are
//! parts without a name that says which, and refused.

use super::cifar;
use super::error::DataError;
use super::part::{Files, Part};
use std::path::{Path, PathBuf};

/// Folders around the data that are looked through, at most.
const MAX_WRAPPERS: usize = 4;
/// Names said in one line, at most.
const MAX_NAMED: usize = 5;

/// The parts of a data set.
#[derive(Debug)]
pub(super) struct Layout {
    /// As the user knows it, without the folders around it.
    pub(super) name: String,
    /// To learn from.
    pub(super) train: Option<Part>,
    /// To choose the best epoch by.
    pub(super) val: Option<Part>,
    /// For the last word.
    pub(super) test: Option<Part>,
    /// What else was found, one line each.
    pub(super) remarks: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Train,
    Val,
    Test,
}

/// A folder inside the data set, perhaps a class, perhaps a part.
#[derive(Debug)]
struct Inner {
    name: String,
    /// Behind folders that only hold one of the same kind.
    path: PathBuf,
    role: Option<(Role, Sureness)>,
    listing: Listing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sureness {
    /// The name says nothing else.
    Sure,
    /// It has the word among others.
    Maybe,
}

impl Layout {
    /// Looks into `root`.
    ///
    /// # Errors
    /// Unreadable folders, and those whose meaning is not clear, with what would make it so.
    pub(super) fn find(root: &Path) -> Result<Self, DataError> {
        let name = root
            .canonicalize()
            .ok()
            .and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned()))
            .unwrap_or_else(|| "folder".into());
        let mut layout = Self { name, train: None, val: None, test: None, remarks: Vec::new() };
        let mut dir = root.to_path_buf();
        for _ in 0..MAX_WRAPPERS {
            if let Some(batches) = cifar::find(&dir) {
                return layout.with_batches(&batches);
            }
            let listing = Listing::of(&dir)?;
            let Some(only) = listing.only_folder() else { break };
            let inner = Listing::of(only)?;
            if inner.folders.is_empty() {
                break;
            }
            dir = only.to_path_buf();
        }
        if dir != root {
            layout.remarks.push(format!("the data is in {}", dir.display()));
        }
        layout.with_folders(&dir)?;
        Ok(layout)
    }

    /// All pictures below `root`, whatever its folders mean.
    pub(super) fn heap(root: &Path) -> Part {
        Part {
            name: String::new(),
            path: root.into(),
            labels: vec![String::new()],
            files: Files::Folders(vec![root.into()]),
        }
    }

    fn with_batches(self, dir: &Path) -> Result<Self, DataError> {
        let (train, test) = cifar::parts(dir)?;
        let mut layout = Self { name: "cifar-10".into(), train: Some(train), ..self };
        if test.is_some() {
            layout.remarks.push(
                "the test pictures choose the best epoch, which flatters it a little; last.mpk is \
                 not chosen"
                    .into(),
            );
        }
        layout.val = test;
        Ok(layout)
    }

    fn with_folders(&mut self, dir: &Path) -> Result<(), DataError> {
        let listing = Listing::of(dir)?;
        let inner = listing.folders.iter().map(|(name, path)| Inner::of(name, path));
        let inner: Vec<Inner> = inner.collect::<Result<_, _>>()?;
        let train = Self::train_of(dir, &inner)?;
        // Beside class folders, others of the same classes are no class.
        let repeats = |i: &Inner| {
            i.labels().all(|label| inner.iter().any(|o| o.name == *label && o.name != i.name))
        };
        let beside = |i: &Inner| {
            (i.has(Role::Val) || i.has(Role::Test))
                && i.classes() > 0
                && (repeats(i) || inner.iter().all(Inner::is_sure))
        };
        let is_part = |i: &Inner, role| match train {
            Some(_) => i.has(role) && i.classes() > 0,
            None => i.has(role) && beside(i),
        };
        let part = |role| {
            let mut all: Vec<&Inner> = inner.iter().filter(|i| is_part(i, role)).collect();
            all.sort_by_key(|i| (!i.is_sure(), Role::rank(&i.name)));
            all.first().copied()
        };
        let (val, test) = (part(Role::Val), part(Role::Test));
        match train {
            Some(train) => {
                self.train = Some(train.part());
                self.remark_loose(train);
                let used = [Some(train), val, test];
                let is_used = |i: &&Inner| used.iter().flatten().any(|u| u.name == i.name);
                let unused: Vec<String> =
                    inner.iter().filter(|i| !is_used(i)).map(|i| format!("{}/", i.name)).collect();
                if !unused.is_empty() {
                    self.remarks.push(format!("not used: {}", some(&unused)));
                }
            }
            None => {
                let is_copy = |i: &&Inner| {
                    i.classes() >= 2 && i.listing.pictures.is_empty() && repeats(i) && !beside(i)
                };
                for copy in inner.iter().filter(is_copy) {
                    self.remarks.push(format!(
                        "not used: {}/, which has the folders beside it once more",
                        copy.name
                    ));
                }
                let classes: Vec<&Inner> =
                    inner.iter().filter(|i| !beside(i) && !is_copy(i)).collect();
                self.with_classes(dir, &listing, &classes, val.or(test).is_some())?;
            }
        }
        self.val = val.map(Inner::part);
        self.test = test.map(Inner::part);
        for part in [val, test].into_iter().flatten() {
            self.remark_loose(part);
        }
        self.check_strays()
    }

    /// The part to learn from, if there is one.
    fn train_of<'a>(dir: &Path, inner: &'a [Inner]) -> Result<Option<&'a Inner>, DataError> {
        let shares = |i: &Inner| {
            let mut others = inner.iter().filter(|o| o.has(Role::Val) || o.has(Role::Test));
            others.any(|other| i.labels().any(|label| other.labels().any(|l| l == label)))
        };
        let holds =
            |i: &&Inner| i.has(Role::Train) && i.classes() > 0 && (i.is_sure() || shares(i));
        let mut found: Vec<&Inner> = inner.iter().filter(holds).collect();
        found.sort_by_key(|i| (!i.is_sure(), Role::rank(&i.name)));
        if let [first, second, ..] = found[..]
            && (first.is_sure(), Role::rank(&first.name))
                == (second.is_sure(), Role::rank(&second.name))
        {
            return Err(DataError::layout(
                dir,
                format!(
                    "both {} and {} look like the training pictures; call one of them train",
                    first.name, second.name
                ),
            ));
        }
        Ok(found.first().copied())
    }

    /// Takes class folders as the data to learn from.
    fn with_classes(
        &mut self,
        dir: &Path,
        listing: &Listing,
        classes: &[&Inner],
        has_parts: bool,
    ) -> Result<(), DataError> {
        let fail = |what: String| Err(DataError::layout(dir, what));
        let parts: Vec<&&Inner> = classes.iter().filter(|i| i.is_sure()).collect();
        let others = classes.len() - parts.len();
        let unsorted =
            parts.iter().find(|i| !i.has(Role::Train) && i.classes() == 0 && others >= 2);
        if let Some(part) = unsorted {
            return fail(format!(
                "{}/ lies beside the class folders and has none itself; move it away, or give it \
                 another name if it is a class",
                part.name
            ));
        }
        if others == 0 && parts.len() >= 2 {
            let names: Vec<String> = parts.iter().map(|i| format!("{}/", i.name)).collect();
            return fail(format!(
                "{} hold pictures, but no class folders, so that nobody knows what they show; \
                 make one folder per class in each",
                list(&names)
            ));
        }
        for (i, a) in classes.iter().enumerate() {
            for b in &classes[i + 1..] {
                let common = a.labels().filter(|l| b.labels().any(|other| other == *l)).count();
                let fewest = a.classes().min(b.classes());
                let only_folders = a.listing.pictures.is_empty() && b.listing.pictures.is_empty();
                if !only_folders || fewest < 2 || common < fewest {
                    continue;
                }
                let names: Vec<String> = a.labels().cloned().collect();
                let inverted =
                    a.labels().any(|label| role(label).is_some_and(|r| r.1 == Sureness::Sure));
                let remedy = match inverted {
                    true => "put the class folders inside of train/ and val/, not around them",
                    false => {
                        "call one train and one val, or put all pictures of a class into one folder"
                    }
                };
                return fail(format!(
                    "{} and {} hold the same folders ({}), so they are no classes; {remedy}",
                    a.name,
                    b.name,
                    some(&names)
                ));
            }
        }
        if classes.is_empty() {
            if has_parts {
                return Ok(());
            }
            return fail(match listing.pictures.len() {
                0 => "no class folders here; make one folder per class and put its pictures inside"
                    .into(),
                n => format!(
                    "no class folders here, but {n} pictures: one level too deep if this is a class, \
                     then pass the folder around it; else make one folder per class"
                ),
            });
        }
        let deep = classes.iter().filter(|i| i.listing.pictures.is_empty() && i.classes() >= 2);
        if let Some(example) = deep.clone().next()
            && deep.count() == classes.len()
        {
            let inner: Vec<String> = example.labels().cloned().collect();
            self.remarks.push(format!(
                "the classes are the folders of {}; {} holds others ({}), which are taken together",
                dir.display(),
                example.name,
                some(&inner)
            ));
        }
        self.train = Some(Part {
            name: String::new(),
            path: dir.into(),
            labels: classes.iter().map(|i| i.name.clone()).collect(),
            files: Files::Folders(classes.iter().map(|i| i.outer(dir)).collect()),
        });
        self.remark_pictures(dir, &listing.pictures);
        Ok(())
    }

    fn remark_loose(&mut self, part: &Inner) {
        self.remark_pictures(&part.path, &part.listing.pictures);
    }

    fn remark_pictures(&mut self, dir: &Path, pictures: &[String]) {
        if !pictures.is_empty() {
            let noun = if pictures.len() == 1 { "picture" } else { "pictures" };
            self.remarks.push(format!(
                "not used: {} {noun} of {} beside its class folders ({})",
                pictures.len(),
                dir.display(),
                some(pictures)
            ));
        }
    }

    /// Classes that there are no training pictures of, and parts without known ones.
    fn check_strays(&mut self) -> Result<(), DataError> {
        let Some(train) = &self.train else { return Ok(()) };
        for part in [&mut self.val, &mut self.test] {
            let Some(found) = part.as_ref() else { continue };
            let Some(stray) = found.labels.iter().find(|l| !train.labels.contains(l)) else {
                continue;
            };
            if found.labels.len() > 1 {
                return Err(DataError::layout(
                    &found.path,
                    format!(
                        "class `{stray}` is not in {} ({}); give both the same folders",
                        train.path.display(),
                        list(&train.labels)
                    ),
                ));
            }
            self.remarks.push(format!(
                "not used: {}, which has one folder, {stray}, that is no class",
                found.name
            ));
            *part = None;
        }
        Ok(())
    }
}

impl Role {
    /// Usual names first.
    fn rank(name: &str) -> usize {
        const NAMES: [&str; 7] =
            ["train", "training", "val", "validation", "valid", "test", "testing"];
        let name = name.to_lowercase();
        NAMES.iter().position(|n| *n == name).unwrap_or(NAMES.len())
    }

    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "train" | "training" | "trn" => Self::Train,
            "val" | "valid" | "validation" | "validate" | "dev" | "devel" | "development"
            | "eval" | "evaluation" | "holdout" => Self::Val,
            "test" | "testing" | "tst" => Self::Test,
            _ => return None,
        })
    }
}

/// Whether a folder of this name is most often a part of a data set, such as `training_set`, and no
/// class.
pub fn is_part_name(name: &str) -> bool {
    role(name).is_some_and(|(_, sureness)| sureness == Sureness::Sure)
}

/// The part of a data set that a name stands for.
fn role(name: &str) -> Option<(Role, Sureness)> {
    /// Words that say nothing of the contents.
    const NEUTRAL: [&str; 17] = [
        "dataset", "data", "set", "images", "image", "imgs", "img", "pictures", "pics", "photos",
        "seg", "split", "folder", "samples", "subset", "cropped", "resized",
    ];
    let lower = name.to_lowercase();
    let mut letters: String = lower.chars().filter(|c| c.is_alphabetic()).collect();
    for word in NEUTRAL {
        letters = letters.replace(word, "");
    }
    if let Some(role) = Role::of(&letters) {
        return Some((role, Sureness::Sure));
    }
    let mut words = String::new();
    for c in name.chars() {
        // imagesTrain is two words, too.
        if c.is_uppercase() && !words.ends_with(|c: char| c.is_uppercase()) {
            words.push(' ');
        }
        words.push(if c.is_alphabetic() { c } else { ' ' });
    }
    let found = words.split_whitespace().find_map(|word| Role::of(&word.to_lowercase()));
    found.map(|role| (role, Sureness::Maybe))
}

impl Inner {
    fn of(name: &str, path: &Path) -> Result<Self, DataError> {
        let role = role(name);
        let mut inner =
            Self { name: name.into(), path: path.into(), role, listing: Listing::of(path)? };
        // seg_train/seg_train: the same name again, or one that says nothing.
        for _ in 0..MAX_WRAPPERS {
            let Some(only) = inner.listing.only_folder() else { break };
            let again = only.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let same = again.eq_ignore_ascii_case(name)
                || (role.is_some() && self::role(&again).map(|r| r.0) == role.map(|r| r.0));
            let listing = Listing::of(only)?;
            if !same || listing.folders.is_empty() {
                break;
            }
            inner = Self { path: only.to_path_buf(), listing, ..inner };
        }
        Ok(inner)
    }

    /// As it lies in `dir`.
    fn outer(&self, dir: &Path) -> PathBuf {
        dir.join(&self.name)
    }

    fn has(&self, role: Role) -> bool {
        self.role.is_some_and(|r| r.0 == role)
    }

    fn is_sure(&self) -> bool {
        self.role.is_some_and(|r| r.1 == Sureness::Sure)
    }

    fn labels(&self) -> impl Iterator<Item = &String> {
        self.listing.folders.iter().map(|(name, _)| name)
    }

    fn classes(&self) -> usize {
        self.listing.folders.len()
    }

    fn part(&self) -> Part {
        Part {
            name: format!("{}/", self.name),
            path: self.path.clone(),
            labels: self.labels().cloned().collect(),
            files: Files::Folders(self.listing.folders.iter().map(|f| f.1.clone()).collect()),
        }
    }
}

/// What lies directly in a folder.
#[derive(Debug)]
struct Listing {
    /// Visible folders with their names, sorted by name.
    folders: Vec<(String, PathBuf)>,
    /// Names of files that look like pictures, sorted.
    pictures: Vec<String>,
}

impl Listing {
    fn of(dir: &Path) -> Result<Self, DataError> {
        let entries = std::fs::read_dir(dir).map_err(|e| DataError::io(dir, e))?;
        let (mut folders, mut pictures) = (Vec::new(), Vec::new());
        for entry in entries {
            let entry = entry.map_err(|e| DataError::io(dir, e))?;
            let path = entry.path();
            if hidden(&path) {
                continue;
            }
            let kind = entry.file_type().map_err(|e| DataError::io(&path, e))?;
            let name = path.file_name().and_then(|n| n.to_str());
            if kind.is_dir() || (kind.is_symlink() && path.is_dir()) {
                let Some(name) = name else {
                    return Err(DataError::layout(
                        &path,
                        "the folder's name is not UTF-8 and cannot become a label; rename it",
                    ));
                };
                folders.push((name.to_owned(), path.clone()));
            } else if is_picture(&path) {
                pictures.push(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
            }
        }
        folders.sort();
        pictures.sort();
        Ok(Self { folders, pictures })
    }

    /// The folder that is all there is.
    fn only_folder(&self) -> Option<&Path> {
        match &self.folders[..] {
            [(_, path)] if self.pictures.is_empty() => Some(path),
            _ => None,
        }
    }
}

/// Whether the name is that of a picture, also of one that cannot be read.
pub(super) fn is_picture(path: &Path) -> bool {
    const ENDINGS: [&str; 15] = [
        "jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif", "tif", "tiff", "heic", "heif",
        "avif", "jxl", "ppm",
    ];
    let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    ending.is_some_and(|e| ENDINGS.contains(&e.as_str()))
}

/// A few names, separated by commas.
fn some(names: &[String]) -> String {
    match names.get(..MAX_NAMED) {
        Some(first) if names.len() > MAX_NAMED => format!("{}, …", first.join(", ")),
        _ => names.join(", "),
    }
}

/// Files that file managers leave behind, and everything that starts with a dot.
pub(super) fn hidden(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    name.starts_with('.')
        || ["thumbs.db", "desktop.ini", "__macosx"].contains(&name.to_lowercase().as_str())
}

/// Up to ten names, separated by commas.
pub fn list(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(10).map(String::as_str).collect();
    let more = if names.len() > 10 { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The layout of a folder with these files.
    fn layout(files: &[&str]) -> (tempfile::TempDir, Result<Layout, String>) {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let layout = Layout::find(dir.path()).map_err(|e| e.to_string());
        (dir, layout)
    }

    /// The files of `parts`, each with the classes cat and dog.
    fn pets(parts: &[&str]) -> Vec<String> {
        let pictures = ["cat/1.jpg", "cat/2.jpg", "dog/1.jpg"];
        parts.iter().flat_map(|part| pictures.map(|p| format!("{part}/{p}"))).collect()
    }

    fn found(files: &[String]) -> [Option<String>; 3] {
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let (_dir, layout) = layout(&files);
        let layout = layout.unwrap();
        let name = |part: Option<Part>| {
            part.map(|part| {
                assert_eq!(part.labels, ["cat", "dog"]);
                part.name
            })
        };
        [layout.train, layout.val, layout.test].map(name)
    }

    #[test]
    fn parts_are_known_by_the_names_people_give_them() {
        for (train, val, test) in [
            ("train", Some("val"), Some("test")),
            ("training_set", None, Some("test_set")),
            ("Train", Some("Valid"), Some("Test")),
            ("Training", None, Some("Testing")),
            ("seg_train/seg_train", None, Some("seg_test/seg_test")),
            ("TRAIN", Some("dev"), None),
            ("train_images", Some("validation_data"), None),
            ("imagesTrain", Some("imagesVal"), Some("imagesTest")),
            ("train2017", Some("val2017"), None),
            ("pets_train", None, Some("pets_test")),
            ("trainset", Some("holdout"), Some("testset")),
            ("Training Data", Some("Evaluation Data"), None),
            ("training", None, None),
        ] {
            for around in ["", "dataset/", "archive/dataset/dataset/"] {
                let parts: Vec<String> = [Some(train), val, test]
                    .into_iter()
                    .flatten()
                    .map(|p| format!("{around}{p}"))
                    .collect();
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                let want = [Some(train), val, test]
                    .map(|p| p.map(|p| format!("{}/", p.split('/').next().unwrap())));
                let got = found(&pets(&parts));
                // A wrapper is a wrapper, also one called training.
                let want = if parts.len() == 1 { [Some(String::new()), None, None] } else { want };
                assert_eq!(got, want, "{parts:?}");
            }
        }
        let beside = [pets(&["."]), pets(&["test"])].concat();
        assert_eq!(found(&beside), [Some(String::new()), None, Some("test/".into())]);
        assert_eq!(
            found(&pets(&["val", "test"])),
            [None, Some("val/".into()), Some("test/".into())]
        );
    }

    #[test]
    fn classes_are_no_parts() {
        for classes in [
            ["bus/1.jpg", "plane/1.jpg", "train/1.jpg"],
            ["bus_station/1.jpg", "church/1.jpg", "train_station/1.jpg"],
            ["bus_station/a/1.jpg", "church/1.jpg", "train_station/a/1.jpg"],
            ["cat/images/1.jpg", "dog/images/1.jpg", "fox/images/1.jpg"],
            ["animals/cat/1.jpg", "plants/oak/1.jpg", "things/cup/1.jpg"],
            ["developer/1.jpg", "tester/1.jpg", "trainer/1.jpg"],
        ] {
            let (_dir, layout) = layout(&classes);
            let layout = layout.unwrap();
            assert_eq!(layout.train.unwrap().labels.len(), 3, "{classes:?}");
            assert!(layout.val.is_none() && layout.test.is_none() && layout.remarks.is_empty());
        }
    }

    #[test]
    fn what_is_not_clear_is_refused_with_the_reason() {
        let refused = |files: &[&str]| layout(files).1.unwrap_err();
        let owned =
            |files: &[String]| refused(&files.iter().map(String::as_str).collect::<Vec<_>>());
        let error = owned(&pets(&["batch1", "batch2"]));
        for what in ["batch1 and batch2 hold the same folders (cat, dog)", "no classes", "call one"]
        {
            assert!(error.contains(what), "{error}");
        }
        let error =
            refused(&["cat/train/1.jpg", "cat/val/1.jpg", "dog/train/1.jpg", "dog/val/1.jpg"]);
        assert!(error.contains("inside of train/ and val/"), "{error}");
        let error = owned(&pets(&["train_a", "train_b", "test"]));
        assert!(error.contains("both train_a and train_b"), "{error}");
        let error = refused(&["train/cat.0.jpg", "test1/1.jpg"]);
        assert!(error.contains("test1/, train/ hold pictures, but no class folders"), "{error}");
        let error = refused(&["cat/1.jpg", "dog/1.jpg", "test/1.jpg"]);
        assert!(error.contains("test/ lies beside the class folders"), "{error}");
        let error = refused(&["1.jpg", "2.jpg"]);
        assert!(error.contains("2 pictures: one level too deep"), "{error}");
        let mut fox = pets(&["train", "test"]);
        fox.push("test/fox/1.jpg".into());
        let error = owned(&fox);
        assert!(error.contains("`fox`") && error.contains("cat, dog"), "{error}");
    }

    #[test]
    fn what_is_left_out_is_said() {
        let mut files = pets(&["seg_train/seg_train", "seg_test/seg_test"]);
        files.extend(["seg_pred/seg_pred/1.jpg", "seg_train/seg_train/a.JPG"].map(String::from));
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let remarks = layout(&files).1.unwrap().remarks.join("\n");
        for what in ["not used: seg_pred/", "not used: 1 picture of", "(a.JPG)"] {
            assert!(remarks.contains(what), "{what}: {remarks}");
        }
        let mut files = pets(&["train"]);
        files.extend(["test/unknown/1.jpg", "readme.txt"].map(String::from));
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let found = layout(&files).1.unwrap();
        assert!(found.test.is_none());
        assert!(found.remarks[0].contains("not used: test/"), "{:?}", found.remarks);
        let copies = pets(&[".", "pets", "pets_test"]);
        let copies: Vec<&str> = copies.iter().map(String::as_str).collect();
        let found = layout(&copies).1.unwrap();
        assert_eq!(found.train.unwrap().labels, ["cat", "dog"]);
        assert_eq!(found.test.unwrap().name, "pets_test/");
        assert!(found.remarks[0].contains("not used: pets/"), "{:?}", found.remarks);
        let deep =
            ["animals/cat/1.jpg", "animals/dog/1.jpg", "things/cup/1.jpg", "things/mug/1.jpg"];
        let remarks = layout(&deep).1.unwrap().remarks;
        assert!(remarks[0].contains("animals holds others (cat, dog)"), "{remarks:?}");
    }
}
