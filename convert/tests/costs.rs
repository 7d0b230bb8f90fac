//! The model of what operators take is held to networks that it was not fitted to.

use artifact::Artifact;
use clap::ValueEnum;
use convert::cost::{Core, instructions};
use convert::pipeline::{Options, convert};
use convert::quantize::Method;
use convert::target::Target;
use network::architecture::Architecture;
use network::init::random_checkpoint;
use network::model::FloatModel;

/// Counted on emulated boards by `firmware-demo/costs.sh`: core, architecture, side of pictures, classes,
/// instructions.
const COUNTED: &str = include_str!("costs.txt");

#[test]
fn networks_take_what_is_said_within_a_tenth() {
    let mut worst: f64 = 0.0;
    for line in COUNTED.lines() {
        let [core, name, side, classes, counted] =
            line.split(' ').collect::<Vec<_>>().try_into().expect("five words");
        let config = Architecture::named(name, classes.parse().unwrap()).unwrap();
        let checkpoint = random_checkpoint(config, side.parse().unwrap(), 0).unwrap();
        let model = FloatModel::from_checkpoint(&checkpoint).unwrap();
        let picture = vec![0.5; model.graph.input_shape().len()];
        let options =
            Options { target: Target::CortexM, method: Method::MinMax, ..Options::default() };
        let file = convert(&model, &[picture], options, |_, _| ()).unwrap().emitted.bytes;
        let core = Core::from_str(core, false).unwrap();
        let said = instructions(&Artifact::parse(&file).unwrap(), core).unwrap();
        let off = said / counted.parse::<f64>().unwrap() - 1.0;
        println!("{line}: {said:.0}, {:+.1} %", 100.0 * off);
        worst = worst.max(off.abs());
    }
    assert!(worst < 0.1, "{:.1} %", 100.0 * worst);
}
