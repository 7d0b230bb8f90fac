//! Int8 convolutions of ResNet's shapes on every instruction set of this CPU, one thread.
//!
//! `cargo bench -p edge-runtime [PART OF A NAME]`. Checks the bytes against the formula before
//! it times them; prints 10⁹ multiply-accumulates a second and their share of what the inner loop
//! alone reaches. The fastest of many runs, which noise disturbs least.

#[path = "../tests/one_op/mod.rs"]
mod one_op;

use core::time::Duration;
use one_op::{Case, Fill, Form, Noise, conv_i8, reference_conv_i8};
use runtime::{AlignedBuf, Dtype, Isa, Model, Session};
use std::time::Instant;

const RUNS: usize = 60;

fn shapes() -> Vec<(&'static str, Case)> {
    let case = |side, c, c_out, filter, stride: u16| Case {
        input: [side, side, c],
        c_out,
        filter: [filter; 2],
        stride: [stride; 2],
        padding: [(filter / 2) as u8; 4],
        residual: false,
        groups: 1,
        clamp: artifact::Clamp::Relu,
        elsewhere: 0,
        opposed: false,
        small: true,
        winograd: false,
        form: Form::Scales,
    };
    vec![
        ("stem 7x7 of a picture", case(224, 3, 64, 7, 2)),
        ("3x3, 56x56x64", case(56, 64, 64, 3, 1)),
        ("3x3, 14x14x256", case(14, 256, 256, 3, 1)),
        ("3x3, 7x7x512", case(7, 512, 512, 3, 1)),
        ("3x3 strided, 28x28x128", case(28, 128, 128, 3, 2)),
        ("1x1, 56x56x64 to 256", case(56, 64, 256, 1, 1)),
        ("1x1, 14x14x1024 to 256", case(14, 1024, 256, 1, 1)),
        ("3x3, 32x32x16", case(32, 16, 16, 3, 1)),
        ("3x3, 8x8x64", case(8, 64, 64, 3, 1)),
        ("1x1 strided, 16x16x32 to 64", case(16, 32, 64, 1, 2)),
    ]
}

/// The fastest of some calls.
fn fastest(runs: usize, mut f: impl FnMut()) -> Duration {
    let time = |f: &mut dyn FnMut()| {
        let start = Instant::now();
        f();
        start.elapsed()
    };
    (0..runs).map(|_| time(&mut f)).min().unwrap_or_default()
}

fn rate(macs: u64, time: Duration) -> f64 {
    macs as f64 / 1e9 / time.as_secs_f64().max(1e-12)
}

fn main() {
    // `cargo bench` says --bench.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let mut noise = Noise(1);
    for isa in Isa::available() {
        let rounds = 2000;
        let peak = (0..20)
            .map(|_| {
                let mut macs = 0;
                let time = fastest(1, || macs = isa.peak(Dtype::I8, rounds));
                rate(macs, time)
            })
            .fold(0.0, f64::max);
        println!("{}: inner loop alone {peak:.1} GMAC/s", isa.name());
        for (name, case) in shapes() {
            if !wanted.iter().all(|w| name.contains(w.as_str())) {
                continue;
            }
            let conv = conv_i8(&case, 16, Fill::Random, &mut noise);
            let file = AlignedBuf::from_slice(&conv.file);
            let model = Model::new(&file).expect("the builder's model");
            let len = model.input_shape().len();
            let x: Vec<i8> = (0..len).map(|_| noise.i8()).collect();
            let mut arena = AlignedBuf::zeroed(model.arena_len());
            let mut session = Session::new(&model, &mut arena).expect("an arena").with_isa(isa);
            let zero_point = i32::from(conv.input.zero_point);
            let mut input = session.input_mut();
            for (i, q) in x.iter().enumerate() {
                input.set(i, (i32::from(*q) - zero_point) as f32);
            }
            // The first operator is the convolution; what follows only makes a whole model.
            let mut best = Duration::MAX;
            let mut y = Vec::new();
            for run in 0..RUNS {
                let mut last = Instant::now();
                session.run_observed(|seen| {
                    let now = Instant::now();
                    match seen.index {
                        1 => {
                            best = best.min(now - last);
                            if run == 0 {
                                let zero_point = f32::from(seen.place.quant.zero_point);
                                y = seen.iter().map(|v| (v + zero_point) as i8).collect();
                            }
                        }
                        _ => last = Instant::now(),
                    }
                });
                if run == 0 {
                    assert!(y == reference_conv_i8(&case, &conv, &x), "{name}: other bytes");
                }
            }
            let macs = model.ops().next().map_or(0, |op| op.macs());
            let rate = rate(macs, best);
            let share = 100.0 * rate / peak;
            println!(
                "  {name:<28} {:>9.4} ms {rate:>7.1} GMAC/s {share:>4.0} %",
                best.as_secs_f64() * 1e3
            );
        }
    }
}
