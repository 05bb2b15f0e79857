//! Log lines: a filter, two forms, standard error or a file of bounded size.
//!
//! Whoever wrote a message: no line shows a key, and none above DEBUG an address, so that a log can be handed on.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use adit_control::redact;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::{Colour, Global, LogFormat};
use crate::failure::{Failure, Kind, Outcome};

/// A log file is moved to `FILE.1` when it has grown to this many bytes.
const ROTATE_AT: u64 = 1 << 20;

/// Starts logging for the whole process.
pub(crate) fn init(options: &Global) -> Outcome {
    if let Some(unknown) = options.log.split(',').map(str::trim).find(|part| !is_directive(part)) {
        let text = format!(
            "--log {}: `{unknown}` is neither a level ({LEVELS}) nor one for a module, like adit_core=trace",
            options.log
        );
        return Err(Failure::new(Kind::Usage, text));
    }
    // boringtun reports a peer that is merely idle as an error; the engine's own events tell what happened.
    let filter = EnvFilter::try_new(format!("boringtun=off,{}", options.log)).map_err(|error| {
        let text =
            format!("--log {}: {error}; a filter is a level (info) or a list like info,adit_core=trace", options.log);
        Failure::new(Kind::Usage, text)
    })?;
    let (writer, terminal) = match &options.log_file {
        Some(path) => (BoxMakeWriter::new(Redacting(Mutex::new(Rotating::open(path)?))), false),
        None => (BoxMakeWriter::new(Redacting(io::stderr)), io::stderr().is_terminal()),
    };
    let colours = match options.color {
        Colour::Auto => terminal && std::env::var_os("NO_COLOR").is_none(),
        Colour::Always => true,
        Colour::Never => false,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(colours);
    // Else a log that nobody reads, or a full disk, would be told to standard error, which may be that very log.
    let builder = builder.log_internal_errors(false);
    let started = match options.log_format {
        LogFormat::Human => builder.with_target(false).finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    };
    started.map_err(Failure::failed)
}

/// Whether a part of a filter can mean something: a bare word that is no level would silence everything but itself.
fn is_directive(part: &str) -> bool {
    // To the library the empty word is a level, too.
    let is_level = !part.is_empty() && part.parse::<LevelFilter>().is_ok();
    is_level || part.contains(['=', '[', ':']) || part.starts_with("adit")
}

/// Levels for messages.
const LEVELS: &str = "off, error, warn, info, debug or trace";

/// Takes keys out of every line, and addresses out of those above DEBUG.
struct Redacting<M>(M);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Redacting<M> {
    type Writer = RedactingWriter<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        RedactingWriter { inner: self.0.make_writer(), addresses_too: true }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        RedactingWriter { inner: self.0.make_writer_for(meta), addresses_too: *meta.level() <= Level::INFO }
    }
}

/// Writes one line, which comes as a whole.
struct RedactingWriter<W> {
    inner: W,
    addresses_too: bool,
}

impl<W: Write> Write for RedactingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let text = redact::keys(&text);
        let text = if self.addresses_too { redact::addresses(&text) } else { Cow::Borrowed(&*text) };
        self.inner.write_all(text.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A file that keeps its last mebibyte or two.
struct Rotating {
    path: PathBuf,
    file: File,
    written: u64,
}

impl Rotating {
    fn open(path: &Path) -> Outcome<Self> {
        let file =
            open(path).map_err(|error| Failure { message: format!("{}: {error}", path.display()), ..error.into() })?;
        let written = file.metadata().map_or(0, |metadata| metadata.len());
        Ok(Self { path: path.to_owned(), file, written })
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        std::fs::rename(&self.path, old)?;
        self.file = open(&self.path)?;
        self.written = 0;
        Ok(())
    }
}

impl Write for Rotating {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written + bytes.len() as u64 > ROTATE_AT && self.written > 0 {
            self.rotate()?;
        }
        let written = self.file.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Opens a log file for lines to be added, readable by its owner only.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}
