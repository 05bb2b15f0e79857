//! The directory of `--report`: checked before anything is measured, and filled all at once.
//!
//! A file is only replaced if an earlier report made it. Files are written beside their places and moved there when all
//! of them are complete, so nobody ever reads half of one.

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::chart;
use super::page::{MARK, html};
use crate::bench::model::Report;
use crate::failure::{Failure, Kind, Outcome};

/// A directory that a report can be written to.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes the directory if it is not there, and checks that a report of this benchmark can be written to it.
    pub(crate) fn open(path: &Path, benchmark: &str) -> Outcome<Self> {
        fs::create_dir_all(path).map_err(|error| failure(path, &error))?;
        let folder = Self { path: path.to_owned() };
        // What says whether a file can be made is making one; it is gone when it is dropped.
        drop(folder.file()?);
        let charts = format!("{benchmark}-");
        for entry in fs::read_dir(path).map_err(|error| failure(path, &error))? {
            let name = entry.map_err(|error| failure(path, &error))?.file_name();
            let text = name.to_string_lossy();
            if text == page(benchmark) || text.starts_with(&charts) && text.ends_with(".svg") {
                check_own(&path.join(&name))?;
            }
        }
        Ok(folder)
    }

    /// Writes the page and the charts, and returns where the page is.
    pub(crate) fn write(&self, report: &Report) -> Outcome<PathBuf> {
        let mut files = Vec::new();
        for measure in &report.measures {
            let name = format!("{}-{}.svg", report.benchmark, measure.key);
            files.push((self.path.join(name), format!("{MARK}\n{}", chart::svg(report, measure))));
        }
        let page = self.path.join(page(&report.benchmark));
        files.push((page.clone(), html(report)));

        let mut complete = Vec::new();
        for (place, content) in files {
            check_own(&place)?;
            let mut file = self.file()?;
            file.write_all(content.as_bytes()).map_err(|error| failure(&place, &error))?;
            complete.push((file, place));
        }
        for (file, place) in complete {
            file.persist(&place).map_err(|error| failure(&place, &error.error))?;
        }
        Ok(page)
    }

    /// A file that is removed unless it is moved to its place; as open to others as the user's umask says.
    fn file(&self) -> Outcome<tempfile::NamedTempFile> {
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix(".adit-bench-").permissions(Permissions::from_mode(0o666));
        builder.tempfile_in(&self.path).map_err(|error| failure(&self.path, &error))
    }
}

fn page(benchmark: &str) -> String {
    format!("{benchmark}.html")
}

/// Refuses to replace what no report has made.
fn check_own(path: &Path) -> Outcome {
    let foreign = || {
        let message =
            format!("{} was not made by `adit bench`; name another directory or move it away", path.display());
        Err(Failure::new(Kind::Exists, message))
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failure(path, &error)),
        Ok(found) if !found.is_file() => return foreign(),
        Ok(_) => {}
    }
    let mut start = String::new();
    let read = File::open(path).and_then(|file| file.take(HEAD).read_to_string(&mut start));
    match read {
        Ok(_) if start.contains(MARK) => Ok(()),
        Err(error) if error.kind() != ErrorKind::InvalidData => Err(failure(path, &error)),
        _ => foreign(),
    }
}

fn failure(path: &Path, error: &std::io::Error) -> Failure {
    Failure { message: format!("no report can be written to {}: {error}", path.display()), ..wrapped(error) }
}

/// The kind that an error of this kind has everywhere in this command.
fn wrapped(error: &std::io::Error) -> Failure {
    std::io::Error::from(error.kind()).into()
}

/// Bytes within which the mark is. A character that is cut in two at the end must not matter, and all are ASCII.
const HEAD: u64 = 16 + MARK.len() as u64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::output::tests::report;

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_report_is_written_and_replaced_and_nothing_else_is_touched() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("new/folder");
        let folder = Folder::open(&path, "tunnel").unwrap();
        assert_eq!(names(&path), [""; 0], "opening leaves nothing");
        for other in ["notes.txt", "engine.html", "tunnels.svg"] {
            fs::write(path.join(other), "mine").unwrap();
        }
        for _ in 0..2 {
            let page = Folder::open(&path, "tunnel").unwrap().write(&report()).unwrap();
            assert_eq!(page, path.join("tunnel.html"));
        }
        let expected =
            ["engine.html", "notes.txt", "tunnel-loss.svg", "tunnel-tcp-1.svg", "tunnel.html", "tunnels.svg"];
        assert_eq!(names(&path), expected);
        for other in ["notes.txt", "engine.html", "tunnels.svg"] {
            assert_eq!(fs::read_to_string(path.join(other)).unwrap(), "mine");
        }
        let chart = fs::read_to_string(path.join("tunnel-loss.svg")).unwrap();
        roxmltree::Document::parse(&chart).unwrap();
        assert_eq!(folder.write(&report()).unwrap(), path.join("tunnel.html"));
    }

    #[test]
    fn what_no_report_made_is_refused_beforehand() {
        let temporary = tempfile::tempdir().unwrap();
        for (name, content) in
            [("tunnel.html", &b"<html>mine"[..]), ("tunnel-x.svg", &[0xff, 0xfe]), ("tunnel-y.svg", b"")]
        {
            let path = temporary.path().join(name);
            fs::write(&path, content).unwrap();
            let refused = Folder::open(temporary.path(), "tunnel").unwrap_err();
            assert!(refused.kind == Kind::Exists && refused.message.contains(name), "{refused:?}");
            assert_eq!(fs::read(&path).unwrap(), content);
            Folder::open(temporary.path(), "engine").unwrap();
            fs::remove_file(path).unwrap();
        }
        fs::create_dir(temporary.path().join("tunnel.html")).unwrap();
        assert_eq!(Folder::open(temporary.path(), "tunnel").unwrap_err().kind, Kind::Exists);
        // Whoever makes one meanwhile keeps it, and gets no half of a report beside it.
        fs::remove_dir(temporary.path().join("tunnel.html")).unwrap();
        let folder = Folder::open(temporary.path(), "tunnel").unwrap();
        fs::write(temporary.path().join("tunnel.html"), "mine").unwrap();
        folder.write(&report()).unwrap_err();
        assert_eq!(names(temporary.path()), ["tunnel.html"]);
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_refused_with_its_name() {
        let temporary = tempfile::tempdir().unwrap();
        let file = temporary.path().join("file");
        fs::write(&file, "mine").unwrap();
        for path in [file.clone(), file.join("below")] {
            let refused = Folder::open(&path, "tunnel").unwrap_err();
            assert!(refused.message.contains(path.to_str().unwrap()), "{refused:?}");
        }
        assert_eq!(fs::read_to_string(file).unwrap(), "mine");
    }
}
