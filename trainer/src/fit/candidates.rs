//! Networks at a depth and a size of pictures, and what they take on a board.

use crate::builtin::ICON_SIDE;
use artifact::{Artifact, Preprocess};
use convert::board::Board;
use convert::budget::{Bytes, Firmware};
use convert::pipeline::{self, Converted, Options};
use convert::quantize::Method;
use core::fmt::{self, Display, Formatter};
use core::time::Duration;
use network::checkpoint::{Checkpoint, Draft};
use network::model::FloatModel;
use network::shortened::shortened;
use serde::{Deserialize, Serialize};

/// Sides of photos in pixels that are tried, and of small pictures.
const SIDES: [u16; 11] = [64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224];
const SMALL_SIDES: [u16; 4] = [24, 32, 40, 48];
/// Fewest blocks of a network, for less sees edges and colors alone.
const LEAST_BLOCKS: usize = 2;

/// A trained network, and all that are cut from it.
pub(super) struct Base {
    pub(super) checkpoint: Checkpoint,
    /// Sides of pictures that are tried, rising.
    pub(super) sides: Vec<u16>,
    /// With heads for the classes of the pictures.
    cuts: Vec<Draft>,
}

impl Base {
    /// Of one side where the user names it; for the classes `labels`.
    pub(super) fn new(checkpoint: Checkpoint, side: Option<u16>, labels: &[String]) -> Self {
        let is_small = usize::from(checkpoint.preprocess.width) <= ICON_SIDE;
        let sides = match (side, is_small) {
            (Some(side), _) => vec![side],
            (None, true) => SMALL_SIDES.to_vec(),
            (None, false) => SIDES.to_vec(),
        };
        let cuts = shortened(&checkpoint, labels).into_iter();
        let cuts = cuts.filter(|(blocks, _)| *blocks >= LEAST_BLOCKS).map(|(_, draft)| draft);
        Self { cuts: cuts.collect(), checkpoint, sides }
    }

    /// How many networks are cut from it, itself among them.
    pub(super) fn len(&self) -> usize {
        self.cuts.len()
    }

    /// How pictures of `side` become inputs.
    pub(super) fn preprocess(&self, side: u16) -> Preprocess {
        Preprocess { height: side, width: side, ..self.checkpoint.preprocess }
    }

    /// One of the cuts, for pictures of `side`.
    pub(super) fn at(&self, cut: usize, side: u16) -> Draft {
        Draft { preprocess: self.preprocess(side), ..self.cuts[cut].clone() }
    }
}

/// What a model takes on a board.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Takes {
    /// Bytes of memory: the arena and, on microcontrollers, the stack.
    pub(crate) ram: usize,
    /// Bytes of flash: the file and, on microcontrollers, code.
    pub(crate) flash: usize,
    /// About.
    pub(crate) seconds: f64,
    /// About; `None` where nobody has measured the chip.
    pub(crate) joules: Option<f64>,
    /// Multiply-accumulates.
    pub(crate) macs: u64,
}

impl Takes {
    /// # Errors
    /// None of a file that was just written.
    pub(super) fn of(converted: &Converted, board: &Board) -> anyhow::Result<Self> {
        let bytes = &converted.emitted.bytes;
        let artifact = Artifact::parse(bytes)?;
        let firmware = match board.core.is_microcontroller() {
            true => Firmware::INT8,
            false => Firmware { stack: 0, code: 0 },
        };
        Ok(Self {
            ram: converted.emitted.plan.arena_len + firmware.stack,
            flash: bytes.len() + firmware.code,
            seconds: board.latency(&artifact).as_secs_f64(),
            joules: board.energy(&artifact),
            macs: artifact.ops().map(|op| op.macs()).sum(),
        })
    }
}

impl Display for Takes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let kib = |bytes: usize| bytes.div_ceil(1024);
        write!(f, "{} KiB of RAM, {} KiB of flash, ", kib(self.ram), kib(self.flash))?;
        write!(f, "about {}", Milliseconds(self.seconds))?;
        match self.joules {
            Some(joules) => write!(f, " and {:.2} mJ", joules * 1e3),
            None => Ok(()),
        }
    }
}

/// Seconds, said in milliseconds.
pub(crate) struct Milliseconds(pub(crate) f64);

impl Display for Milliseconds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let ms = self.0 * 1e3;
        let digits = if ms < 10.0 { 1 } else { 0 };
        write!(f, "{ms:.digits$} ms")
    }
}

/// What a board has; `None` where it is no limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) ram: Option<Bytes>,
    pub(crate) flash: Option<Bytes>,
    pub(crate) latency: Option<Duration>,
}

impl Limits {
    /// The first limit that a model exceeds.
    pub(super) fn exceeded(&self, takes: &Takes) -> Option<&'static str> {
        let is_over = |limit: Option<Bytes>, taken| limit.is_some_and(|limit| taken > limit.0);
        let is_late = |limit: Duration| takes.seconds > limit.as_secs_f64();
        match () {
            () if is_over(self.ram, takes.ram) => Some("RAM"),
            () if is_over(self.flash, takes.flash) => Some("flash"),
            () if self.latency.is_some_and(is_late) => Some("time"),
            () => None,
        }
    }
}

/// A network that might be trained.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// Of the network and its pictures.
    pub(crate) name: String,
    /// Which of the trained networks it is cut from, and which of its cuts.
    pub(super) base: usize,
    pub(super) cut: usize,
    /// Pixels of a picture's side.
    pub(crate) side: u16,
    pub(crate) takes: Takes,
}

impl Candidate {
    /// # Errors
    /// A network that cannot be converted.
    pub(super) fn new(
        index: usize,
        base: &Base,
        cut: usize,
        side: u16,
        board: &Board,
    ) -> anyhow::Result<Self> {
        let draft = base.at(cut, side);
        let name = format!("{}-{side}", draft.config.name);
        let checkpoint = draft.check().map_err(anyhow::Error::msg)?;
        let model = FloatModel::from_checkpoint(&checkpoint)?;
        // Numbers do not change what is taken, only their count does: any picture will do.
        let picture = vec![0.5; model.graph.input_shape().len()];
        let options =
            Options { target: board.target(), method: Method::MinMax, ..Options::default() };
        let converted = pipeline::convert(&model, &[picture], options, |_, _| ())?;
        let takes = Takes::of(&converted, board)?;
        Ok(Self { name, base: index, cut, side, takes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exceeds_a_limit_is_told() {
        let takes =
            Takes { ram: 2048, flash: 4096, seconds: 0.05, joules: Some(0.002), macs: 1000 };
        let (ram, flash, latency) =
            (Some(Bytes(2048)), Some(Bytes(4096)), Some(Duration::from_millis(50)));
        let limits = Limits { ram, flash, latency };
        assert_eq!(limits.exceeded(&takes), None);
        assert_eq!(limits.exceeded(&Takes { ram: 2049, ..takes.clone() }), Some("RAM"));
        assert_eq!(limits.exceeded(&Takes { flash: 4097, ..takes.clone() }), Some("flash"));
        assert_eq!(limits.exceeded(&Takes { seconds: 0.051, ..takes.clone() }), Some("time"));
        let none = Limits { ram: None, flash: None, latency: None };
        assert_eq!(none.exceeded(&takes), None);
        assert_eq!(takes.to_string(), "2 KiB of RAM, 4 KiB of flash, about 50 ms and 2.00 mJ");
    }
}
