//! A line for each subject over what varies, with the range as a band and the name at the line's end.

use super::axis::{Scale, apart, spread_out, steps};
use super::canvas::{Anchor, Canvas, class, fit, text_width};
use super::{Drawable, MARGIN, WIDTH, drawable, number};
use crate::bench::model::{Axis, Measure, Report, Series};
use crate::bench::output::number::tick;
use crate::bench::output::places;

/// Draws below `top` and returns where it ends.
pub(super) fn draw(canvas: &mut Canvas, report: &Report, measure: &Measure, axis: &Axis, top: f64) -> f64 {
    // No value at or below zero has a place on a logarithmic axis.
    let shown = |x: &f64| x.is_finite() && (!axis.logarithmic || *x > 0.0);
    let places: Vec<f64> = places(measure).into_iter().filter(shown).collect();
    let lines: Vec<Line<'_>> = measure.series.iter().filter_map(|series| Line::new(series, &places)).collect();
    let (Some(first), Some(last), false) = (places.first(), places.last(), lines.is_empty()) else {
        canvas.text((MARGIN, top + 16.0), Anchor::Start, "faint", "not measured");
        return top + 24.0;
    };
    let highest = lines.iter().flat_map(|line| &line.points).map(|(_, point)| point.high).fold(0.0, f64::max);
    let ticks = steps(highest);
    let numbers = ticks.iter().map(|value| text_width(&tick(*value), 12.0)).fold(0.0, f64::max);
    let names = lines.iter().map(|line| text_width(line.name, 13.0)).fold(0.0, f64::max).min(MOST_OF_A_NAME);
    let (left, right) = (MARGIN + numbers + 10.0, WIDTH - MARGIN - names - 26.0);
    let bottom = top + HEIGHT;

    let end = ticks.last().copied().unwrap_or(1.0);
    let y = Scale { values: (0.0, end), places: (bottom, top), logarithmic: false };
    for value in ticks {
        canvas.line((left, y.place(value)), (right, y.place(value)), if value == 0.0 { "axis" } else { "grid" });
        canvas.text((left - 8.0, y.place(value) + 4.0), Anchor::End, "faint", &tick(value));
    }
    // The first and the last mark stay clear of the axis and of the names.
    let x = Scale { values: (*first, *last), places: (left + 12.0, right - 8.0), logarithmic: axis.logarithmic };
    let at: Vec<f64> = places.iter().map(|value| x.place(*value)).collect();
    let labels: Vec<String> = places.iter().map(|value| tick(*value)).collect();
    let widths: Vec<f64> = labels.iter().map(|label| text_width(label, 12.0)).collect();
    for index in apart(&at, &widths) {
        canvas.line((at[index], bottom), (at[index], bottom + 5.0), "axis");
        canvas.text((at[index], bottom + 19.0), Anchor::Middle, "faint", &labels[index]);
    }
    let scale = if axis.logarithmic { ", logarithmic scale" } else { "" };
    let caption = fit(&format!("{}{scale}", axis.name()), 12.0, right - left);
    canvas.text(((left + right) / 2.0, bottom + 38.0), Anchor::Middle, "", &caption);

    let point = |value: f64, height: f64| (x.place(value), y.place(height.max(0.0)));
    for line in &lines {
        let subject = number(report, line.name);
        let above = line.points.iter().map(|(at, found)| point(*at, found.high));
        let below = line.points.iter().rev().map(|(at, found)| point(*at, found.low));
        canvas.path(above.chain(below), true, &class('b', subject));
    }
    for line in &lines {
        let subject = number(report, line.name);
        canvas.path(line.points.iter().map(|(at, found)| point(*at, found.median)), false, &class('s', subject));
        for (at, found) in &line.points {
            let about = format!("{}, at {} {}", found.about(line.name, &measure.unit), tick(*at), axis.unit);
            canvas.mark(point(*at, found.median), subject, &about);
        }
    }
    let ends: Vec<(f64, f64)> = lines.iter().map(|line| line.end(point)).collect();
    let heights: Vec<f64> = ends.iter().map(|(_, height)| *height).collect();
    let named = spread_out(&heights, 17.0, (top, bottom));
    for ((line, (from, height)), at) in lines.iter().zip(ends).zip(named) {
        canvas.line((from + 6.0, height), (right + 12.0, at), "leader");
        canvas.text((right + 16.0, at + 4.5), Anchor::Start, "name", &fit(line.name, 13.0, MOST_OF_A_NAME));
    }
    bottom + 42.0
}

/// A subject's points that can be drawn.
struct Line<'a> {
    name: &'a str,
    points: Vec<(f64, Drawable)>,
}

impl<'a> Line<'a> {
    fn new(series: &'a Series, places: &[f64]) -> Option<Self> {
        let points: Vec<_> = series
            .points
            .iter()
            .filter_map(|point| Some((point.x.filter(|x| places.contains(x))?, drawable(point)?)))
            .collect();
        (!points.is_empty()).then_some(Self { name: &series.subject, points })
    }

    /// Where it ends.
    fn end(&self, place: impl Fn(f64, f64) -> (f64, f64)) -> (f64, f64) {
        self.points.last().map_or((0.0, 0.0), |(at, found)| place(*at, found.median))
    }
}

/// Height of the drawing without its captions.
const HEIGHT: f64 = 280.0;

/// The widest name that is shown whole.
const MOST_OF_A_NAME: f64 = 150.0;
