//! One line of the log: a level, the part of Adit that speaks, and a text of bounded length.

use std::ffi::{CStr, CString};
use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};

/// A line, ready to be shown to C.
pub(crate) struct Line {
    level: u32,
    target: CString,
    message: CString,
}

impl Line {
    /// Makes a line of a text; what is too long is cut, and a NUL inside is replaced.
    pub(crate) fn new(level: u32, target: &str, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > LONGEST {
            message.truncate(message.floor_char_boundary(LONGEST - ELLIPSIS.len()));
            message.push_str(ELLIPSIS);
        }
        Self { level, target: c_string(target.to_owned()), message: c_string(message) }
    }

    /// Makes a line of an event: its message, then its other fields as `name=value`.
    pub(super) fn of(event: &tracing::Event<'_>, level: u32) -> Self {
        let mut text = Text::default();
        event.record(&mut text);
        let Text { mut message, fields } = text;
        message.push_str(&fields);
        Self::new(level, event.metadata().target(), message)
    }

    pub(crate) fn level(&self) -> u32 {
        self.level
    }

    pub(crate) fn target(&self) -> &CStr {
        &self.target
    }

    pub(crate) fn text(&self) -> &CStr {
        &self.message
    }

    #[cfg(test)]
    pub(super) fn message(&self) -> &str {
        self.message.to_str().unwrap_or_default()
    }
}

/// Collects an event's fields; the message may come after others.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let room = Bounded { text: if field.name() == "message" { &mut self.message } else { &mut self.fields } };
        room.write(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        // A text that is a value is not quoted: it would be escaped a second time wherever the line is shown.
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// Stops a value's `Debug` where the line is full, so that a line costs no more than its length.
struct Bounded<'a> {
    text: &'a mut String,
}

impl Bounded<'_> {
    fn write(mut self, name: &str, value: &dyn fmt::Debug) {
        // An error is the end of the room; what fits has been written.
        let _full = if name == "message" { write!(self, "{value:?}") } else { write!(self, " {name}={value:?}") };
    }
}

impl fmt::Write for Bounded<'_> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = (LONGEST + 1).saturating_sub(self.text.len());
        let fits = part.floor_char_boundary(room);
        self.text.push_str(&part[..fits]);
        if fits < part.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

fn c_string(text: String) -> CString {
    // After the replacement no NUL is left, so the second text is never taken.
    CString::new(text)
        .or_else(|error| {
            let bytes = error.into_vec();
            CString::new(String::from_utf8_lossy(&bytes).replace('\0', "\u{fffd}"))
        })
        .unwrap_or_default()
}

/// Bytes of a line's text.
const LONGEST: usize = 1024;

/// Stands where a line was cut.
const ELLIPSIS: &str = "…";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        let line = Line::new(1, "t", "ä".repeat(LONGEST));
        assert!(line.message().len() <= LONGEST && line.message().len() > LONGEST - 5);
        assert!(line.message().ends_with("ä…"));
        assert_eq!(Line::new(1, "t", "a".repeat(LONGEST)).message().len(), LONGEST);
    }

    #[test]
    fn a_nul_inside_does_not_end_the_text() {
        assert_eq!(Line::new(1, "t", "a\0b").message(), "a\u{fffd}b");
        assert_eq!(Line::new(1, "t\0u", "").target().to_str(), Ok("t\u{fffd}u"));
    }
}
