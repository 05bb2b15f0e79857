//! A bar for each subject, with its range as a whisker and its median as a number.

use super::axis::{Scale, steps};
use super::canvas::{Anchor, Canvas, class, fit, text_width};
use super::{Drawable, MARGIN, WIDTH, drawable, number};
use crate::bench::model::{Measure, Report};
use crate::bench::output::number::{short, tick};

/// Draws below `top` and returns where it ends.
pub(super) fn draw(canvas: &mut Canvas, report: &Report, measure: &Measure, top: f64) -> f64 {
    let bars: Vec<(&str, Drawable)> = measure
        .series
        .iter()
        .filter_map(|series| Some((series.subject.as_str(), drawable(series.points.first()?)?)))
        .collect();
    if bars.is_empty() {
        canvas.text((MARGIN, top + 16.0), Anchor::Start, "faint", "not measured");
        return top + 24.0;
    }
    let names = bars.iter().map(|(name, _)| text_width(name, 13.0)).fold(0.0, f64::max).min(MOST_OF_A_NAME);
    let numbers = bars.iter().map(|(_, bar)| text_width(&short(bar.median), 12.0)).fold(0.0, f64::max);
    let (left, right) = (MARGIN + names + 12.0, WIDTH - MARGIN - numbers - 10.0);
    let bottom = top + bars.len() as f64 * ROW + 4.0;

    let highest = bars.iter().map(|(_, bar)| bar.high).fold(0.0, f64::max);
    let ticks = steps(highest);
    let end = ticks.last().copied().unwrap_or(1.0);
    let scale = Scale { values: (0.0, end), places: (left, right), logarithmic: false };
    for value in ticks {
        let x = scale.place(value);
        canvas.line((x, top), (x, bottom), if value == 0.0 { "axis" } else { "grid" });
        canvas.text((x, bottom + 17.0), Anchor::Middle, "faint", &tick(value));
    }
    for (index, (name, bar)) in bars.into_iter().enumerate() {
        let y = top + index as f64 * ROW + (ROW - BAR) / 2.0 + 2.0;
        let middle = y + BAR / 2.0;
        let place = |value: f64| scale.place(value.max(0.0));
        canvas.text((left - 10.0, middle + 4.5), Anchor::End, "name", &fit(name, 13.0, MOST_OF_A_NAME));
        let size = (place(bar.median) - left, BAR);
        canvas.bar((left, y), size, &class('f', number(report, name)), &bar.about(name, &measure.unit));
        if bar.high > bar.low {
            let (low, high) = (place(bar.low), place(bar.high));
            canvas.line((low, middle), (high, middle), "whisker");
            for end in [low, high] {
                canvas.line((end, middle - 4.0), (end, middle + 4.0), "whisker");
            }
        }
        canvas.text((place(bar.high.max(bar.median)) + 8.0, middle + 4.5), Anchor::Start, "name", &short(bar.median));
    }
    bottom + 20.0
}

/// Height of a bar, and of it with its distance to the next.
const BAR: f64 = 18.0;
const ROW: f64 = 30.0;

/// The widest name that is shown whole.
const MOST_OF_A_NAME: f64 = 190.0;
