//! TOML and JSON: one schema, read from a tree that both parsers are brought into.
//!
//! The parsers' own deserializers stop at the first unknown key and print the line they stopped at, secrets included;
//! this reader goes on to the end and shows no secret. The tree is only as deep as the schema.

use std::borrow::Cow;

use super::Format;
use super::diagnostic::{Finding, Report};
use super::schema::{Entry, Key, Section, SectionKind, Shape};
use super::suggest::nearest;
use super::value::meant_switch;

/// A value and where it starts, in bytes.
#[derive(Debug)]
pub(super) struct Node<'a> {
    pub(super) offset: usize,
    pub(super) value: Value<'a>,
}

/// A value of TOML or JSON, as far as the schema knows such values.
#[derive(Debug)]
pub(super) enum Value<'a> {
    Text(Cow<'a, str>),
    /// A whole number in decimal, or whatever else the format takes for a number.
    Number(Cow<'a, str>),
    Flag(bool),
    List(Vec<Node<'a>>),
    Table(Vec<Field<'a>>),
    /// Anything else, by the name that messages give it.
    Other(&'static str),
}

/// A key of a table and its value.
#[derive(Debug)]
pub(super) struct Field<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) offset: usize,
    pub(super) node: Node<'a>,
}

/// Takes a tree apart into sections, reporting unknown keys and values of the wrong kind.
pub(super) fn read<'a>(root: Node<'a>, format: Format, report: &mut Report) -> Vec<Section<'a>> {
    let mut reader = Reader { format, report, sections: Vec::new() };
    reader.root(root);
    reader.sections
}

struct Reader<'a, 'r> {
    format: Format,
    report: &'r mut Report,
    sections: Vec<Section<'a>>,
}

