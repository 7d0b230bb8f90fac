//! Classes that are taught: bytes and scores are the formula's, on every instruction set.

mod one_op;

use artifact::writer::{Statistics, with_known};
use one_op::{Case, Fill, Noise, conv_i8, reference_conv_i8};
use runtime::classify::top_k;
use runtime::teach::{Class, Patch, PatchWriter, Taught, TeachError, Teacher};
use runtime::{AlignedBuf, Isa, Model, Session};

/// Inputs of the network.
const INPUTS: usize = 36;

/// A network of `classes` features, which are its classes, too, that knows `rows` means; its features of an input.
struct Network {
    file: AlignedBuf,
    case: Case,
    source: one_op::ConvModel,
    means: Vec<i8>,
    weights: Vec<u8>,
}

impl Network {
    fn new(classes: u16, rows: usize, fill: Fill, nr: usize, noise: &mut Noise) -> Self {
        let case = Case { input: [3, 3, 4], c_out: classes, padding: [0; 4], ..Case::BASE };
        let source = conv_i8(&case, nr, fill, noise);
        let len = usize::from(classes);
        let means: Vec<i8> = (0..rows * len).map(|_| fill.i8(noise)).collect();
        let weights: Vec<u8> = (0..len).map(|_| noise.byte() | 1).collect();
        let known = Statistics {
            means: means.clone(),
            weights: weights.clone(),
            threshold: 100_000,
            usual: 3_000_000,
        };
        let file = AlignedBuf::from_slice(&with_known(&source.file, &known).unwrap());
        Self { file, case, source, means, weights }
    }

    fn features(&self, x: &[i8]) -> Vec<i8> {
        reference_conv_i8(&self.case, &self.source, x)
    }

    fn distance(&self, x: &[i8], mean: &[i8]) -> u64 {
        let terms = x.iter().zip(mean).zip(&self.weights);
        terms.map(|((&x, &m), &w)| u64::from(x.abs_diff(m)).pow(2) * u64::from(w)).sum()
    }
}

fn run(session: &mut Session<'_>, model: &Model<'_>, x: &[i8]) {
    let quant = model.meta().input.quant;
    let mut input = session.input_mut();
    x.iter().enumerate().for_each(|(i, q)| input.set(i, quant.dequantize(*q)));
    session.run();
}

fn picture(fill: Fill, noise: &mut Noise) -> Vec<i8> {
    (0..INPUTS).map(|_| fill.i8(noise)).collect()
}

