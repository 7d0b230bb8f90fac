//! What every board does: classify embedded pictures, and tell what it took.
//!
//! Nothing here formats with `core::fmt`, allocates or can panic, which keeps the firmware small;
//! `main.rs` of a board supplies memory, a clock and a way to write.
#![no_std]
#![forbid(unsafe_code)]

use heapless::Vec;
use runtime::classify::top_k;
use runtime::preprocess::{RgbView, for_each_pixel};
#[cfg(feature = "teach")]
use runtime::teach::{PATCH_HEADER_LEN, Patch, PatchWriter, Taught, Teacher};
use runtime::{Logits, Model, Session, heat};

/// Centres of `samples/pictures`, see `pictures/README.md`.
const PICTURES: [(&str, &[u8]); 3] = [
    ("chelsea", include_bytes!("../../pictures/chelsea-64x64.rgb")),
    ("coffee", include_bytes!("../../pictures/coffee-64x64.rgb")),
    ("rocket", include_bytes!("../../pictures/rocket-64x64.rgb")),
];
/// Pixels of a picture's side.
const SIDE: usize = 64;
/// Pixels of the side of the views whose logits are compared with other machines'.
const VIEW: usize = 48;
/// Views of a picture.
const VIEWS: usize = 9;
/// Most classes that are printed.
const TOP: usize = 3;

/// What the demonstration wants of a machine.
pub trait Board {
    /// Writes text.
    fn write(&mut self, text: &str);

    /// Instructions since an arbitrary start, or as near to that as the machine can tell; `None`
    /// where it cannot.
    fn instructions(&mut self) -> Option<u32>;

    /// The most bytes of the stack that were in use since the start; `None` where nobody knows.
    fn stack(&mut self) -> Option<usize>;
}

/// Classifies the embedded pictures with a model that `build-board.rs` has checked; the error says
/// what is wrong.
pub fn run(board: &mut impl Board, file: &[u8], arena: &mut [u8]) -> Result<(), &'static str> {
    #[cfg(feature = "signature")]
    check_signature(board, file)?;
    let start = board.instructions();
    let model = Model::new_trusted(file).map_err(|_| "the embedded model is refused")?;
    let checked = since(board, start);
    let macs = model.ops().map(|op| op.macs() as u32).sum::<u32>();
    print(board, &["model ", model.meta().name, ", "]);
    number(board, file.len() as u32, " bytes, arena ");
    number(board, model.arena_len() as u32, " bytes, ");
    number(board, macs, " multiply-accumulates\n");
    if let Some(checked) = checked {
        number(board, checked, " instructions to check it\n");
    }
    let mut session = Session::new(&model, arena).map_err(|_| "the arena does not fit")?;
    if cfg!(feature = "layers") {
        return layers(board, &mut session);
    }
    // A network of another end has none.
    if heat::arena_len(&model).is_ok_and(|len| len <= model.arena_len()) {
        session = session.with_heat().map_err(|_| "the arena does not fit the map, too")?;
    }
    for (name, pixels) in PICTURES {
        let view = view(pixels, 0, 0, SIDE)?;
        if let Some([filled, ran]) = classify(board, &model, &mut session, name, view) {
            number(board, filled, " instructions to scale the picture, ");
            number(board, ran, " to run, ");
            number(board, ran / (macs / 100).max(1), " for 100 multiply-accumulates\n");
        }
    }
    let before = board.instructions();
    let distance = core::hint::black_box(session.distance());
    if let (Some(_), Some(took)) = (distance, since(board, before)) {
        number(board, took, " instructions to tell whether a picture is known\n");
    }
    for (name, pixels) in PICTURES {
        show_heat(board, &model, &mut session, name, view(pixels, 0, 0, SIDE)?);
    }
    if let Some(stack) = board.stack() {
        number(board, stack as u32, " bytes of stack\n");
    }
    for (name, pixels) in PICTURES {
        for place in 0..VIEWS {
            fill(&model, &mut session, small_view(pixels, place)?);
            print(board, &["logits of ", name, " "]);
            number(board, place as u32, ":");
            logits(board, session.run());
            if let Some(distance) = session.distance() {
                print(board, &["distance of ", name, " "]);
                number(board, place as u32, ": ");
                // Few networks reach the upper half, and dividing 64 bits takes flash.
                match (distance.value >> 32) as u32 {
                    0 => {}
                    high => number(board, high, " * 2^32 + "),
                }
                number(board, distance.value as u32, "\n");
            }
        }
    }
    #[cfg(feature = "teach")]
    teach(board, &model, &mut session)?;
    Ok(())
}

