//! Whether a model fits a chip: which layer needs the most memory, and what would help.

use crate::plan::MemoryPlan;
use core::fmt;
use network::graph::{Graph, NodeOp};

/// What firmware takes beside the model: measured on emulated boards, rounded up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Firmware {
    /// Bytes of stack, beside the arena.
    pub stack: usize,
    /// Bytes of code.
    pub code: usize,
}

impl Firmware {
    /// For int8 models.
    pub const INT8: Self = Self { stack: 5 << 10, code: 42 << 10 };
    /// For those with layers of floats.
    pub const WITH_FLOATS: Self = Self { stack: 7 << 10, code: 75 << 10 };
}

/// A number of bytes, with K or M for 1024 or 1024² of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "usize")]
pub struct Bytes(pub usize);

impl TryFrom<String> for Bytes {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Bytes> for usize {
    fn from(bytes: Bytes) -> Self {
        bytes.0
    }
}

impl core::str::FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is no number of bytes; write 32K, 1M or 65536");
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" | "kib" => 1 << 10,
            "m" | "mb" | "mib" => 1 << 20,
            _ => return Err(bad()),
        };
        let number: usize = digits.parse().map_err(|_| bad())?;
        number.checked_mul(unit).map(Self).ok_or_else(bad)
    }
}

/// A budget that a model exceeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded {
    message: String,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl core::error::Error for Exceeded {}

/// Checks the memory of a model.
///
/// # Errors
/// Where the arena and the stack do not fit into `ram`.
pub fn check_ram(
    graph: &Graph,
    plan: &MemoryPlan,
    firmware: Firmware,
    ram: Bytes,
) -> Result<(), Exceeded> {
    let stack = firmware.stack;
    let needed = plan.arena_len + stack;
    if needed <= ram.0 {
        return Ok(());
    }
    // What lives while a node runs, and where it ends.
    let living = |node: usize| {
        let time = plan.live[node][0];
        (0..graph.nodes.len()).filter(move |v| plan.live[*v][0] <= time && time <= plan.live[*v][1])
    };
    let scratch_end = |node: usize| plan.scratch[node].map_or(0, |(at, len)| at + len);
    let end = |node: usize| {
        let values = living(node).map(|v| plan.offsets[v] + plan.bytes[v]).max();
        values.unwrap_or(0).max(scratch_end(node))
    };
    let worst = (0..graph.nodes.len()).max_by_key(|n| (end(*n), usize::MAX - n)).unwrap_or(0);
    let mut maps: Vec<(usize, &str)> =
        living(worst).map(|v| (plan.bytes[v], graph.nodes[v].name.as_str())).collect();
    maps.sort_unstable_by_key(|(bytes, _)| core::cmp::Reverse(*bytes));
    let maps: Vec<String> =
        maps.iter().take(3).map(|(bytes, name)| format!("{bytes} of `{name}`")).collect();
    let shape = graph.nodes[0].shape;
    // Maps shrink with the square of the picture's side.
    let share = (ram.0.saturating_sub(stack)) as f64 / plan.arena_len as f64;
    let side = (f64::from(shape.h) * share.sqrt()) as u16 / 8 * 8;
    let help = if side >= 8 {
        format!("pictures of about {side}×{side} would fit (`trainer … --size {side}`)")
    } else {
        "a network of fewer channels is needed".to_owned()
    };
    Err(Exceeded {
        message: format!(
            "the arena takes {} bytes and the stack about {stack}, {} more than --ram; layer `{}` needs most: its output, input and what else lives then are {} bytes; {help}",
            plan.arena_len,
            needed - ram.0,
            graph.nodes[worst].name,
            maps.join(", "),
        ),
    })
}

/// Checks the flash of a model of `file_len` bytes.
///
/// # Errors
/// Where the file and code do not fit into `flash`.
pub fn check_flash(
    graph: &Graph,
    file_len: usize,
    firmware: Firmware,
    flash: Bytes,
) -> Result<(), Exceeded> {
    let code = firmware.code;
    let needed = file_len + code;
    if needed <= flash.0 {
        return Ok(());
    }
    let mut layers: Vec<(usize, &str)> = (graph.nodes.iter())
        .filter_map(|node| match &node.op {
            NodeOp::Conv2d(conv) => Some((conv.weights.len(), node.name.as_str())),
            _ => None,
        })
        .collect();
    layers.sort_unstable_by_key(|(len, _)| core::cmp::Reverse(*len));
    let layers: Vec<String> =
        layers.iter().take(3).map(|(len, name)| format!("`{name}` {len}")).collect();
    Err(Exceeded {
        message: format!(
            "the model takes {file_len} bytes and code about {code}, {} more than --flash; most weights: {}; fewer channels or blocks would help, as in `trainer finetune --preset models/resnet_8_cifar10.mpk`",
            needed - flash.0,
            layers.join(", "),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::{Bytes, Firmware, check_flash, check_ram};
    use crate::pipeline::{Options, convert};
    use crate::target::Target;
    use network::architecture::Architecture;
    use network::init::random_checkpoint;
    use network::model::FloatModel;

    #[test]
    fn sizes() {
        for (text, bytes) in [("32K", 32768), ("1M", 1 << 20), ("65536", 65536), ("2kib", 2048)] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)));
        }
        for text in ["", "K", "-1K", "32G", "1.5M", "99999999999999999999", "9999999999999999M"] {
            assert!(text.parse::<Bytes>().unwrap_err().contains("32K"), "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let config = Architecture::named("resnet_8_cifar", 10).unwrap();
        let checkpoint = random_checkpoint(config, 32, 3).unwrap();
        let options = Options { target: Target::CortexM, ..Options::default() };
        let picture = vec![0.5; 32 * 32 * 3];
        let converted = convert(
            &FloatModel::from_checkpoint(&checkpoint).unwrap(),
            &[picture],
            options,
            |_, _| (),
        )
        .unwrap();
        let (graph, emitted) = (&converted.graph, &converted.emitted);
        let firmware = Firmware::INT8;
        assert_eq!(check_ram(graph, &emitted.plan, firmware, Bytes(32 << 10)), Ok(()));
        assert_eq!(check_flash(graph, emitted.bytes.len(), firmware, Bytes(128 << 10)), Ok(()));
        let ram =
            check_ram(graph, &emitted.plan, firmware, Bytes(16 << 10)).unwrap_err().to_string();
        // The block that has a whole map of 32×32×16, the lines between and the shortcut's.
        assert!(ram.contains("layer `stack1_block0"), "{ram}");
        assert!(ram.contains("16384 of `stack0_block0_2_conv`"), "{ram}");
        assert!(ram.contains("--size 16"), "{ram}");
        let flash = check_flash(graph, emitted.bytes.len(), firmware, Bytes(64 << 10)).unwrap_err();
        assert!(flash.to_string().contains("36864"), "{flash}");
    }
}
