//! What a reader has to know beside the figures, one line for each kind, whatever the number of runs.

use std::collections::BTreeMap;

use super::record::What;

/// All that was noticed.
#[derive(Debug, Default)]
pub(super) struct Remarks {
    /// By subject and rate: in how many runs, and the least that was sent.
    short: BTreeMap<(String, u32), (u32, f64)>,
    /// By subject and measure.
    lost: BTreeMap<(String, What), u64>,
}

impl Remarks {
    /// A load could not be offered as it was meant, because the sender got too little of the processors.
    pub(super) fn offered(&mut self, subject: &str, rate: u32, offered: f64) {
        let (runs, least) = self.short.entry((subject.to_owned(), rate)).or_insert((0, offered));
        (*runs, *least) = (*runs + 1, least.min(offered));
    }

    /// Requests were not answered.
    pub(super) fn unanswered(&mut self, subject: &str, what: What, requests: u64) {
        *self.lost.entry((subject.to_owned(), what)).or_default() += requests;
    }

    /// The lines.
    pub(super) fn lines(&self) -> Vec<String> {
        let short = self.short.iter().map(|((subject, rate), (runs, least))| {
            format!(
                "{subject}: {rate} packets/s could not be offered in full in {runs} of the runs, {least:.0} at worst"
            )
        });
        let lost = self.lost.iter().map(|((subject, what), requests)| {
            format!("{subject}: {requests} requests in all were not answered within 1 s ({})", what.title())
        });
        short.chain(lost).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_runs_make_one_line() {
        let mut remarks = Remarks::default();
        for offered in [9000.4, 8000.0, 9500.0] {
            remarks.offered("a", 10_000, offered);
            remarks.unanswered("b", What::Load50, 2);
        }
        assert_eq!(
            remarks.lines(),
            [
                "a: 10000 packets/s could not be offered in full in 3 of the runs, 8000 at worst",
                "b: 6 requests in all were not answered within 1 s (Round trip beside 1 TCP stream, median)",
            ]
        );
    }
}