/// Refuses a model without a signature of the key that `EDGE_KEY` named when this was built, the
/// public key's 64 hexadecimal digits, as `convert sign` prints them.
#[cfg(feature = "signature")]
fn check_signature(board: &mut impl Board, file: &[u8]) -> Result<(), &'static str> {
    const KEY: Option<&str> = option_env!("EDGE_KEY");
    let mut key = [0; 32];
    let digits = KEY.unwrap_or("").as_bytes();
    if digits.len() != 2 * key.len() {
        return Err("built without EDGE_KEY, 64 hexadecimal digits");
    }
    for (byte, digits) in key.iter_mut().zip(digits.as_chunks::<2>().0) {
        for &digit in digits {
            let value = char::from(digit).to_digit(16).ok_or("EDGE_KEY is not hexadecimal")?;
            *byte = *byte << 4 | value as u8;
        }
    }
    let key = runtime::PublicKey::from_bytes(&key).ok_or("EDGE_KEY is no public key")?;
    let start = board.instructions();
    key.verify(file).map_err(|_| "the embedded model is not signed with EDGE_KEY")?;
    if let Some(took) = since(board, start) {
        number(board, took, " instructions to check the signature\n");
    }
    Ok(())
}

/// Classifies a picture and prints its classes; returns the instructions to scale it and to run.
pub fn classify(
    board: &mut impl Board,
    model: &Model<'_>,
    session: &mut Session<'_>,
    name: &str,
    picture: RgbView<'_>,
) -> Option<[u32; 2]> {
    let before = board.instructions();
    fill(model, session, picture);
    let filled = since(board, before);
    let before = board.instructions();
    let logits = session.run();
    let ran = since(board, before);
    let scores = top_k::<TOP>(logits.iter(), TOP);
    let is_known = session.distance().is_none_or(|distance| distance.is_known());
    print(board, &[name, if is_known { ":" } else { ": unknown, nearest" }]);
    for score in scores {
        let permille = (score.probability * 1000.0 + 0.5) as u32;
        print(board, &[" ", model.label(score.index), " "]);
        number(board, permille / 10, ".");
        number(board, permille % 10, " %");
    }
    print(board, &["\n"]);
    Some([filled?, ran?])
}

/// Prints what each operator takes; of those that take turns, the last one's line counts all.
fn layers(board: &mut impl Board, session: &mut Session<'_>) -> Result<(), &'static str> {
    /// Operators that are counted; the largest networks have some hundred.
    const MOST: usize = 512;
    // What was computed last, and when.
    let mut counts: Vec<(usize, u32), MOST> = Vec::new();
    let mut last = board.instructions().ok_or("this board counts no instructions")?;
    let mut is_whole = true;
    session.run_observed(|seen| {
        let now = board.instructions().unwrap_or(last);
        is_whole &= counts.push((seen.index, now.wrapping_sub(last))).is_ok();
        last = board.instructions().unwrap_or(now);
    });
    for (index, count) in counts {
        number(board, index as u32, " ");
        number(board, count, "\n");
    }
    if is_whole { Ok(()) } else { Err("too many operators") }
}

/// Prints where in a picture its likeliest class comes from, and what that took.
fn show_heat(
    board: &mut impl Board,
    model: &Model<'_>,
    session: &mut Session<'_>,
    name: &str,
    picture: RgbView<'_>,
) {
    fill(model, session, picture);
    let best = top_k::<1>(session.run().iter(), 1).first().map_or(0, |score| score.index);
    let start = board.instructions();
    let Some(cells) = session.heat_cells(best) else { return };
    let took = since(board, start);
    print(board, &["heat of ", name, ":"]);
    line(board, cells.sums().iter().copied());
    if let Some(took) = took {
        number(board, took, " instructions for the heat map\n");
    }
}

/// Learns the last picture from all of its views but one, as a class that the model has not, and classifies that one and
/// all views of the others. A model that cannot learn does nothing.
#[cfg(feature = "teach")]
fn teach(
    board: &mut impl Board,
    model: &Model<'_>,
    session: &mut Session<'_>,
) -> Result<(), &'static str> {
    /// Most features that there is memory for.
    const CHANNELS: usize = 1280;
    const LABEL: &str = PICTURES[PICTURES.len() - 1].0;
    let Some(features) = model.features() else { return Ok(()) };
    let mut memory = [0; CHANNELS];
    let memory = memory.get_mut(..features).ok_or("no memory for so many features")?;
    let mut teacher = Teacher::new(model, memory).map_err(|_| "the model cannot learn")?;
    let mut took = Some(0);
    for place in 0..VIEWS - 1 {
        fill(model, session, small_view(PICTURES[PICTURES.len() - 1].1, place)?);
        session.run();
        let start = board.instructions();
        teacher.add(session).map_err(|_| "the picture cannot be learned")?;
        took = since(board, start).zip(took).map(|(this, all)| this + all);
    }
    let start = board.instructions();
    let identity = model.identity();
    let summed = since(board, start);
    let start = board.instructions();
    let class = teacher.finish(LABEL, None).map_err(|_| "nothing to learn from")?;
    let mut buffer = [0; PATCH_HEADER_LEN + CHANNELS + 64];
    let mut writer = PatchWriter::new(identity, &mut buffer).map_err(|_| "no room")?;
    writer.push(&class).map_err(|_| "no room for the class")?;
    let patch = writer.finish().map_err(|_| "no class")?;
    let took = since(board, start).zip(took).map(|(this, all)| this + all);
    print(board, &["patch of ", LABEL, ":"]);
    line(board, patch.iter().map(|byte| (*byte).into()));
    let patch = Patch::parse(patch).map_err(|_| "the patch is refused")?;
    let taught = Taught::new(model, &patch).map_err(|_| "the patch belongs to another model")?;
    let mut scored = None;
    for (name, pixels) in PICTURES {
        let first = if name == LABEL { VIEWS - 1 } else { 0 };
        for place in first..VIEWS {
            fill(model, session, small_view(pixels, place)?);
            session.run();
            let start = board.instructions();
            let scores = session.taught(&taught).ok_or("the patch belongs to another model")?;
            scored = since(board, start);
            let best = top_k::<1>(scores.iter(), 1).first().map_or(0, |score| score.index);
            print(board, &["taught of ", name, " "]);
            number(board, place as u32, ": ");
            print(board, &[taught.label(best)]);
            line(board, scores.steps());
        }
    }
    if let (Some(took), Some(scored), Some(summed)) = (took, scored, summed) {
        number(board, took, " instructions to learn a class from 8 pictures, beside their runs\n");
        number(board, scored, " instructions to score it, ");
        number(board, summed, " to tell the model from others\n");
    }
    if let Some(stack) = board.stack() {
        number(board, stack as u32, " bytes of stack with learning\n");
    }
    Ok(())
}

