//! Brings TOML into the tree that [`document`](super::document) reads.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue, Error};

use super::diagnostic::{Finding, Report};
use super::document::{Field, Node, Value};

/// Parses TOML. `None` comes with the syntax errors in the report, all of them unless the text is very long.
pub(super) fn parse<'a>(text: &'a str, report: &mut Report) -> Option<Node<'a>> {
    let (root, errors) = if text.len() <= RECOVERY_LIMIT {
        let (root, errors) = DeTable::parse_recoverable(text);
        (Some(root), errors)
    } else {
        match DeTable::parse(text) {
            Ok(root) => (Some(root), Vec::new()),
            Err(error) => (None, vec![error]),
        }
    };
    for error in &errors {
        report.error(finding(error));
    }
    root.filter(|_| errors.is_empty()).map(|root| Node { offset: 0, value: table(root.into_inner()) })
}

/// The error without the line that it stands in, which may hold a key.
fn finding(error: &Error) -> Finding {
    let message = format!("TOML: {}", error.message());
    match error.span() {
        Some(span) => Finding::at(span.start, message),
        None => Finding::whole(message),
    }
}

fn node(value: Spanned<DeValue<'_>>) -> Node<'_> {
    let offset = value.span().start;
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Text(text),
        DeValue::Integer(number) => Value::Number(decimal(&number)),
        DeValue::Float(number) => Value::Number(Cow::Owned(number.as_str().to_owned())),
        DeValue::Boolean(flag) => Value::Flag(flag),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(values) => Value::List(values.into_iter().map(node).collect()),
        DeValue::Table(fields) => table(fields),
    };
    Node { offset, value }
}

fn table(fields: DeTable<'_>) -> Value<'_> {
    let mut fields: Vec<_> = fields
        .into_iter()
        .map(|(name, value)| {
            let offset = name.span().start;
            Field { name: name.into_inner(), offset, node: node(value) }
        })
        .collect();
    // The parser sorts by name; messages about what came first need the order of the file.
    fields.sort_by_key(|field| field.offset);
    Value::Table(fields)
}

/// The number in decimal: `0xca6c` and `0o755` are TOML as well.
fn decimal<'a>(number: &DeInteger<'a>) -> Cow<'a, str> {
    match i128::from_str_radix(number.as_str(), number.radix()) {
        Ok(value) => Cow::Owned(value.to_string()),
        Err(_) => Cow::Owned(number.to_string()),
    }
}

/// Above this length in bytes only the first syntax error is told: a text that is no TOML at all has an error per
/// character, each with its own message.
const RECOVERY_LIMIT: usize = 1 << 18;
