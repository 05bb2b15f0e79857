//! The names of utun interfaces, which are numbers for the kernel.

/// Which utun a name means: `None` within for `utun`, with which the kernel chooses a free number. Everything else is
/// `utun` and a number as the kernel writes it.
pub(super) fn parse(name: &str) -> Option<Option<u32>> {
    let digits = name.strip_prefix(PREFIX)?;
    if digits.is_empty() {
        return Some(None);
    }
    // The unit that is asked for is one more, and 0 is any.
    let number = digits.parse().ok().filter(|number| *number < u32::MAX)?;
    (format!("{PREFIX}{number}") == name).then_some(Some(number))
}

const PREFIX: &str = "utun";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_numbers() {
        assert_eq!(parse("utun"), Some(None));
        assert_eq!(parse("utun0"), Some(Some(0)));
        assert_eq!(parse("utun117"), Some(Some(117)));
        assert_eq!(parse("utun4294967294"), Some(Some(u32::MAX - 1)));
        for bad in
            ["", "tun0", "Utun1", "utun01", "utun+1", "utun-1", "utun1 ", "utun4294967295", "utun1a", "utun99999999999"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
