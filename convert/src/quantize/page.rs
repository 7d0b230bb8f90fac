//! The page of `convert report`.

use super::Quantized;
use super::measure::{LayerError, Measured, PictureError};
use askama::Template;
use network::model::FloatModel;
use page::{self, Thumbnail};

/// Most pictures on the page.
const MAX_PICTURES: usize = 18;
/// Layers that are marked as those that lose most.
const MAX_WORST: usize = 3;
/// A layer that loses less is not worth a mark.
const WORTH_A_MARK_DB: f64 = 3.0;
/// Decibels of a full bar.
const FULL_BAR_DB: f64 = 60.0;

#[derive(Template)]
#[template(path = "quantization.html")]
struct Page {
    title: String,
    summary: Vec<[String; 2]>,
    notes: Vec<String>,
    layers: Vec<Row>,
    pictures: Vec<Picture>,
    explanation: String,
    command: String,
}

struct Row {
    is_worst: bool,
    name: String,
    operation: &'static str,
    shape: String,
    sqnr: String,
    bar: String,
    lost: String,
    cosine: String,
    saturated: String,
    range: String,
    scale: String,
    method: &'static str,
}

struct Picture {
    thumbnail: Thumbnail,
    float: String,
    int8: String,
    changed: bool,
    error: String,
}

/// Decibels as a text.
pub(crate) fn decibels(value: Option<f64>) -> String {
    value.map_or("–".into(), |db| format!("{db:.1} dB"))
}

/// The layers that lose most, the worst first.
pub(crate) fn worst(measured: &Measured) -> Vec<&LayerError> {
    let lost = |l: &LayerError| l.lost_db.unwrap_or(0.0);
    let mut layers: Vec<&LayerError> =
        measured.layers.iter().filter(|l| lost(l) >= WORTH_A_MARK_DB).collect();
    layers.sort_by(|a, b| lost(b).total_cmp(&lost(a)));
    layers.truncate(MAX_WORST);
    layers
}

/// The pictures whose classes change, then the others, those with the largest error first.
pub(crate) fn sorted(measured: &Measured) -> Vec<&PictureError> {
    let mut pictures: Vec<&PictureError> = measured.pictures.iter().collect();
    let same = |p: &PictureError| p.float_class == p.int8_class;
    pictures.sort_by(|a, b| same(a).cmp(&same(b)).then(b.error.total_cmp(&a.error)));
    pictures
}

/// What a report is made of.
#[derive(Debug, Clone, Copy)]
pub struct ReportPage<'a> {
    /// The model.
    pub model: &'a FloatModel,
    /// Its int8 network.
    pub int8: &'a Quantized,
    /// What was measured of that.
    pub measured: &'a Measured,
    /// Pixels of the pictures measured on.
    pub rgb: &'a [Vec<u8>],
    /// What quantization found and did.
    pub notes: &'a [String],
    /// As it was typed.
    pub command: &'a str,
}

impl ReportPage<'_> {
    /// The report as one HTML file.
    ///
    /// # Errors
    /// Pixels of another size than the model's input.
    pub fn html(&self) -> anyhow::Result<String> {
        page::finish(&self.page()?)
    }

    fn page(&self) -> anyhow::Result<Page> {
        let Self { model, int8, measured, rgb, notes, command } = *self;
        let worst: Vec<&str> = worst(measured).into_iter().map(|l| l.name.as_str()).collect();
        let row = |l: &LayerError| Row {
            is_worst: worst.contains(&l.name.as_str()),
            name: l.name.clone(),
            operation: l.operation,
            shape: l.shape.map(|s| s.to_string()).join("×"),
            sqnr: decibels(l.sqnr_db),
            bar: format!(
                "{:.1}",
                (l.sqnr_db.unwrap_or(FULL_BAR_DB) / FULL_BAR_DB).clamp(0.0, 1.0) * 100.0
            ),
            lost: decibels(l.lost_db),
            cosine: format!("{:.5}", l.cosine),
            saturated: match l.saturated {
                0.0 => "0".into(),
                share => format!("{:.3} %", share * 100.0),
            },
            range: l.int8.map_or("–".into(), |r| format!("{:.3} … {:.3}", r.low, r.high)),
            scale: l.int8.map_or("–".into(), |r| format!("{:.5}", r.scale)),
            method: match l.int8 {
                Some(_) => l.method.unwrap_or("given"),
                None => "float",
            },
        };
        let label = |class: usize, probability: f32| {
            let name = model.labels.get(class).map_or("?", String::as_str);
            format!("{name} {:.1} %", probability * 100.0)
        };
        let mut pictures = Vec::new();
        for p in sorted(measured).into_iter().take(MAX_PICTURES) {
            let Some(rgb) = rgb.get(p.picture) else { continue };
            pictures.push(Picture {
                thumbnail: Thumbnail::new(rgb, &model.preprocess)?,
                float: label(p.float_class, p.float_probability),
                int8: label(p.int8_class, p.int8_probability),
                changed: p.float_class != p.int8_class,
                error: format!("logits off by {:.1} %", p.error * 100.0),
            });
        }
        let logits = measured.layers.last();
        let card = |name: &str, value: String| [name.to_owned(), value];
        Ok(Page {
            title: format!("{} in int8", int8.graph.name),
            summary: vec![
                card("same class", format!("{:.1} %", measured.agreement() * 100.0)),
                card("pictures", measured.pictures.len().to_string()),
                card("signal to noise of the logits", decibels(logits.and_then(|l| l.sqnr_db))),
                card("layers", int8.graph.nodes.len().saturating_sub(1).to_string()),
            ],
            notes: notes.to_vec(),
            layers: measured.layers.iter().map(row).collect(),
            explanation:
                "Those whose class changes first, then those whose logits do, in units of \
                      their deviation over all pictures."
                    .into(),
            pictures,
            command: command.into(),
        })
    }
}
