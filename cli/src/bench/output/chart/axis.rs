//! Where values lie between two ends of a chart, and which of them are written beside it.

/// A scale from values to places.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    /// The lowest and the highest value.
    pub(super) values: (f64, f64),
    /// Where these two are.
    pub(super) places: (f64, f64),
    /// Equal ratios are equal distances; only for values above zero.
    pub(super) logarithmic: bool,
}

impl Scale {
    /// Where a value is.
    pub(super) fn place(&self, value: f64) -> f64 {
        let (low, high) = (self.turn(self.values.0), self.turn(self.values.1));
        let part = if high > low { (self.turn(value) - low) / (high - low) } else { 0.5 };
        self.places.0 + part * (self.places.1 - self.places.0)
    }

    fn turn(&self, value: f64) -> f64 {
        if self.logarithmic { value.log10() } else { value }
    }
}

/// Round values from zero to the first that is not below `high`, about five of them.
pub(super) fn steps(high: f64) -> Vec<f64> {
    let high = if high.is_finite() && high > 0.0 { high } else { 1.0 };
    let rough = high / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough * 0.999);
    let step = step.unwrap_or(rough);
    let count = (high / step * 0.999_999).ceil() as usize;
    (0..=count).map(|number| number as f64 * step).collect()
}

/// Those of `places` whose labels, `widths` wide and centred, do not touch each other. The last is kept in any case.
pub(super) fn apart(places: &[f64], widths: &[f64]) -> Vec<usize> {
    let Some(last) = places.len().checked_sub(1) else { return Vec::new() };
    let mut kept: Vec<usize> = Vec::new();
    let clear = |a: usize, b: usize| (places[b] - places[a]).abs() >= (widths[a] + widths[b]) / 2.0 + GAP;
    for index in 0..last {
        if kept.last().is_none_or(|before| clear(*before, index)) && clear(index, last) {
            kept.push(index);
        }
    }
    kept.push(last);
    kept
}

/// Moves places (in any order) so far apart that each has `distance` to the next, within the two ends if they fit.
pub(super) fn spread_out(places: &[f64], distance: f64, (top, bottom): (f64, f64)) -> Vec<f64> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by(|a, b| places[*a].total_cmp(&places[*b]));
    let mut moved = places.to_vec();
    let mut least = top;
    for index in &order {
        moved[*index] = moved[*index].max(least);
        least = moved[*index] + distance;
    }
    let mut most = bottom.max(top + distance * (places.len() as f64 - 1.0));
    for index in order.iter().rev() {
        moved[*index] = moved[*index].min(most);
        most = moved[*index] - distance;
    }
    moved
}

/// Between two labels, in the chart's unit.
const GAP: f64 = 8.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_keep_order_and_ends() {
        let linear = Scale { values: (0.0, 10.0), places: (100.0, 200.0), logarithmic: false };
        assert_eq!([0.0, 2.5, 10.0].map(|value| linear.place(value)), [100.0, 125.0, 200.0]);
        let logarithmic = Scale { values: (1.0, 100.0), places: (200.0, 0.0), logarithmic: true };
        assert_eq!([1.0, 10.0, 100.0].map(|value| logarithmic.place(value)), [200.0, 100.0, 0.0]);
        let single = Scale { values: (3.0, 3.0), places: (0.0, 10.0), logarithmic: false };
        assert_eq!(single.place(3.0), 5.0);
    }

    #[test]
    fn steps_are_round_few_and_reach_the_top() {
        assert_eq!(steps(10.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(steps(7.5), [0.0, 2.0, 4.0, 6.0, 8.0]);
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(steps(wrong), steps(1.0));
        }
        for high in [1e-9, 0.7, 1.0, 4.4, 99.0, 101.0, 1234.5, 8.7e12] {
            let steps = steps(high);
            let last = steps.last().copied().unwrap();
            assert!((4..=8).contains(&steps.len()) && last >= high * 0.999 && last < high * 1.5, "{high}: {steps:?}");
        }
    }

    #[test]
    fn labels_do_not_touch() {
        assert_eq!(apart(&[0.0, 10.0, 20.0, 60.0], &[20.0; 4]), [0, 3]);
        assert_eq!(apart(&[0.0, 10.0, 30.0, 60.0], &[20.0; 4]), [0, 2, 3]);
        assert_eq!(apart(&[5.0], &[500.0]), [0]);
        assert!(apart(&[], &[]).is_empty());
    }

    #[test]
    fn names_are_spread_out_within_the_chart() {
        assert_eq!(spread_out(&[50.0, 52.0, 10.0], 10.0, (0.0, 100.0)), [50.0, 60.0, 10.0]);
        assert_eq!(spread_out(&[99.0, 98.0, 97.0], 10.0, (0.0, 100.0)), [100.0, 90.0, 80.0]);
        assert_eq!(spread_out(&[0.0, 0.0], 10.0, (0.0, 5.0)), [0.0, 10.0]);
    }
}