/// One of the views whose logits are compared.
fn small_view(pixels: &[u8], place: usize) -> Result<RgbView<'_>, &'static str> {
    let step = (SIDE - VIEW) / 2;
    view(pixels, place % 3 * step, place / 3 * step, VIEW)
}

/// A square of a picture.
fn view(pixels: &[u8], x: usize, y: usize, side: usize) -> Result<RgbView<'_>, &'static str> {
    let stride = SIDE * 3;
    let from = pixels.get(y * stride + x * 3..).ok_or("the view starts outside of the picture")?;
    RgbView::new(from, side, side, stride).map_err(|_| "the view leaves the picture")
}

fn fill(model: &Model<'_>, session: &mut Session<'_>, picture: RgbView<'_>) {
    let mut input = session.input_mut();
    for_each_pixel(&model.meta().preprocess, picture, |i, rgb| input.set_pixel(i, rgb));
}

fn since(board: &mut impl Board, start: Option<u32>) -> Option<u32> {
    Some(board.instructions()?.wrapping_sub(start?))
}

/// The int8 scores; of floats, their bits.
fn logits(board: &mut impl Board, logits: Logits<'_>) {
    match logits.as_i8() {
        Some(scores) => line(board, scores.iter().map(|score| i32::from(*score))),
        None => line(board, logits.iter().map(|score| score.to_bits() as i32)),
    }
}

/// Numbers, many at a time: a debugger's console is slow.
fn line(board: &mut impl Board, mut numbers: impl Iterator<Item = i32>) {
    loop {
        // 16 numbers take at most 12 bytes each.
        let mut text: Vec<u8, 192> = Vec::new();
        for number in numbers.by_ref().take(16) {
            let _ = text.push(b' ');
            if number < 0 {
                let _ = text.push(b'-');
            }
            let mut digits = [0; 10];
            let _ = text.extend_from_slice(decimal(number.unsigned_abs(), &mut digits));
        }
        if text.is_empty() {
            break;
        }
        print(board, &[core::str::from_utf8(&text).unwrap_or("")]);
    }
    print(board, &["\n"]);
}

fn print(board: &mut impl Board, parts: &[&str]) {
    for part in parts {
        board.write(part);
    }
}

fn number(board: &mut impl Board, value: u32, unit: &str) {
    let mut digits = [0; 10];
    let text = core::str::from_utf8(decimal(value, &mut digits)).unwrap_or("");
    print(board, &[text, unit]);
}

fn decimal(mut value: u32, digits: &mut [u8; 10]) -> &[u8] {
    let mut start = digits.len();
    for (at, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
        start = at;
        if value == 0 {
            break;
        }
    }
    &digits[start..]
}
