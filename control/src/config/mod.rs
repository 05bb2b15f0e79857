//! Configuration: one model, and three ways to write it that agree.
//!
//! A file is wg-quick's format ([wg-quick(8)] and wg(8)), TOML or JSON. A reader per format takes it apart into located
//! texts (`conf`, `document`), one validator makes the model of them (`validate`, `value`, `coverage`), and one writer
//! per format turns it back: what is written reads as the same model. All errors of a file are told at once, each with
//! its line.
//!
//! Nothing is resolved, looked up on the machine or applied here, and no message shows the value of a secret.
//!
//! ```
//! use adit_control::config::{Format, parse};
//!
//! let text = "[Interface]\nPrivateKey = eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg=\nAddress = 10.0.0.2/24\n";
//! let (config, warnings) = parse(text, Format::Conf, "wg0.conf")?;
//! assert!(warnings.is_empty());
//! assert_eq!(parse(&config.to_toml(), Format::Toml, "wg0.toml")?.0, config);
//!
//! let error = parse("[Interface]\nAdress = 10.0.0.2/24\n", Format::Conf, "wg0.conf").unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "wg0.conf:1:1: warning: PrivateKey: the private key is missing: no peer is reached until `wg set` gives one to \
//!      the interface\n\
//!      wg0.conf:2:1: error: Adress: unknown key in [Interface]; did you mean Address?"
//! );
//! # Ok::<(), adit_control::config::ConfigError>(())
//! ```
//!
//! [wg-quick(8)]: https://git.zx2c4.com/wireguard-tools/about/src/man/wg-quick.8

mod conf;
mod conf_writer;
mod coverage;
mod diagnostic;
mod document;
mod document_json;
mod document_toml;
mod document_writer;
mod endpoint;
mod files;
mod model;
mod schema;
mod suggest;
mod validate;
mod value;

use std::borrow::Cow;
use std::path::Path;

use serde::Serialize;
use zeroize::Zeroizing;

pub use diagnostic::{ConfigError, Diagnostic, Severity};
pub use endpoint::{Endpoint, EndpointError, Host};
pub use files::{Loaded, interface_name, load};
pub use model::{Config, Interface, MAX_MTU, MIN_MTU, Peer, Table};

use diagnostic::{Finding, Report};

/// How a configuration is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The format of wg(8) and wg-quick(8).
    Conf,
    /// TOML: a table `interface` and an array of tables `peer`.
    Toml,
    /// JSON of the same shape as TOML.
    Json,
}

impl Format {
    /// The format that a file's extension promises: `.toml`, `.json`, and wg-quick's for all others.
    #[must_use]
    pub fn from_path(path: &Path) -> Self {
        let extension = path.extension().unwrap_or_default();
        if extension.eq_ignore_ascii_case("toml") {
            Self::Toml
        } else if extension.eq_ignore_ascii_case("json") {
            Self::Json
        } else {
            Self::Conf
        }
    }
}

impl Config {
    /// Writes the configuration as a wg-quick file. The text holds the secrets and is wiped when dropped.
    #[must_use]
    pub fn to_conf(&self) -> Zeroizing<String> {
        conf_writer::write(self)
    }

    /// Writes the configuration as TOML. The text holds the secrets and is wiped when dropped.
    #[must_use]
    pub fn to_toml(&self) -> Zeroizing<String> {
        document_writer::toml(self)
    }

    /// Writes the configuration as indented JSON. The text holds the secrets and is wiped when dropped.
    #[must_use]
    pub fn to_json(&self) -> Zeroizing<String> {
        document_writer::json(self)
    }
}

/// Reads a configuration from a text. `source_name` is what messages call it, most often a path.
///
/// Returns the configuration and its warnings.
///
/// # Errors
/// Everything that is wrong with the text, warnings included.
pub fn parse(text: &str, format: Format, source_name: &str) -> Result<(Config, Vec<Diagnostic>), ConfigError> {
    parse_reported(text, format, source_name, Report::default())
}

/// Reads a configuration from bytes, which should be UTF-8; the comments of a wg-quick file may be anything.
///
/// # Errors
/// As [`parse`], and bytes that are no UTF-8.
pub fn parse_bytes(bytes: &[u8], format: Format, source_name: &str) -> Result<(Config, Vec<Diagnostic>), ConfigError> {
    if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") {
        return Err(ConfigError::file(source_name, "this is UTF-16; save it as UTF-8".to_owned(), None));
    }
    if bytes.len() > MAX_LENGTH {
        return Err(too_long(source_name));
    }
    let mut report = Report::default();
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(replace_invalid(bytes, format, &mut report)),
    };
    let text = SecretText(text);
    parse_reported(&text.0, format, source_name, report)
}

fn parse_reported(
    text: &str,
    format: Format,
    source_name: &str,
    mut report: Report,
) -> Result<(Config, Vec<Diagnostic>), ConfigError> {
    if text.len() > MAX_LENGTH {
        return Err(too_long(source_name));
    }
    let sections = match format {
        Format::Conf => Some(conf::read(text, &mut report)),
        Format::Toml => document_toml::parse(text, &mut report).map(|root| document::read(root, format, &mut report)),
        Format::Json => document_json::parse(text, &mut report).map(|root| document::read(root, format, &mut report)),
    };
    let config = sections.and_then(|sections| validate::validate(&sections, format, &mut report));
    let diagnostics = report.finish(source_name, text)?;
    match config {
        Some(config) => Ok((config, diagnostics)),
        // No configuration comes with an error in the report, so this is not reached; if it were, it must not pass.
        None => Err(ConfigError::file(source_name, "this is not a configuration".to_owned(), None)),
    }
}

fn too_long(source_name: &str) -> ConfigError {
    ConfigError::file(source_name, format!("longer than {} MiB", MAX_LENGTH >> 20), None)
}

/// Replaces what is no UTF-8, and reports it unless it stands in a comment of a wg-quick file.
fn replace_invalid(bytes: &[u8], format: Format, report: &mut Report) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut in_comment = false;
    for chunk in bytes.utf8_chunks() {
        let valid = chunk.valid();
        in_comment = match valid.rsplit_once('\n') {
            Some((_, line)) => line.contains('#'),
            None => in_comment || valid.contains('#'),
        };
        text.push_str(valid);
        if chunk.invalid().is_empty() {
            continue;
        }
        if format != Format::Conf || !in_comment {
            report.error(Finding::at(text.len(), "this is not UTF-8"));
        }
        text.push(char::REPLACEMENT_CHARACTER);
    }
    text
}

/// A text with secrets that is wiped when dropped, if it is a copy.
struct SecretText<'a>(Cow<'a, str>);

impl Drop for SecretText<'_> {
    fn drop(&mut self) {
        if let Cow::Owned(text) = &mut self.0 {
            zeroize::Zeroize::zeroize(text);
        }
    }
}

/// The longest configuration that is read, in bytes: some 100 000 peers with keys, endpoints and prefixes.
pub const MAX_LENGTH: usize = 16 << 20;
