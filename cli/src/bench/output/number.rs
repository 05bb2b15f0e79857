//! Numbers and words as people read them: three digits, a decimal prefix, no control characters.

use crate::bench::model::Point;

/// A value with three significant digits: `1.23`, `1420`, `12.3 k`, `5.60 M`.
pub(super) fn short(value: f64) -> String {
    let (scaled, prefix) = scaled(value);
    let gap = if prefix.is_empty() { "" } else { " " };
    format!("{scaled:.*}{gap}{prefix}", decimals(scaled))
}

/// The same without zeros at the end, for axes: `0.5`, `12 k`.
pub(super) fn tick(value: f64) -> String {
    let (scaled, prefix) = scaled(value);
    let mut text = format!("{scaled:.*}", decimals(scaled));
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    if prefix.is_empty() { text } else { format!("{text} {prefix}") }
}

/// How far the samples lie apart, as half of their range in percent of the median; nothing for a single sample or around
/// zero, where that means nothing.
pub(super) fn spread(point: &Point) -> Option<String> {
    let ((low, high), median) = (point.range()?, point.median()?);
    if point.samples.len() < 2 || median == 0.0 || !(high - low).is_finite() {
        return None;
    }
    let percent = (high - low) / 2.0 / median.abs() * 100.0;
    Some(format!("±{percent:.*} %", usize::from((0.05..0.95).contains(&percent))))
}

/// How many times `base` a value is.
pub(super) fn ratio(value: f64, base: f64) -> Option<String> {
    let ratio = value / base;
    (base != 0.0 && ratio.is_finite()).then(|| format!("×{ratio:.*}", decimals(ratio).min(2)))
}

/// Replaces what would move a terminal's cursor or is not allowed in XML.
pub(super) fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

/// Numbers below ten thousand are read as easily without a prefix.
fn scaled(value: f64) -> (f64, &'static str) {
    match value.abs() {
        size if size >= 1e9 => (value / 1e9, "G"),
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    }
}

/// Digits behind the point that make three significant ones.
fn decimals(value: f64) -> usize {
    if value == 0.0 || !value.is_finite() {
        return 0;
    }
    // At most six: what is smaller than a millionth of a unit is shown as zero.
    (2.0 - value.abs().log10().floor()).clamp(0.0, 6.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_prefix() {
        let shown = [0.0, 1.0, 0.0123, 3.276, 99.85, 1420.0, 9999.0, 12_345.0, 5.6e6, 123e6, 4.2e10, -2.5].map(short);
        let expected =
            ["0", "1.00", "0.0123", "3.28", "99.8", "1420", "9999", "12.3 k", "5.60 M", "123 M", "42.0 G", "-2.50"];
        assert_eq!(shown, expected);
        assert_eq!([0.0, 0.5, 2.0, 20_000.0, 1.5e6].map(tick), ["0", "0.5", "2", "20 k", "1.5 M"]);
        assert_eq!([100.0, 1000.0, 10.0].map(tick), ["100", "1000", "10"]);
        assert_eq!(short(f64::INFINITY), "inf G");
    }

    #[test]
    fn spreads_are_of_the_median() {
        let point = |samples: &[f64]| Point { x: None, samples: samples.to_vec() };
        assert_eq!(spread(&point(&[95.0, 100.0, 105.0])).as_deref(), Some("±5 %"));
        assert_eq!(spread(&point(&[99.8, 100.0, 100.4])).as_deref(), Some("±0.3 %"));
        for without in [&[5.0][..], &[], &[0.0, 0.0, 1.0], &[f64::NAN, 1.0]] {
            assert_eq!(spread(&point(without)), None);
        }
    }

    #[test]
    fn ratios_are_to_the_first() {
        assert_eq!(ratio(3.0, 2.0).as_deref(), Some("×1.50"));
        assert_eq!(ratio(300.0, 2.0).as_deref(), Some("×150"));
        assert_eq!(ratio(0.001, 2.0).as_deref(), Some("×0.00"));
        assert_eq!(ratio(1.0, 0.0), None);
    }

    #[test]
    fn what_commands_an_output_is_not_shown() {
        assert_eq!(printable("a\u{1b}[2J\nb\u{ffff}é"), "a\u{fffd}[2J\u{fffd}b\u{fffd}é");
    }
}
