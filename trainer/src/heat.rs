//! What of a picture spoke for the answer: heat maps by the runtime, of the network in floats.

use artifact::Preprocess;
use convert::pipeline::{self, Options, Quantize};
use network::checkpoint::Draft;
use network::model::FloatModel;
use page::Thumbnail;
use picture::heat::{self, Shares};
use runtime::heat::Contrast;
use runtime::preprocess::RgbView;
use runtime::{AlignedBuf, Model, Session};

/// A network whose heat maps are asked for.
pub(crate) struct Heat {
    file: AlignedBuf,
    preprocess: Preprocess,
}

impl Heat {
    /// `None` of networks that have none: those that do not end with an average and one dense layer.
    pub(crate) fn new(checkpoint: &Draft) -> Option<Self> {
        let checkpoint = checkpoint.clone().check().ok()?;
        let model = FloatModel::from_checkpoint(&checkpoint).ok()?;
        let options = Options { quantize: Quantize::None, direct: true, ..Options::default() };
        let converted = pipeline::convert(&model, &[], options, |_, _| ()).ok()?;
        let file = AlignedBuf::from_slice(&converted.emitted.bytes);
        runtime::heat::arena_len(&Model::new(&file).ok()?).ok()?;
        Some(Self { file, preprocess: model.preprocess })
    }

    /// Shares of the pixels of the last map in the score of a class, less the mean of all scores: rows and
    /// columns, and `[rows, columns]`; `pixels` are what the network sees of a picture.
    pub(crate) fn shares(&self, pixels: &[u8], class: usize) -> Option<([usize; 2], Vec<f32>)> {
        let model = Model::new_trusted(&self.file).ok()?;
        let mut arena = AlignedBuf::zeroed(runtime::heat::arena_len(&model).ok()?);
        let mut session = Session::new(&model, &mut arena).ok()?.with_heat().ok()?;
        let mut input = session.input_mut();
        let values = dataset::samples::normalize(pixels, &self.preprocess);
        values.iter().enumerate().for_each(|(i, value)| input.set(i, *value));
        session.run();
        let shape = session.heat_shape()?;
        Some((shape, Contrast::new(&model).ok()?.shares(&session, class)?))
    }

    /// `photo` with the heat map of `class` over it, at most `side` pixels wide and high; `pixels` are what the
    /// network sees of it.
    pub(crate) fn over(
        &self,
        photo: RgbView<'_>,
        pixels: &[u8],
        class: usize,
        side: u16,
    ) -> Option<Thumbnail> {
        let (shape, values) = self.shares(pixels, class)?;
        let shares = Shares { shape, values: &values };
        let png = heat::png(photo, &self.preprocess, shares, side.into()).ok()?;
        Thumbnail::photo(picture::decode(&png).ok()?.view().ok()?, side).ok()
    }
}