impl<'a> Reader<'a, '_> {
    fn root(&mut self, root: Node<'a>) {
        let Value::Table(fields) = root.value else {
            self.unreadable(SectionKind::Interface, 0, &root);
            return self.wrong_kind(&root, None, "an object with `interface` and `peer`", None);
        };
        let (mut interface, mut peers) = (None, None);
        for field in fields {
            let seen = match field.name.as_ref() {
                INTERFACE => &mut interface,
                PEER | PEERS => &mut peers,
                _ if self.report.omits_error() => continue,
                name => {
                    let suggestion = top_level_suggestion(name);
                    let finding = Finding::at(field.offset, "unknown key").key(short(name));
                    self.report.error(finding.allowed("`interface` and `peer`").suggest(suggestion));
                    continue;
                }
            };
            if let Some(first) = seen.replace(field.offset) {
                let finding = Finding::at(field.offset, "set more than once; it was set").related(first);
                self.report.error(finding.key(field.name));
            } else if field.name == INTERFACE {
                self.section(SectionKind::Interface, 0, field.node);
            } else {
                self.peers(field.node);
            }
        }
    }

    fn peers(&mut self, node: Node<'a>) {
        match node.value {
            Value::List(nodes) => {
                for (index, node) in nodes.into_iter().enumerate() {
                    self.section(SectionKind::Peer, index, node);
                }
            }
            Value::Table(_) if self.format == Format::Toml => {
                self.wrong_kind(&node, Some(PEER.to_owned()), "an array of tables", Some("[[peer]]"));
            }
            _ => self.wrong_kind(&node, Some(PEER.to_owned()), "an array of tables", None),
        }
    }

    fn section(&mut self, kind: SectionKind, index: usize, node: Node<'a>) {
        let name = match kind {
            SectionKind::Interface => INTERFACE.to_owned(),
            SectionKind::Peer => format!("{PEER}[{index}]"),
        };
        let Value::Table(fields) = node.value else {
            self.unreadable(kind, index, &node);
            return self.wrong_kind(&node, Some(name), "a table of keys and values", None);
        };
        let mut section = Section::new(kind, index, node.offset);
        let mut seen = [None; Key::ALL.len()];
        for field in fields {
            let known = Key::ALL.iter().position(|key| key.document_name() == field.name && key.section() == kind);
            let Some(position) = known else {
                self.unknown_key(kind, &name, &field);
                continue;
            };
            // TOML's parser refuses this itself.
            if let Some(first) = seen[position].replace(field.offset) {
                let finding = Finding::at(field.offset, "set more than once; it was set").related(first);
                self.report.error(finding.key(format!("{name}.{}", field.name)));
                continue;
            }
            self.field(&mut section, Key::ALL[position], field.node);
        }
        self.sections.push(section);
    }

    fn field(&mut self, section: &mut Section<'a>, key: Key, node: Node<'a>) {
        if key.shape() != Shape::Texts {
            return self.scalar(section, key, node, None);
        }
        match node.value {
            Value::List(nodes) => {
                for (index, node) in nodes.into_iter().enumerate() {
                    self.scalar(section, key, node, Some(index));
                }
            }
            _ => {
                let name = section.key_name(self.format, key, None);
                self.wrong_kind(&node, Some(name), "an array of strings", None);
            }
        }
    }

    fn scalar(&mut self, section: &mut Section<'a>, key: Key, node: Node<'a>, index: Option<usize>) {
        let text = match (key.shape(), node.value) {
            (Shape::Text | Shape::Texts | Shape::NumberOrText, Value::Text(text)) => text,
            (Shape::Number | Shape::NumberOrText, Value::Number(text)) => text,
            (Shape::Flag, Value::Flag(flag)) => Cow::Borrowed(if flag { "true" } else { "false" }),
            (shape, value) => {
                let allowed = match shape {
                    Shape::Text | Shape::Texts => "a string",
                    Shape::Number => "a number",
                    Shape::NumberOrText => "a number or a string",
                    Shape::Flag => "true or false",
                };
                let name = section.key_name(self.format, key, index);
                section.spoilt.push(key);
                let meant = match (shape, &value) {
                    (Shape::Flag, Value::Text(text)) => meant_switch(text),
                    _ => None,
                };
                let suggestion = meant.map(|on| if on { "true" } else { "false" });
                return self.wrong_kind(&Node { offset: node.offset, value }, Some(name), allowed, suggestion);
            }
        };
        section.entries.push(Entry { key, text, offset: node.offset, index });
    }

    /// Notes that the section was there, so that it is not missed as well.
    fn unreadable(&mut self, kind: SectionKind, index: usize, node: &Node<'_>) {
        self.sections.push(Section { unreadable: true, ..Section::new(kind, index, node.offset) });
    }

    fn unknown_key(&mut self, kind: SectionKind, section: &str, field: &Field<'_>) {
        if self.report.omits_error() {
            return;
        }
        let finding =
            |message: String| Finding::at(field.offset, message).key(format!("{section}.{}", short(&field.name)));
        let here = Key::ALL.iter().filter(|key| key.section() == kind);
        let finding = match Key::ALL.iter().find(|key| key.document_name() == field.name) {
            Some(other) => {
                let there = other.section().name(self.format);
                finding(format!("this key belongs to {there}, not to {}", kind.name(self.format)))
            }
            None => {
                let suggestion = nearest(&field.name, here.map(|key| key.document_name()));
                finding(format!("unknown key in {}", kind.name(self.format))).suggest(suggestion)
            }
        };
        self.report.error(finding);
    }

    fn wrong_kind(&mut self, node: &Node<'_>, key: Option<String>, allowed: &str, suggestion: Option<&str>) {
        let found = match node.value {
            Value::Text(_) => "a string",
            Value::Number(_) => "a number",
            Value::Flag(_) => "a boolean",
            Value::List(_) => "an array",
            Value::Table(_) => "a table",
            Value::Other(name) => name,
        };
        let finding =
            Finding::at(node.offset, "wrong kind of value").found_kind(found).allowed(allowed).suggest(suggestion);
        self.report.error(match key {
            Some(key) => finding.key(key),
            None => finding,
        });
    }
}

/// What a key outside of all sections was meant to be: a section, or a key that lost its section.
fn top_level_suggestion(name: &str) -> Option<String> {
    let key = || nearest(name, Key::ALL.iter().map(|key| key.document_name()));
    let section = |key: &str| Key::ALL.iter().find(|known| known.document_name() == key).map(|known| known.section());
    nearest(name, [INTERFACE, PEER]).map(str::to_owned).or_else(|| {
        let key = key()?;
        Some(match section(key)? {
            SectionKind::Interface => format!("{INTERFACE}.{key}"),
            SectionKind::Peer => format!("{PEER}[].{key}"),
        })
    })
}

/// A key for a message: control characters escaped, and shortened.
fn short(name: &str) -> String {
    name.chars().take(LONGEST_KEY).flat_map(char::escape_debug).collect()
}

const INTERFACE: &str = "interface";
const PEER: &str = "peer";

/// What people write who think of JSON's plural; read, and never written.
const PEERS: &str = "peers";

/// The longest key that a message shows, in characters.
const LONGEST_KEY: usize = 40;
