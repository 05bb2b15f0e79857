//! Brings JSON into the tree that [`document`](super::document) reads.
//!
//! serde_json has no spans; its raw values are slices of the text, and where a slice lies in the text is where the
//! value stands. Every level of the schema is read once more, and the schema has four.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::diagnostic::{Finding, Report};
use super::document::{Field, Node, Value};

/// Parses JSON. `None` comes with the syntax error in the report; a JSON parser cannot go on after one.
pub(super) fn parse<'a>(text: &'a str, report: &mut Report) -> Option<Node<'a>> {
    let json = text.strip_prefix('\u{feff}').unwrap_or(text);
    let root: &RawValue = match serde_json::from_str(json) {
        Ok(root) => root,
        Err(error) => {
            let full = error.to_string();
            // The place is in the finding, in characters; what serde_json appends counts bytes.
            let message = full.split(" at line ").next().unwrap_or_default();
            let offset = text.len() - json.len() + byte_offset(json, error.line(), error.column());
            report.error(Finding::at(offset, format!("JSON: {message}")));
            return None;
        }
    };
    let tree = Tree { text };
    Some(tree.node(root, DEPTH))
}

struct Tree<'a> {
    text: &'a str,
}

impl<'a> Tree<'a> {
    fn node(&self, raw: &'a RawValue, depth: u8) -> Node<'a> {
        let json = raw.get();
        let value = match json.as_bytes().first() {
            Some(b'"') => string(json).map_or(Value::Other("a string with a broken escape"), Value::Text),
            Some(b't') => Value::Flag(true),
            Some(b'f') => Value::Flag(false),
            Some(b'n') => Value::Other("null"),
            Some(b'[') => self.list(json, depth).unwrap_or(Value::Other("an array")),
            Some(b'{') => self.table(json, depth).unwrap_or(Value::Other("an object")),
            _ => Value::Number(Cow::Borrowed(json)),
        };
        Node { offset: self.offset(json), value }
    }

    fn list(&self, json: &'a str, depth: u8) -> Option<Value<'a>> {
        let depth = depth.checked_sub(1)?;
        // It was read as JSON once, so it cannot fail now.
        let values: Vec<&'a RawValue> = serde_json::from_str(json).ok()?;
        Some(Value::List(values.into_iter().map(|raw| self.node(raw, depth)).collect()))
    }

    fn table(&self, json: &'a str, depth: u8) -> Option<Value<'a>> {
        let depth = depth.checked_sub(1)?;
        let Fields(fields) = serde_json::from_str(json).ok()?;
        let field = |(name, raw): (&'a RawValue, &'a RawValue)| Field {
            // A key with a broken escape is unknown, however it is shown.
            name: string(name.get()).unwrap_or(Cow::Borrowed(name.get())),
            offset: self.offset(name.get()),
            node: self.node(raw, depth),
        };
        Some(Value::Table(fields.into_iter().map(field).collect()))
    }

    /// Where a slice of the text starts in it.
    fn offset(&self, slice: &str) -> usize {
        (slice.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize)
    }
}

/// The keys and values of an object in their order, the repeated ones too.
struct Fields<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// The text of a JSON string: a slice of the file, unless it has escapes. `None` for half a surrogate pair, which is
/// JSON and no text.
fn string(json: &str) -> Option<Cow<'_, str>> {
    match serde_json::from_str::<&str>(json) {
        Ok(text) => Some(Cow::Borrowed(text)),
        Err(_) => serde_json::from_str(json).ok().map(Cow::Owned),
    }
}

/// The byte that serde_json's line and column name, both from 1.
fn byte_offset(text: &str, line: usize, column: usize) -> usize {
    let start = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum::<usize>();
    (start + column.saturating_sub(1)).min(text.len())
}

/// File, peers, peer, list of prefixes: whatever lies deeper is wrong, and only its kind is of interest.
const DEPTH: u8 = 4;
