//! Charts as SVG.
//!
//! The drawings have plain colors on white, so that each stands alone; a page's style sheet
//! removes the white and, in the dark, replaces [`INK`] and [`GRID`]. The colors of the lines can
//! be read on both.

use crate::train::{BINS, Bin};
use core::ops::Range;
use plotters::prelude::*;

/// Text and axes.
const INK: RGBColor = RGBColor(0x1c, 0x24, 0x30);
/// Lines behind the data.
const GRID: RGBColor = RGBColor(0xd9, 0xde, 0xe5);
/// The first series; right answers.
pub(super) const BLUE: RGBColor = RGBColor(0x2f, 0x7e, 0xd8);
/// The second series; what is missing or wrong.
pub(super) const ORANGE: RGBColor = RGBColor(0xe0, 0x7b, 0x00);

/// Pixels of a chart at its natural size.
const SIZE: (u32, u32) = (420, 270);
/// Points of a series that are also marked, at most: more would run together.
const MAX_MARKED: usize = 40;
/// Numbers beyond this are no loss worth drawing, and would overflow the axis.
const MAX_VALUE: f64 = 1e12;

/// Words and ranges of a chart.
pub(super) struct Frame {
    pub(super) title: String,
    pub(super) x_name: &'static str,
    pub(super) x: Range<f64>,
    /// Numbers on the x axis, at most.
    pub(super) x_labels: usize,
    pub(super) y: Range<f64>,
    /// How the numbers of the y axis are written.
    pub(super) y_text: fn(f64) -> String,
    /// Where a line goes from the bottom to the top.
    pub(super) mark: Option<f64>,
}

/// A line.
pub(super) struct Series {
    pub(super) color: RGBColor,
    pub(super) points: Vec<(f64, f64)>,
}

impl Series {
    /// A line through the points that can be drawn.
    pub(super) fn new(color: RGBColor, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let fits = |v: f64| v.is_finite() && v.abs() < MAX_VALUE;
        let points = points.into_iter().filter(|(x, y)| fits(*x) && fits(*y)).collect();
        Self { color, points }
    }
}

/// Smallest and largest y of all series; `None` without a point.
pub(super) fn y_bounds(series: &[Series]) -> Option<(f64, f64)> {
    let ys = || series.iter().flat_map(|s| s.points.iter().map(|p| p.1));
    ys().next()?;
    Some((ys().fold(f64::INFINITY, f64::min), ys().fold(f64::NEG_INFINITY, f64::max)))
}

/// The series as lines over common axes.
pub(super) fn lines(frame: &Frame, series: &[Series]) -> anyhow::Result<String> {
    draw(frame, |chart| {
        if let Some(x) = frame.mark.filter(|x| frame.x.contains(x) || *x == frame.x.end) {
            let ends = [(x, frame.y.start), (x, frame.y.end)];
            chart.draw_series(LineSeries::new(ends, INK.stroke_width(1)))?;
        }
        for Series { color, points } in series {
            chart.draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?;
            if points.len() <= MAX_MARKED {
                chart.draw_series(points.iter().map(|p| Circle::new(*p, 3, color.filled())))?;
            }
        }
        Ok(())
    })
}

/// The series as points over common axes, the first ones faint, and a line.
pub(super) fn points(frame: &Frame, series: &[Series], line: &Series) -> anyhow::Result<String> {
    draw(frame, |chart| {
        let points = line.points.iter().copied();
        chart.draw_series(LineSeries::new(points, line.color.stroke_width(2)))?;
        for (i, Series { color, points }) in series.iter().enumerate() {
            let (size, style) = match i {
                0 => (2, color.mix(0.5).filled()),
                _ => (5, color.filled()),
            };
            chart.draw_series(points.iter().map(|p| Circle::new(*p, size, style)))?;
        }
        Ok(())
    })
}

