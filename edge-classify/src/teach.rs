//! `teach`, and patches with what was taught.

use crate::EXIT_ANSWER;
use crate::cli::Teach;
use crate::model::{ModelFile, Use};
use crate::print::Plain;
use crate::sources::{self, Skipped, Source};
use anyhow::{Context, Result, bail, ensure};
use network::file::write_atomic;
use runtime::preprocess::for_each_pixel;
use runtime::teach::{Class, MAX_CLASSES, Patch, PatchWriter, Taught, Teacher};
use runtime::{AlignedBuf, Model, PublicKey, Session};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// No patch is longer: 16 classes of at most 65,535 features.
const MAX_BYTES: u64 = 2 << 20;
/// Longest label, as in models.
const MAX_LABEL: usize = 256;
/// Of fewer pictures, a class is a guess.
const FEW: u16 = 8;

/// The bytes of a patch and where they came from.
pub(crate) struct PatchFile {
    bytes: Vec<u8>,
    name: String,
}

impl PatchFile {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let name = format!("patch {}", path.display());
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes))
            .with_context(|| name.clone())?;
        Ok(Self { bytes, name })
    }

    /// Checks it, and its signature where there is a key.
    pub(crate) fn parse<'a>(
        &'a self,
        model: &Model<'a>,
        key: Option<&PublicKey>,
    ) -> Result<Taught<'a>> {
        let context = || self.name.clone();
        let patch = Patch::parse(&self.bytes).with_context(context)?;
        key.map_or(Ok(()), |key| key.verify_patch(&patch)).with_context(context)?;
        Taught::new(model, &patch).with_context(context)
    }

    fn classes(&self) -> Result<Vec<Class<'_>>> {
        Ok(Patch::parse(&self.bytes).with_context(|| self.name.clone())?.classes().collect())
    }
}

/// Teaches the class that the command line names.
pub(crate) fn run(options: &Teach, out: &mut dyn Write, err: &mut dyn Write) -> Result<u8> {
    let file = ModelFile::open(Some(&options.model), Use::Long)?;
    let model = file.parse(None)?;
    let features = model.features().with_context(|| {
        format!(
            "model {}: it has no statistics of what it knows; convert it with --unknown 1%",
            options.model.display()
        )
    })?;
    let before = options.patch.as_deref().map(PatchFile::open).transpose()?;
    if let Some(before) = &before {
        before.parse(&model, None)?;
    }
    let mut classes = before.as_ref().map_or(Ok(Vec::new()), PatchFile::classes)?;
    let (label, replaces, at) = meant(options, &model, &classes)?;

    let mut memory = vec![0; features];
    let mut teacher = Teacher::new(&model, &mut memory)?;
    let workers = options.machine.workers()?;
    let mut arena = AlignedBuf::zeroed(model.arena_len());
    let mut session =
        Session::new(&model, &mut arena)?.with_isa(options.machine.isa()).with_workers(&*workers);
    let mut skipped = Skipped::default();
    for source in sources::expand(&options.files, &mut skipped) {
        let picture = match &source {
            Source::Stdin => picture::read(&mut io::stdin().lock()).context("-"),
            Source::File(path) => picture::open(path).with_context(|| path.display().to_string()),
            Source::Failed(path, e) => bail!("{}: {e:#}", path.display()),
        };
        let picture = picture.context("nothing was taught")?;
        let mut input = session.input_mut();
        let preprocess = model.meta().preprocess;
        for_each_pixel(&preprocess, picture.view()?, |index, rgb| input.set_pixel(index, rgb));
        session.run();
        teacher.add(&session)?;
    }
    let class = teacher.finish(label, replaces)?;
    match at {
        Some(at) => classes[at] = class,
        None => classes.push(class),
    }
    let len = classes.iter().map(|c| c.prototype.len() + MAX_LABEL + 16).sum::<usize>();
    let mut buffer = vec![0; len + runtime::teach::PATCH_HEADER_LEN];
    let mut writer = PatchWriter::new(model.identity(), &mut buffer)?;
    classes.iter().try_for_each(|class| writer.push(class))?;
    let patch = writer.finish()?;
    // What the program would refuse is not written.
    Taught::new(&model, &Patch::parse(patch)?)?;
    let name = options.output.display().to_string();
    write_atomic(&options.output, patch).with_context(|| name.clone())?;
    if !options.quiet {
        for line in skipped.take_lines() {
            writeln!(err, "edge-classify: {}", Plain(&line))?;
        }
        if class.frames < FEW {
            writeln!(err, "edge-classify: few pictures: {}; better {FEW} or more", class.frames)?;
        }
        let pictures = if class.frames == 1 { "picture" } else { "pictures" };
        writeln!(
            out,
            "{}: {} of {} {pictures}; {} bytes, give them with --patch",
            Plain(&name),
            Plain(label),
            class.frames,
            patch.len()
        )?;
    }
    Ok(EXIT_ANSWER)
}

/// The label, the class of the model that it stands for, and which class of the patch it takes the place of.
fn meant<'a>(
    options: &'a Teach,
    model: &Model<'_>,
    classes: &[Class<'_>],
) -> Result<(&'a str, Option<u16>, Option<usize>)> {
    let label = options.label.as_deref().or(options.replace.as_deref()).unwrap_or_default();
    ensure!(
        (1..=MAX_LABEL).contains(&label.len()),
        "--label: {} bytes; a name has 1 to {MAX_LABEL}",
        label.len()
    );
    let in_patch = |name: &str| classes.iter().position(|class| class.label == name);
    // A class of the model that was replaced is known by its new name.
    let in_model = |name: &str| {
        let mut labels = model.labels().enumerate();
        let is_left =
            |index: usize| classes.iter().all(|c| c.replaces.map(usize::from) != Some(index));
        labels.find(|(index, label)| *label == name && is_left(*index)).map(|(index, _)| index)
    };
    let (replaces, at) = match options.replace.as_deref() {
        None => (None, None),
        Some(name) => match (in_patch(name), in_model(name)) {
            (Some(at), _) => (classes[at].replaces, Some(at)),
            (None, Some(index)) => (Some(u16::try_from(index)?), None),
            (None, None) => bail!("--replace: the model has no class {name:?}"),
        },
    };
    let is_taken = |index: Option<usize>, own: Option<usize>| index.is_some() && index != own;
    let own = replaces.map(usize::from).filter(|_| at.is_none());
    ensure!(
        !is_taken(in_patch(label), at) && !is_taken(in_model(label), own),
        "--label: there is a class {label:?} already; teach it anew with --replace {label:?}"
    );
    ensure!(
        at.is_some() || classes.len() < MAX_CLASSES,
        "a patch has at most {MAX_CLASSES} classes; fine-tune the model instead"
    );
    Ok((label, replaces, at))
}