#[test]
fn what_is_taught_equals_the_formula() {
    let mut noise = Noise(21);
    for (classes, rows, nr) in [(2u16, 2, 4), (2, 1, 16), (20, 20, 4), (20, 20, 16), (300, 1, 16)] {
        for fill in Fill::ALL {
            let network = Network::new(classes, rows, fill, nr, &mut noise);
            let model = Model::new(&network.file).unwrap();
            let count = usize::from(classes);
            assert_eq!(model.features(), Some(count));
            let mut frames =
                |n: usize| -> Vec<Vec<i8>> { (0..n).map(|_| picture(fill, &mut noise)).collect() };
            let [first, second, seen] = [frames(8), frames(3), frames(5)];
            let mut bytes: Option<Vec<u8>> = None;
            for isa in Isa::available() {
                let mut arena = AlignedBuf::zeroed(model.arena_len());
                let mut session = Session::new(&model, &mut arena).unwrap().with_isa(isa);
                let mut buffer = vec![0; 4096];
                let mut writer = PatchWriter::new(model.identity(), &mut buffer).unwrap();
                let mut prototypes = Vec::new();
                for (pictures, label, replaces) in
                    [(&first, "added", None), (&second, "replaced", Some(1))]
                {
                    let mut memory = vec![7; count];
                    let mut teacher = Teacher::new(&model, &mut memory).unwrap();
                    let mut sums = vec![0i32; count];
                    for x in pictures {
                        run(&mut session, &model, x);
                        teacher.add(&session).unwrap();
                        let features = network.features(x);
                        sums.iter_mut().zip(features).for_each(|(s, x)| *s += i32::from(x));
                    }
                    let n = pictures.len() as f64;
                    let mean = |s: &i32| (f64::from(*s) / n + 0.5).floor() as i8;
                    let want: Vec<i8> = sums.iter().map(mean).collect();
                    let class = teacher.finish(label, replaces).unwrap();
                    let have: Vec<i8> = class.prototype.iter().map(|b| b.cast_signed()).collect();
                    assert_eq!(have, want);
                    assert_eq!(usize::from(class.frames), pictures.len());
                    writer.push(&class).unwrap();
                    prototypes.push((want, pictures.len() as u64));
                }
                let patch = writer.finish().unwrap();
                assert_eq!(bytes.get_or_insert_with(|| patch.to_vec()), patch, "{}", isa.name());
                let patch = Patch::parse(patch).unwrap();
                let taught = Taught::new(&model, &patch).unwrap();
                assert_eq!(taught.len(), count + 1);
                assert_eq!([taught.label(1), taught.label(count)], ["replaced", "added"]);
                assert_eq!((taught.label(0), taught.label(count + 1)), (model.label(0), ""));
                for x in &seen {
                    run(&mut session, &model, x);
                    // What the last operator reads are the scores, too.
                    let features = network.features(x);
                    let scores = session.taught(&taught).unwrap();
                    let left = |i: usize| rows == 1 || i != 1;
                    let rows = network.means.chunks(count).enumerate().filter(|(i, _)| left(*i));
                    let rest = rows.map(|(_, m)| network.distance(&features, m)).min().unwrap();
                    let best = features.iter().enumerate().filter(|(i, _)| *i != 1);
                    let best = i64::from(*best.map(|(_, score)| score).max().unwrap());
                    let steps = (8.0 / model.meta().output.quant.scale + 0.5) as i128;
                    let apart: Vec<u64> = (prototypes.iter())
                        .map(|(p, n)| network.distance(&features, p) * n / (n + 1))
                        .collect();
                    let score = |apart: u64| {
                        let nearer = i128::from(rest) - i128::from(apart);
                        let steps = (nearer * steps).div_euclid(3_000_000);
                        let steps = if nearer > 0 { steps.max(1) } else { steps };
                        (i128::from(best) + steps).clamp(-(1 << 24), 1 << 24) as i32
                    };
                    let mut want: Vec<i32> = features.iter().map(|x| i32::from(*x)).collect();
                    want[1] = score(apart[1]);
                    want.push(score(apart[0]));
                    assert!(scores.steps().eq(want.iter().copied()), "{}", isa.name());
                    let distance = apart.iter().copied().min().unwrap().min(rest);
                    assert_eq!(scores.distance().value, distance);
                    // The nearest of what was taught wins where it is nearer than all else.
                    let winner = top_k::<1>(scores.iter(), 1)[0].index;
                    assert_eq!(winner == 1 || winner == count, distance < rest);
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut noise = Noise(22);
    let [network, other] = [3, 4].map(|_| Network::new(3, 3, Fill::Random, 4, &mut noise));
    let [model, other] = [&network, &other].map(|n| Model::new(&n.file).unwrap());
    assert_ne!(model.identity(), other.identity());
    let plain = AlignedBuf::from_slice(&network.source.file);
    let plain = Model::new(&plain).unwrap();
    let mut memory = [0; 3];
    let refusal = |model: &Model<'_>, len: usize| {
        Teacher::new(model, &mut vec![0; len]).map(|_| ()).unwrap_err()
    };
    assert_eq!(refusal(&plain, 3), TeachError::NoStatistics);
    assert_eq!(refusal(&model, 4), TeachError::Memory { needed: 3, have: 4 });
    let teacher = Teacher::new(&model, &mut memory).unwrap();
    assert_eq!(teacher.finish("none", None).unwrap_err(), TeachError::NoFrames);

    let bound = |identity: u64, replaced: &[Option<u16>], prototype: &[u8], model: &Model<'_>| {
        let mut buffer = [0; 256];
        let mut writer = PatchWriter::new(identity, &mut buffer).unwrap();
        for &replaces in replaced {
            writer.push(&Class { label: "x", replaces, frames: 1, prototype }).unwrap();
        }
        let patch = Patch::parse(writer.finish().unwrap()).unwrap();
        Taught::new(model, &patch).map(|taught| taught.len())
    };
    let (own, fit) = (model.identity(), [0; 3]);
    assert_eq!(bound(own, &[None, Some(2), None], &fit, &model), Ok(5));
    assert_eq!(bound(own, &[None], &fit, &plain), Err(TeachError::NoStatistics));
    assert_eq!(bound(own, &[None], &fit, &other), Err(TeachError::OtherModel));
    assert_eq!(bound(own, &[None], &[0; 2], &model), Err(TeachError::OtherModel));
    assert_eq!(bound(own, &[Some(3)], &fit, &model), Err(TeachError::NoSuchClass { index: 3 }));
    let all = [Some(0), Some(1), Some(2)];
    assert_eq!(bound(own, &all, &fit, &model), Err(TeachError::NothingLeft));
    let two = Network::new(3, 2, Fill::Random, 4, &mut noise);
    let two = Model::new(&two.file).unwrap();
    assert_eq!(bound(two.identity(), &[Some(0)], &fit, &two), Err(TeachError::MissingMeans));
    assert_eq!(bound(two.identity(), &[None], &fit, &two), Ok(4));

    let mut arena = AlignedBuf::zeroed(plain.arena_len());
    let session = Session::new(&plain, &mut arena).unwrap();
    let mut teacher = Teacher::new(&model, &mut memory).unwrap();
    assert_eq!(teacher.add(&session), Err(TeachError::OtherSession));
    let mut arena = AlignedBuf::zeroed(model.arena_len());
    let session = Session::new(&model, &mut arena).unwrap();
    for _ in 0..u16::MAX {
        teacher.add(&session).unwrap();
    }
    assert_eq!(teacher.add(&session), Err(TeachError::TooManyFrames));
    let class = teacher.finish("many", None).unwrap();
    // Of memory that is zero, whichever way an instruction set stores it.
    let zero = class.prototype[0];
    assert!(zero == 0 || zero == 0x80);
    assert_eq!((class.frames, class.prototype), (u16::MAX, &[zero; 3][..]));
}

#[cfg(feature = "signature")]
#[test]
fn patches_are_signed_by_their_device() {
    use runtime::PrivateKey;
    use runtime::teach::PatchError;
    let key = PrivateKey::from_bytes(&[7; 32]);
    let class = Class { label: "crow", replaces: None, frames: 8, prototype: &[1, 2, 3] };
    let mut buffer = [0; 256];
    let mut writer = PatchWriter::new(5, &mut buffer).unwrap();
    writer.push(&class).unwrap();
    let file = writer.finish_signed(|bytes| key.sign(bytes)).unwrap().to_vec();
    let verify = |file: &[u8]| key.public().verify_patch(&Patch::parse(file)?);
    assert_eq!(verify(&file), Ok(()));
    let other = PrivateKey::from_bytes(&[8; 32]).public();
    let patch = Patch::parse(&file).unwrap();
    assert_eq!(other.verify_patch(&patch), Err(PatchError::Signature));
    // But for the checksum, which is computed anew.
    for at in (0..file.len()).filter(|at| !(24..32).contains(at)) {
        let mut file = file.clone();
        file[at] ^= 1;
        artifact::patch::seal(&mut file);
        assert!(verify(&file).is_err(), "{at}");
    }
    let mut writer = PatchWriter::new(5, &mut buffer).unwrap();
    writer.push(&class).unwrap();
    assert_eq!(verify(writer.finish().unwrap()), Err(PatchError::Unsigned));
}