/// Share right over probability: a bar for each bin, whose light part is the gap that the
/// calibration error averages: orange where the answers were surer than right, else blue.
pub(super) fn reliability(bins: &[Bin; BINS]) -> anyhow::Result<String> {
    let frame = Frame {
        title: "Share right by probability".into(),
        x_name: "probability of the answer",
        x: 0.0..1.0,
        x_labels: 6,
        y: 0.0..1.0,
        y_text: percent,
        mark: None,
    };
    draw(&frame, |chart| {
        let filled = bins.iter().enumerate().filter(|(_, b)| b.pictures > 0);
        for (i, bin) in filled {
            let (left, right) = (i as f64 / BINS as f64, (i + 1) as f64 / BINS as f64);
            let bar = |from, to, style| Rectangle::new([(left, from), (right, to)], style);
            let (low, high) = (bin.accuracy.min(bin.confidence), bin.accuracy.max(bin.confidence));
            let too_sure = bin.confidence > bin.accuracy;
            let gap = if too_sure { ORANGE } else { BLUE }.mix(0.4).filled();
            chart.draw_series([
                bar(0.0, low, BLUE.filled()),
                bar(low, high, gap),
                bar(0.0, high, GRID.stroke_width(1)),
            ])?;
        }
        chart.draw_series(LineSeries::new([(0.0, 0.0), (1.0, 1.0)], INK.stroke_width(1)))?;
        Ok(())
    })
}

type Canvas<'a, 'b> = ChartContext<
    'a,
    SVGBackend<'b>,
    Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
>;

/// Draws the axes, then what `body` adds.
fn draw(
    frame: &Frame,
    body: impl FnOnce(&mut Canvas<'_, '_>) -> anyhow::Result<()>,
) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let text = |size: i32| ("sans-serif", size).into_font().color(&INK);
        let mut chart = ChartBuilder::on(&area)
            .caption(&frame.title, text(18))
            .margin(8)
            .margin_right(18)
            .set_label_area_size(LabelAreaPosition::Left, 56)
            .set_label_area_size(LabelAreaPosition::Bottom, 42)
            .build_cartesian_2d(frame.x.clone(), frame.y.clone())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(INK)
            .label_style(text(15))
            .axis_desc_style(text(15))
            .x_desc(frame.x_name)
            .x_labels(frame.x_labels)
            .y_labels(6)
            .x_label_formatter(&|x| number(*x))
            .y_label_formatter(&|y| (frame.y_text)(*y))
            .draw()?;
        body(&mut chart)?;
        area.present()?;
    }
    Ok(svg)
}

/// A number on an axis, without the noise of its last bits.
pub(super) fn number(v: f64) -> String {
    if v.abs() < 1e-9 {
        return "0".into();
    }
    if v.abs() < 1e-3 {
        return format!("{v:.0e}");
    }
    let text = format!("{v:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A share on an axis.
pub(super) fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_read_well() {
        let texts = [0.06 + 1e-17, 1e-17, 12.0, 0.5, 0.0002].map(number);
        assert_eq!(texts, ["0.06", "0", "12", "0.5", "2e-4"]);
        assert_eq!(percent(0.2), "20 %");
    }

    #[test]
    fn the_style_sheet_knows_the_colors() {
        let css = include_str!("../../../crates/page/templates/style.css");
        for RGBColor(r, g, b) in [INK, GRID, WHITE] {
            let color = format!("=\"#{r:02X}{g:02X}{b:02X}\"]");
            assert!(css.contains(&color), "{color}");
        }
    }

    #[test]
    fn what_cannot_be_drawn_is_left_out() {
        let points = [(1.0, f64::NAN), (2.0, f64::INFINITY), (3.0, 1e300), (4.0, 2.0)];
        let series = [Series::new(BLUE, points)];
        assert_eq!(series[0].points, [(4.0, 2.0)]);
        assert_eq!(y_bounds(&series), Some((2.0, 2.0)));
        assert_eq!(y_bounds(&[]), None);
    }
}
