//! What a run begins with: the weights of its backbone, statistics of batch-norms, a head.

use super::{Run, measurable};
use crate::data::augment::Mix;
use crate::data::{Augment, Batch, Batches, Dataset, Loading, Order, Pictures, Share};
use crate::net::{self, Network};
use crate::train::lessons::Lessons;
use crate::train::loss::balanced_weights;
use crate::train::probe::{Fitting, Head, Probe};
use crate::train::{State, duration};
use burn::tensor::{Tensor, TensorData};
use network::blueprint::HEAD;
use network::checkpoint::{self, Checkpoint, Draft};
use network::restate::{Statistics, restate};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

/// Pictures that tell the statistics of a network without batch-norms, at most.
const RESTATED_ON: usize = 128;
/// Pictures that the head is fitted to before training, about.
const PROBED: usize = 2400;
/// And that many of each class.
const PROBED_PER_CLASS: usize = 16;
/// How often each of few pictures is looked at for it, at most.
const MAX_PROBES: usize = 8;

impl Run<'_> {
    /// The state before the first step. It is saved, so that a run that is stopped before its first
    /// whole epoch can be resumed, too.
    pub(super) fn start(
        &self,
        net: &mut Network,
        data: &Dataset,
        lessons: Option<&mut Lessons<'_>>,
        out: &mut dyn Write,
    ) -> anyhow::Result<State> {
        if let Some(base) = self.base {
            net::load_tensors(net, &base.tensors, !self.keeps_head(base, data))?;
        }
        let mut draft = Draft { tensors: net::save_tensors(net), ..self.draft(data)? };
        if self.base.is_some_and(has_identity_norms) {
            let folded = draft.check().map_err(anyhow::Error::msg)?;
            let restated = restate(folded, &self.statistics(net, data)?);
            draft = restated.map_err(anyhow::Error::msg)?.into_draft();
        }
        if self.recipe.probe && self.base.is_some_and(|base| !self.keeps_head(base, data)) {
            let head = self.probe(net, data, lessons, out)?;
            let (classes, width) = (head.bias.len(), head.weight.len() / head.bias.len());
            for (part, shape, values) in
                [("weight", &[classes, width][..], head.weight), ("bias", &[classes], head.bias)]
            {
                draft
                    .tensors
                    .insert(format!("{HEAD}.{part}"), checkpoint::Tensor::from_f32(shape, &values));
            }
        }
        let state = State::new(draft);
        let folder = self.folder()?;
        folder.clear(self.teaching.is_some())?;
        state.save(&folder.file("state.mpk")?)?;
        Ok(state)
    }

    /// What is to become int8 is to stay what it is.
    fn keeps_head(&self, base: &Checkpoint, data: &Dataset) -> bool {
        self.recipe.qat && base.labels == data.labels
    }

    /// The best head for what `net` sees in the training pictures, as they are and, where they are
    /// few, augmented. Where somebody teaches, it is the best for what the teacher says of them, too.
    fn probe(
        &self,
        net: &Network,
        data: &Dataset,
        lessons: Option<&mut Lessons<'_>>,
        out: &mut dyn Write,
    ) -> anyhow::Result<Head> {
        let began = std::time::Instant::now();
        let classes = self.config.classes;
        let weights = match self.recipe.balance {
            true => balanced_weights(&data.train.counts(classes)),
            false => vec![1.0; classes],
        };
        let all = lessons.as_ref().map_or(&data.train, |lessons| lessons.pictures());
        let some = all.stratified(PROBED.max(PROBED_PER_CLASS * classes), self.recipe.seed);
        let pictures = Arc::new(all.select(&some));
        let targets = match (lessons, self.teaching) {
            (Some(lessons), Some(teaching)) => {
                let said = lessons.plain(&some)?;
                Some(teaching.targets(&said, &pictures.labels, &weights))
            }
            _ => None,
        };
        let passes = (PROBED / some.len().max(1)).clamp(1, MAX_PROBES);
        let counter = crate::train::counter("looking at pictures for the head");
        let mut probe = Probe::default();
        let augment = Augment { mix: Mix::default(), ..self.recipe.augment.clone() };
        let seed = self.recipe.seed;
        let plain = measurable(net);
        for pass in 0..passes {
            let (epoch, augment) = (pass as u32, augment.clone());
            let order = match pass {
                0 => Order::Sequential,
                _ => Order::Shuffled { seed, epoch, augment, share: Share::WHOLE },
            };
            for batch in self.batches(&pictures, order, self.recipe.batch) {
                let mut batch = batch?;
                let places = core::mem::take(&mut batch.pictures);
                let (pixels, labels) = self.on_device(batch);
                let features = plain.features(pixels).into_data();
                let features: Vec<f32> = features.convert::<f32>().try_to_vec()?;
                match &targets {
                    Some(targets) => {
                        let rows = places.iter().flat_map(|i| &targets[i * classes..][..classes]);
                        let rows: Vec<f32> = rows.copied().collect();
                        probe.add_taught(&features, &labels, &rows);
                    }
                    None => probe.add(&features, &labels),
                }
                if let Some(counter) = &counter {
                    counter.show(probe.len(), passes * some.len());
                }
            }
        }
        drop(counter);
        let fitting = crate::train::counter("fitting the head");
        let head = probe.solve(&weights, Fitting::EXACT);
        drop(fitting);
        let seconds = duration(began.elapsed().as_secs_f64());
        writeln!(out, "head fitted to the features of {} pictures in {seconds}", some.len())?;
        Ok(head)
    }

    /// What batch-norms read of some training pictures. Those that were folded away get it, so that
    /// training is what it is for any other network; the function stays the same.
    fn statistics(
        &self,
        net: &Network,
        data: &Dataset,
    ) -> anyhow::Result<BTreeMap<String, Statistics>> {
        let plain = measurable(net);
        let watch = net::Watch::default();
        let _counter = crate::train::counter("measuring what batch-norms read");
        let (seed, augment) = (self.recipe.seed, Augment::default());
        let order = Order::Shuffled { seed, epoch: 0, augment, share: Share::WHOLE };
        let batch = self.recipe.batch.min(RESTATED_ON);
        let batches = self.batches(&Arc::new(data.train.clone()), order, batch);
        for batch in batches.take(RESTATED_ON / batch) {
            plain.watch(self.on_device(batch?).0, &watch);
        }
        Ok(watch.statistics())
    }

    fn batches(&self, pictures: &Arc<Pictures>, order: Order, batch: usize) -> Batches {
        let loading =
            Loading { preprocess: self.preprocess, batch, side: None, frame: None, order };
        Batches::start(pictures.clone(), loading)
    }

    /// Pixels and classes.
    fn on_device(&self, batch: Batch) -> (Tensor<4>, Vec<u32>) {
        let pixels = TensorData::new(batch.pixels, batch.shape);
        (Tensor::from_data(pixels, &self.device), batch.labels)
    }
}

/// Whether batch-norms of a network only add, as those of networks do whose own were folded away.
fn has_identity_norms(base: &Checkpoint) -> bool {
    let mut means = base.tensors.iter().filter(|(name, _)| name.ends_with(".mean")).peekable();
    means.peek().is_some() && means.all(|(_, mean)| mean.to_f32().iter().all(|m| *m == 0.0))
}
