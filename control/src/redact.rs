//! Takes out of a text what must not be shown: keys always, addresses where a reader may be a stranger.
//!
//! It is the last line of defence, for texts that others wrote: what a hook prints, an error that names a route, a line of
//! a library. Code of our own does not rely on it and leaves secrets out of its messages in the first place. It goes by
//! looks alone: what has the form of a key is taken for one, public keys included.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

/// Replaces everything that looks like a WireGuard key, in base64 or hexadecimal, with `(key)`.
#[must_use]
pub fn keys(text: &str) -> Cow<'_, str> {
    let is_key_byte = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    replace(text, is_key_byte, |word, after| {
        let after = after.as_bytes();
        let base64 = word.len() == BASE64_DIGITS
            && after.first() == Some(&b'=')
            && after.get(1).is_none_or(|byte| !is_key_byte(*byte) && *byte != b'=');
        let hex = word.len() == HEX_DIGITS && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        if base64 { Some((word.len() + 1, "(key)")) } else { hex.then_some((word.len(), "(key)")) }
    })
}

/// Replaces everything that is an IP address, with or without a port, with `(address)`; prefix lengths stay.
#[must_use]
pub fn addresses(text: &str) -> Cow<'_, str> {
    let is_address_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"_:.%".contains(&byte);
    replace(text, is_address_byte, |word, _| {
        let trimmed = word.trim_end_matches([':', '.']);
        let found = [trimmed, word].into_iter().find(|word| {
            let without_scope = word.split_once('%').map_or(*word, |(address, _)| address);
            without_scope.parse::<IpAddr>().is_ok() || word.parse::<SocketAddr>().is_ok()
        });
        found.map(|found| (found.len(), "(address)"))
    })
}

/// Goes through the words of a text; `judge` sees a word and what follows it, and tells how many bytes to replace with
/// what. Escapes of JSON strings (`\n`) and of terminals (`ESC [ … m`) belong to no word.
fn replace<'a>(
    text: &'a str,
    is_word_byte: impl Fn(u8) -> bool,
    judge: impl Fn(&str, &str) -> Option<(usize, &'static str)>,
) -> Cow<'a, str> {
    let bytes = text.as_bytes();
    let mut out = String::new();
    // Where the part of `text` starts that is not in `out` yet.
    let mut copied = 0;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            0x1b => at += bytes[at..].iter().position(u8::is_ascii_alphabetic).map_or(bytes.len() - at, |end| end + 1),
            byte if is_word_byte(byte) => {
                let length = bytes[at..].iter().position(|byte| !is_word_byte(*byte)).unwrap_or(bytes.len() - at);
                // Word bytes are ASCII, so both ends are boundaries of characters.
                let (word, after) = text[at..].split_at(length);
                match judge(word, after) {
                    Some((replaced, with)) => {
                        out.push_str(&text[copied..at]);
                        out.push_str(with);
                        at += replaced;
                        copied = at;
                    }
                    None => at += length,
                }
            }
            _ => at += 1,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// 32 bytes in base64, without the one `=` that follows.
const BASE64_DIGITS: usize = 43;

/// 32 bytes in hexadecimal.
const HEX_DIGITS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4+/g=";

    #[test]
    fn keys_go_wherever_they_stand() {
        let hex = "0f".repeat(32);
        for (before, after) in
            [("", ""), ("PrivateKey = ", "\n"), ("key=", " x"), ("\\n", "\\n"), ("\u{1b}[2m=\u{1b}[0m", "ä")]
        {
            for key in [KEY, &hex] {
                assert_eq!(keys(&format!("{before}{key}{after}")), format!("{before}(key){after}"));
            }
        }
        assert_eq!(keys(&format!("{KEY},{hex} {KEY}")), "(key),(key) (key)");
    }

    #[test]
    fn what_is_no_key_stays() {
        for text in
            ["", "peer=eHh4", "/etc/wireguard/wg0.conf", &"a".repeat(44), &"f".repeat(63), &format!("x{KEY}"), "ä\\"]
        {
            assert!(matches!(keys(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn addresses_go_and_their_surroundings_stay() {
        for (text, expected) in [
            ("to=198.51.100.1:51820", "to=(address)"),
            ("[2001:db8::1]:51820", "[(address)]:51820"),
            ("route 10.0.0.0/8 dev wg0", "route (address)/8 dev wg0"),
            ("cannot reach fe80::1%eth0: no route", "cannot reach (address): no route"),
            ("10.0.0.1-10.0.0.5, 192.0.2.1.", "(address)-(address), (address)."),
            ("\"found \\\"::1\\\"\\n192.0.2.1\"", "\"found \\\"(address)\\\"\\n(address)\""),
            ("\u{1b}[2m=\u{1b}[0m192.0.2.1", "\u{1b}[2m=\u{1b}[0m(address)"),
            ("::ffff:192.0.2.1 ::/0", "(address) (address)/0"),
        ] {
            assert_eq!(addresses(text), expected);
        }
    }

    #[test]
    fn times_versions_and_paths_of_code_are_no_addresses() {
        for text in ["2026-11-21T09:51:48.123456Z  INFO", "adit_core::wg::peer: x", "0.1.0", "12:34:56", "%i", "a::b_c"]
        {
            assert_eq!(addresses(text), text);
        }
    }
}
