//! The nearest known word for a word that is not known.
//!
//! Works on short words only and gives nothing rather than a far-fetched guess.

/// The candidate that `unknown` probably was meant to be.
pub(super) fn nearest(unknown: &str, candidates: impl IntoIterator<Item = &'static str>) -> Option<&'static str> {
    if unknown.len() > MAX_LENGTH {
        return None;
    }
    let unknown = fold(unknown);
    let mut candidates = candidates.into_iter();
    if let Some((_, meant)) = FOREIGN.into_iter().find(|(foreign, _)| *foreign == unknown) {
        return candidates.find(|candidate| fold(candidate) == meant);
    }
    let scored = candidates.map(|candidate| (likeness(&unknown, &fold(candidate)), candidate));
    let best = scored.max_by(|left, right| left.0.total_cmp(&right.0))?;
    (best.0 >= THRESHOLD).then_some(best.1)
}

/// From 0 (nothing in common) to 1 (the same).
fn likeness(unknown: &str, candidate: &str) -> f64 {
    let (short, long) = if unknown.len() < candidate.len() { (unknown, candidate) } else { (candidate, unknown) };
    // `Keepalive` for `PersistentKeepalive`, `PeerPublicKey` for `PublicKey`: contained, and more so the less is left.
    let contained = short.len() >= MIN_CONTAINED && long.contains(short);
    let containment = if contained { 0.85 + 0.1 * short.len() as f64 / long.len() as f64 } else { 0.0 };
    strsim::jaro_winkler(unknown, candidate).max(containment)
}

/// Spelling that does not matter: case, `_`, `-` and blanks.
fn fold(word: &str) -> String {
    word.chars().filter(|char| char.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Words of other programs that are nearest to the opposite of what they mean, and what that is called here; folded.
const FOREIGN: [(&str, &str); 1] = [("disallowedips", "excludedips")];

/// Longer words are no misspelt keys, and the comparison is quadratic.
const MAX_LENGTH: usize = 48;

/// Shorter words are contained in others by chance.
const MIN_CONTAINED: usize = 4;

/// Below this the words only happen to share letters; tried with the keys of wg-quick(8) and words that are none.
const THRESHOLD: f64 = 0.82;

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: [&str; 7] =
        ["Address", "AllowedIPs", "Endpoint", "ListenPort", "PersistentKeepalive", "PublicKey", "PresharedKey"];

    #[test]
    fn finds_what_was_meant_and_nothing_else() {
        let cases = [
            ("AllowedIP", Some("AllowedIPs")),
            ("allowed_ips", Some("AllowedIPs")),
            ("Allowd IPs", Some("AllowedIPs")),
            ("Adress", Some("Address")),
            ("Keepalive", Some("PersistentKeepalive")),
            ("PeerPublicKey", Some("PublicKey")),
            ("EndPiont", Some("Endpoint")),
            ("PreSharedKey", Some("PresharedKey")),
            ("Colour", None),
            ("Name", None),
            ("", None),
        ];
        for (unknown, expected) in cases {
            assert_eq!(nearest(unknown, WORDS), expected, "{unknown}");
        }
        assert_eq!(nearest(&"AllowedIPs".repeat(10), WORDS), None);
        assert_eq!(nearest("DisallowedIPs", WORDS), None, "the opposite is no likeness");
        assert_eq!(nearest("disallowed_ips", WORDS.into_iter().chain(["ExcludedIPs"])), Some("ExcludedIPs"));
    }
}
