//! What a web page calls: the runtime and the decoder of pictures of all other programs, so that a
//! picture gets the same scores in a browser.
//!
//! A caller writes a file to where [`reserve`] says, then has it taken as a model ([`load`]) or as a
//! picture ([`decode`], [`run`]). Each gives 1 where it worked, and leaves JSON at [`answer`]: what
//! it found, or `{"error": "…"}`. Numbers and pointers are 32 bits; nothing is imported.
#![deny(unsafe_op_in_unsafe_fn)]

use picture::Picture;
use runtime::classify::top_k;
use runtime::heat::{self, Contrast};
use runtime::preprocess::{for_each_pixel, seen};
use runtime::{AlignedBuf, Dtype, Isa, Model, Session};
use serde::Serialize;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most classes of an answer.
const TOP: usize = 5;

struct State {
    /// What the caller writes.
    file: Vec<u8>,
    model: Option<Loaded>,
    answer: Vec<u8>,
}

struct Loaded {
    file: AlignedBuf,
    arena: AlignedBuf,
    /// Of the picture whose pixels the arena holds.
    note: Option<&'static str>,
    /// Its rows and columns.
    sides: [usize; 2],
    /// `None` for a network without heat maps.
    contrast: Option<Contrast>,
}

static STATE: Mutex<State> =
    Mutex::new(State { file: Vec::new(), model: None, answer: Vec::new() });

#[derive(Serialize)]
struct About<'a> {
    name: &'a str,
    dtype: &'static str,
    width: u16,
    height: u16,
    classes: usize,
    file_bytes: usize,
    arena_bytes: usize,
    macs: u64,
    isa: &'static str,
}

#[derive(Serialize)]
struct Answer<'a> {
    classes: Vec<Class<'a>>,
    logits: Vec<f32>,
    /// Above 1, the picture is unknown; `None` where the model tells none.
    #[serde(skip_serializing_if = "Option::is_none")]
    distance: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heatmap: Option<HeatMap<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

#[derive(Serialize)]
struct Class<'a> {
    label: &'a str,
    probability: f32,
}

/// As `edge-classify --json --heatmap` has it.
#[derive(Serialize)]
struct HeatMap<'a> {
    class: &'a str,
    width: usize,
    height: usize,
    seen: [f32; 4],
    values: Vec<f32>,
}

#[derive(Serialize)]
struct Failure {
    error: String,
}

/// Memory for a file of `len` bytes, until the next call; null where there is none.
#[unsafe(no_mangle)]
pub extern "C" fn reserve(len: usize) -> *mut u8 {
    let mut state = state();
    state.file = Vec::new();
    if state.file.try_reserve_exact(len).is_err() {
        return core::ptr::null_mut();
    }
    state.file.resize(len, 0);
    state.file.as_mut_ptr()
}

/// Takes the file as the model. The one before stays where the file is none.
#[unsafe(no_mangle)]
pub extern "C" fn load() -> u32 {
    finish(|state| {
        let file = AlignedBuf::from_slice(&core::mem::take(&mut state.file));
        let model = Model::new(&file).map_err(|e| e.to_string())?;
        let len = heat::arena_len(&model).unwrap_or(model.arena_len());
        let arena = AlignedBuf::zeroed(len);
        let contrast = Contrast::new(&model).ok();
        let shape = model.input_shape();
        let about = About {
            name: model.meta().name,
            dtype: match model.dtype() {
                Dtype::I8 => "int8",
                Dtype::F32 => "f32",
                Dtype::F16 => "fp16",
                Dtype::Bf16 => "bf16",
            },
            width: shape.w,
            height: shape.h,
            classes: model.classes(),
            file_bytes: file.len(),
            arena_bytes: model.arena_len(),
            macs: model.ops().map(|op| op.macs()).sum(),
            isa: Isa::detect().name(),
        };
        let json = json(&about);
        state.model = Some(Loaded { file, arena, note: None, sides: [0; 2], contrast });
        Ok(json)
    })
}

/// Takes the file as a picture: decodes it, scales it, writes the model's input.
#[unsafe(no_mangle)]
pub extern "C" fn decode() -> u32 {
    finish(|state| {
        let file = core::mem::take(&mut state.file);
        let loaded = state.model.as_mut().ok_or("no model")?;
        let picture = picture::decode(&file).map_err(|e| e.to_string())?;
        loaded.fill(&picture)?;
        Ok(b"{}".to_vec())
    })
}

/// Classifies the picture that [`decode`] took.
#[unsafe(no_mangle)]
pub extern "C" fn run() -> u32 {
    finish(|state| state.model.as_mut().ok_or("no model")?.run())
}

/// Where the JSON of the last call lies.
#[unsafe(no_mangle)]
pub extern "C" fn answer() -> *const u8 {
    state().answer.as_ptr()
}

/// How many bytes it has.
#[unsafe(no_mangle)]
pub extern "C" fn answer_len() -> usize {
    state().answer.len()
}

impl Loaded {
    fn fill(&mut self, picture: &Picture) -> Result<(), String> {
        let model = Model::new_trusted(&self.file).map_err(|e| e.to_string())?;
        let mut session = Session::new(&model, &mut self.arena).map_err(|e| e.to_string())?;
        let view = picture.view().map_err(|e| e.to_string())?;
        let mut input = session.input_mut();
        for_each_pixel(&model.meta().preprocess, view, |index, rgb| input.set_pixel(index, rgb));
        (self.note, self.sides) = (picture.note, [view.height(), view.width()]);
        Ok(())
    }

    fn run(&mut self) -> Result<Vec<u8>, String> {
        let model = Model::new_trusted(&self.file).map_err(|e| e.to_string())?;
        let mut session = Session::new(&model, &mut self.arena).map_err(|e| e.to_string())?;
        if self.contrast.is_some() {
            session = session.with_heat().map_err(|e| e.to_string())?;
        }
        let logits = session.run();
        let top = top_k::<TOP>(logits.iter(), TOP);
        let classes = top
            .iter()
            .map(|s| Class { label: model.label(s.index), probability: s.probability })
            .collect();
        let logits = logits.iter().collect();
        let distance = session.distance();
        let heatmap = top.first().and_then(|best| {
            let [height, width] = session.heat_shape()?;
            let values = self.contrast.as_ref()?.shares(&session, best.index)?;
            let [[top, rows], [left, columns]] = seen(&model.meta().preprocess, self.sides);
            let class = model.label(best.index);
            Some(HeatMap { class, width, height, seen: [left, top, columns, rows], values })
        });
        Ok(json(&Answer {
            classes,
            logits,
            distance: distance.map(|distance| distance.ratio()),
            unknown: distance.map(|distance| !distance.is_known()),
            heatmap,
            note: self.note,
        }))
    }
}

fn state() -> MutexGuard<'static, State> {
    // There is one thread, and a panic ends it.
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Leaves what `work` found as the answer.
fn finish(work: impl FnOnce(&mut State) -> Result<Vec<u8>, String>) -> u32 {
    let mut state = state();
    let outcome = work(&mut state);
    let worked = outcome.is_ok();
    state.answer = outcome.unwrap_or_else(|error| json(&Failure { error }));
    u32::from(worked)
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Numbers and texts always can be.
    serde_json::to_vec(value).unwrap_or_default()
}
