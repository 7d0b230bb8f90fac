//! Filters of Winograd's F(4×4, 3×3), see [`artifact::winograd`], and where they are worth it.

use artifact::layout::FilterLayout;
use artifact::winograd::{LANES, POSITIONS, WINDOW, channels_fit, tiles};
use artifact::{Dtype, Shape, winograd, winograd_i8};
use network::graph::Conv;

/// G: a filter's three taps to the six values of its transform.
const G: [[f64; 3]; WINDOW] = [
    [1.0 / 4.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

/// Whether Winograd's way of computing a convolution takes less time than the direct one.
///
/// Counts in multiply-adds: what is computed, some for each number that a transform makes, and
/// some for each byte of weights beyond those that stay in a cache from one run to the next.
/// Agrees with what ResNets of 32² and 224² take with AVX2.
fn is_worth_it(input: Shape, output: Shape) -> bool {
    const TRANSFORM: f64 = 16.0;
    const READ: f64 = 5.0;
    const CACHED: f64 = 1e6;
    if !channels_fit(input.c, output.c) {
        return false;
    }
    let (c_in, c_out) = (f64::from(input.c), f64::from(output.c));
    let [rows, columns] = tiles(output);
    let values = (rows * columns * POSITIONS) as f64;
    let products = |per_pair: f64, weights_per_pair: f64| {
        let bytes = 4.0 * weights_per_pair * c_in * c_out;
        per_pair * c_in * c_out + READ * (bytes - CACHED).max(0.0)
    };
    let direct = products(9.0 * output.pixels() as f64, 9.0);
    let fast = products(values, POSITIONS as f64) + TRANSFORM * values * (c_in + c_out);
    fast < direct
}

/// As [`is_worth_it`], for int8 with AVX2.
fn is_worth_it_i8(input: Shape, output: Shape) -> bool {
    /// Of a 16-bit product, and of each number of an input tile, of an output tile and of a
    /// transformed filter, which is made anew for each band.
    const PRODUCT: f64 = 1.3;
    const INPUT: f64 = 4.0;
    const OUTPUT: f64 = 11.0;
    const FILTER: f64 = 4.5;
    if !winograd_i8::channels_fit(input.c, output.c) {
        return false;
    }
    let (c_in, c_out) = (f64::from(input.c), f64::from(output.c));
    let [rows, columns] = tiles(output);
    let groups = (rows * columns).div_ceil(winograd_i8::GROUP);
    let bands = groups.div_ceil(winograd_i8::scratch_groups(output)) as f64;
    let tiles = (groups * winograd_i8::GROUP) as f64;
    let per_pair = PRODUCT * tiles + FILTER * bands;
    let fast = c_in * c_out * per_pair + tiles * (INPUT * c_in + OUTPUT * c_out);
    fast * (POSITIONS as f64) < 9.0 * output.pixels() as f64 * c_in * c_out
}

/// Bytes of scratch that a convolution gets, if Winograd's way is worth it.
pub(crate) fn scratch(conv: &Conv, dtype: Dtype, input: Shape, output: Shape) -> Option<usize> {
    if conv.filter != [3, 3] || conv.stride != [1, 1] {
        return None;
    }
    match dtype {
        Dtype::F32 if is_worth_it(input, output) => winograd::scratch_bytes(input.c, output),
        Dtype::I8 if is_worth_it_i8(input, output) => {
            Some(winograd_i8::scratch_bytes(input.c, output))
        }
        _ => None,
    }
}

/// `G g Gᵀ` of every pair of channels, packed; `layout` is that of a 1×1 filter.
pub(crate) fn transform(conv: &Conv, layout: FilterLayout) -> Vec<f32> {
    let mut packed = vec![0f32; POSITIONS * layout.len()];
    for o in 0..layout.c_out {
        for c in 0..layout.c_in {
            let tap = |y: usize, x: usize| {
                f64::from(conv.weights[((o * 3 + y) * 3 + x) * layout.c_in + c])
            };
            let panels = FilterLayout { c_out: LANES, ..layout };
            let at = o / LANES * POSITIONS * panels.len() + panels.index(o % LANES, 0, 0, c);
            for (i, row) in G.iter().enumerate() {
                // Row i of G g, then its products with each row of G.
                let mut taps = [0.0; 3];
                for (x, sum) in taps.iter_mut().enumerate() {
                    *sum = (0..3).map(|y| row[y] * tap(y, x)).sum();
                }
                for (j, column) in G.iter().enumerate() {
                    let value: f64 = (0..3).map(|x| taps[x] * column[x]).sum();
                    packed[at + (i * WINDOW + j) * panels.len()] = value as f32;
                }
            }
        }
    }
    packed
}

#[cfg(test)]
mod tests {
    use crate::pipeline::{Options, Quantize, convert};
    use artifact::writer::{Blob, Contents, write};
    use artifact::{Artifact, ArtifactError, Span};
    use network::architecture::Architecture;
    use network::init::random_checkpoint;
    use network::model::FloatModel;
    use runtime::workers::{Inline, Threads, Workers};
    use runtime::{AlignedBuf, Isa, Model, Op, Session};

    /// Each operator's output.
    fn outputs(file: &[u8], isa: Isa, workers: &dyn Workers) -> Vec<Vec<f32>> {
        let file = AlignedBuf::from_slice(file);
        let model = Model::new(&file).unwrap();
        let mut arena = AlignedBuf::zeroed(model.arena_len());
        let session = Session::new(&model, &mut arena).unwrap();
        let mut session = session.with_isa(isa).with_workers(workers);
        let mut input = session.input_mut();
        for i in 0..input.len() {
            input.set(i, (i * 7919 % 256) as f32 / 128.0 - 1.0);
        }
        let mut all = Vec::new();
        session.run_observed(|seen| all.push(seen.iter().collect()));
        all
    }

    #[test]
    fn equals_the_direct_convolution_but_for_rounding() {
        let threads = Threads::new(2).unwrap().with_grain(0);
        // Whole and partial tiles: maps of 32, 16 and 8 pixels, and of 45, 23 and 12.
        for size in [32, 45] {
            let config = Architecture::named("resnet_8_cifar", 10).unwrap();
            let checkpoint = random_checkpoint(config, size, 3).unwrap();
            let file = |direct| {
                let options = Options { quantize: Quantize::None, direct, ..Options::default() };
                convert(&FloatModel::from_checkpoint(&checkpoint).unwrap(), &[], options, |_, _| ())
                    .unwrap()
                    .emitted
                    .bytes
            };
            let (direct, fast) = (file(true), file(false));
            let parsed = AlignedBuf::from_slice(&fast);
            let is_fast = |op: &Op| op.scratch().is_some();
            assert!(Model::new(&parsed).unwrap().ops().filter(is_fast).count() >= 4);
            for isa in Isa::available() {
                let want = outputs(&direct, isa, &Inline);
                let got = outputs(&fast, isa, &Inline);
                for (op, (want, got)) in want.iter().zip(&got).enumerate() {
                    let largest = want.iter().fold(0f32, |m, v| m.max(v.abs()));
                    for (want, got) in want.iter().zip(got) {
                        let error = (want - got).abs() / largest;
                        assert!(error <= 2e-5, "{size} {} {op}: {want} {got}", isa.name());
                    }
                }
                assert_eq!(got, outputs(&fast, isa, &threads), "{size} {}", isa.name());
            }
        }
    }

    #[test]
    fn int8_answers_are_the_same_bytes() {
        let threads = Threads::new(2).unwrap().with_grain(0);
        for size in [32, 45] {
            let config = Architecture::named("resnet_8_cifar", 10).unwrap();
            let checkpoint = random_checkpoint(config, size, 3).unwrap();
            let pixels = usize::from(size) * usize::from(size) * 3;
            let picture = (0..pixels).map(|i| (i * 7919 % 256) as f32 / 128.0 - 1.0).collect();
            let file = |direct| {
                let options = Options { quantize: Quantize::Int8, direct, ..Options::default() };
                let pictures = core::slice::from_ref(&picture);
                convert(
                    &FloatModel::from_checkpoint(&checkpoint).unwrap(),
                    pictures,
                    options,
                    |_, _| (),
                )
                .unwrap()
                .emitted
                .bytes
            };
            let (direct, fast) = (file(true), file(false));
            let parsed = AlignedBuf::from_slice(&fast);
            let is_fast = |op: &Op| op.scratch().is_some();
            assert!(Model::new(&parsed).unwrap().ops().filter(is_fast).count() >= 4);
            let want = outputs(&direct, Isa::SCALAR, &Inline);
            for isa in Isa::available() {
                assert_eq!(outputs(&fast, isa, &Inline), want, "{size} {}", isa.name());
                assert_eq!(outputs(&fast, isa, &threads), want, "{size} {}", isa.name());
            }
        }
    }

    #[test]
    fn scratch_that_overlaps_or_has_another_size_is_refused() {
        let config = Architecture::named("resnet_8_cifar", 10).unwrap();
        let checkpoint = random_checkpoint(config, 32, 3).unwrap();
        let options = Options { quantize: Quantize::None, ..Options::default() };
        let file =
            convert(&FloatModel::from_checkpoint(&checkpoint).unwrap(), &[], options, |_, _| ())
                .unwrap()
                .emitted
                .bytes;
        let artifact = Artifact::parse(&file).unwrap();
        let header = artifact.header();
        let changed = |change: &dyn Fn(Span, &Op) -> Span| {
            let mut ops: Vec<Op> = artifact.ops().collect();
            let index = ops.iter().position(|op| op.scratch().is_some()).unwrap();
            let before = ops[index];
            if let Op::Conv2d(conv) = &mut ops[index] {
                conv.scratch = conv.scratch.map(|scratch| change(scratch, &before));
            }
            let mut blob = Blob::new();
            blob.push(&file[header.blob_offset()..]).unwrap();
            let labels: Vec<&str> = artifact.labels().collect();
            let (dtype, nr, arena_len) = (header.dtype, header.nr, header.arena_len);
            let meta = *artifact.meta();
            let contents =
                Contents { dtype, nr, arena_len, meta, labels: &labels, ops: &ops, blob };
            (index, write(contents).map(|_| ()))
        };
        assert_eq!(changed(&|scratch, _| scratch).1, Ok(()));
        for wrong in 0..4 {
            let (op, result) = changed(&|scratch, op| {
                let offset = match wrong {
                    0 => op.input().offset,
                    1 => op.output().offset,
                    2 => scratch.offset + 4,
                    _ => header.arena_len as u32,
                };
                Span { offset, ..scratch }
            });
            assert_eq!(result, Err(ArtifactError::Operand { op }));
        }
        for len in [0, 64, u32::MAX - 63] {
            let (op, result) = changed(&|scratch, _| Span { len, ..scratch });
            let errors = [ArtifactError::Operand { op }, ArtifactError::Geometry { op }];
            assert!(errors.map(Err).contains(&result), "{result:?}");
        }
    }
}
