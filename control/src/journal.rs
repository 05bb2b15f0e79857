//! What a tunnel changes in the operating system, on disk before it is changed.
//!
//! One JSON file a tunnel. A change is recorded first and made afterwards, so a process that dies at any moment leaves
//! behind a list that names at least everything it did; whoever finds the file can undo it (`route::undo`). The file is
//! replaced as a whole (written beside, synced, renamed), so it is never half written.
//!
//! The journal neither makes nor undoes changes, and it never deletes a file that it cannot read: a damaged journal or
//! one of a newer version is an error for a human to look at.

mod entry;
mod owner;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::scratch;

pub use entry::{Address, Device, Entry, Mtu, Route, Rule, Sysctl, Target, Via};
pub use owner::Owner;

/// The journal of one tunnel; see the module's documentation.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    path: PathBuf,
    document: Document,
}

/// Why a journal could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file system refused.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The file system's answer.
        source: io::Error,
    },
    /// Another process has a journal for this tunnel, and is running or has left it behind.
    #[error("tunnel `{name}` has a journal at {} already, of process {pid}, {}", path.display(),
        if *alive { "which is running" } else { "which is gone: undo its changes first" })]
    Exists {
        /// The tunnel.
        name: String,
        /// The journal's file.
        path: PathBuf,
        /// The owner's process id.
        pid: u32,
        /// Whether the owner is running.
        alive: bool,
    },
    /// The file is no journal.
    #[error("{} is damaged ({reason}); it is kept, remove it when the tunnel's routes and rules are gone", path.display())]
    Corrupt {
        /// The journal's file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file was written by a version of Adit that this one does not know.
    #[error("{} has format {found}, this program knows format {FORMAT}: use the program that wrote it", path.display())]
    Version {
        /// The journal's file.
        path: PathBuf,
        /// The format that it has.
        found: u64,
    },
    /// The name cannot be an interface's.
    #[error(
        "`{name}` is no interface name: 1 to 15 bytes, none of them `/`, white space or control, and not `.` or `..`"
    )]
    Name {
        /// The name.
        name: String,
    },
}

impl Journal {
    /// Starts the journal of a tunnel, owned by this process, in a directory that is made if it is missing.
    ///
    /// # Errors
    ///
    /// [`JournalError::Exists`] if there is one, whoever owns it: see [`Journal::load`] for taking care of that one first.
    pub fn create(dir: &Path, name: &str) -> Result<Self, JournalError> {
        let path = path_of(dir, name)?;
        fs::DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(|source| JournalError::Io {
            operation: "make the directory",
            path: dir.to_owned(),
            source,
        })?;
        let document =
            Document { format: FORMAT, tunnel: name.to_owned(), owner: Owner::this_process(), entries: Vec::new() };
        let journal = Self { dir: dir.to_owned(), path, document };
        match journal.write(Replace::Refuse) {
            Err(JournalError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                let (pid, alive) =
                    Self::load(dir, name)?.map_or((0, false), |other| (other.owner().pid, other.owner_alive()));
                Err(JournalError::Exists { name: name.to_owned(), path: journal.path, pid, alive })
            }
            result => result.map(|()| journal),
        }
    }

    /// Reads the journal of a tunnel, whoever owns it; `None` if there is none.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, is damaged or too new; the file stays as it is.
    pub fn load(dir: &Path, name: &str) -> Result<Option<Self>, JournalError> {
        let path = path_of(dir, name)?;
        let failed = |source| JournalError::Io { operation: "read", path: path.clone(), source };
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.map_err(failed)?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        let corrupt = |reason: String| JournalError::Corrupt { path: path.clone(), reason };
        if bytes.len() as u64 > MAX_BYTES {
            return Err(corrupt(format!("it is longer than {MAX_BYTES} bytes")));
        }
        let Head { format } = serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?;
        if format != FORMAT {
            return Err(JournalError::Version { path, found: format });
        }
        let document: Document = serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?;
        if document.tunnel != name {
            return Err(corrupt(format!("it is the journal of tunnel `{}`", document.tunnel)));
        }
        Ok(Some(Self { dir: dir.to_owned(), path, document }))
    }

    /// The tunnels that have a journal in a directory, sorted; none if there is no such directory.
    ///
    /// # Errors
    ///
    /// A directory that cannot be read.
    pub fn list(dir: &Path) -> Result<Vec<String>, JournalError> {
        let failed = |source| JournalError::Io { operation: "list", path: dir.to_owned(), source };
        let files = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.map_err(failed)?,
        };
        let mut names = Vec::new();
        for file in files {
            let file = file.map_err(failed)?.file_name();
            let name = file.to_str().and_then(|file| file.strip_suffix(SUFFIX));
            names.extend(name.filter(|name| path_of(dir, name).is_ok()).map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The tunnel's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.document.tunnel
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The changes that are recorded, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.document.entries
    }

    /// The process that made the changes.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.document.owner
    }

    /// Whether the process that made the changes is still running; a recycled process id does not count.
    #[must_use]
    pub fn owner_alive(&self) -> bool {
        self.document.owner.is_alive()
    }

    /// Makes this process the owner, as a daemon must that was forked after the journal was made.
    ///
    /// # Errors
    ///
    /// The file cannot be written; the owner is then as it was.
    pub fn adopt(&mut self) -> Result<(), JournalError> {
        let former = std::mem::replace(&mut self.document.owner, Owner::this_process());
        self.write(Replace::Allow).inspect_err(|_| self.document.owner = former)
    }

    /// Records a change that is about to be made. Recording it again changes nothing.
    ///
    /// # Errors
    ///
    /// The file cannot be written; then the change must not be made.
    pub fn record(&mut self, entry: Entry) -> Result<(), JournalError> {
        self.edit(vec![entry], &[])
    }

    /// Removes a change that has been undone, or was not made. Nothing happens if it is not recorded.
    ///
    /// # Errors
    ///
    /// The file cannot be written; the entry is then still recorded.
    pub fn forget(&mut self, entry: &Entry) -> Result<(), JournalError> {
        self.edit(Vec::new(), std::slice::from_ref(entry))
    }

    /// Records and forgets many changes with one write to disk.
    ///
    /// # Errors
    ///
    /// The file cannot be written; the journal is then as it was.
    pub fn edit(&mut self, record: Vec<Entry>, forget: &[Entry]) -> Result<(), JournalError> {
        let forget: HashSet<&Entry> = forget.iter().collect();
        let mut seen: HashSet<Entry> = HashSet::new();
        let kept = self.document.entries.iter().filter(|entry| !forget.contains(entry)).cloned();
        let entries: Vec<Entry> = kept.chain(record).filter(|entry| seen.insert(entry.clone())).collect();
        if entries == self.document.entries {
            return Ok(());
        }
        let former = std::mem::replace(&mut self.document.entries, entries);
        self.write(Replace::Allow).inspect_err(|_| self.document.entries = former)
    }

    /// Deletes the file; the changes stay. It is no error if the file is gone.
    ///
    /// # Errors
    ///
    /// The file system refuses.
    pub fn remove(self) -> Result<(), JournalError> {
        match fs::remove_file(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(JournalError::Io { operation: "remove", path: self.path, source })
            }
            _ => Ok(()),
        }
    }

    /// A change of the same kernel parameter that another tunnel's journal in this directory records.
    ///
    /// Tunnels share such parameters: the first to change it knows the original value, the last to go restores it.
    /// Journals that cannot be read or are of another network namespace are left out.
    #[must_use]
    pub fn sysctl_of_another(&self, path: &str) -> Option<Sysctl> {
        let names = Self::list(&self.dir).unwrap_or_default();
        names.iter().filter(|name| *name != self.name()).find_map(|name| {
            let other = Self::load(&self.dir, name).ok().flatten()?;
            other.owner().shares_network_with(self.owner()).then_some(())?;
            other.document.entries.into_iter().find_map(|entry| match entry {
                Entry::Sysctl(sysctl) if sysctl.path == path => Some(sysctl),
                _ => None,
            })
        })
    }

    fn write(&self, replace: Replace) -> Result<(), JournalError> {
        let failed = |source| JournalError::Io { operation: "write", path: self.path.clone(), source };
        let bytes = serde_json::to_vec(&self.document).map_err(|error| failed(error.into()))?;
        // The library makes the file with mode 0600 and deletes it if it is not renamed.
        let mut file = scratch::file_in(&self.dir).map_err(failed)?;
        file.write_all(&bytes).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        match replace {
            Replace::Allow => file.persist(&self.path),
            Replace::Refuse => file.persist_noclobber(&self.path),
        }
        .map_err(|error| failed(error.error))?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(failed)
    }
}

/// Whether a write may replace a file.
#[derive(Clone, Copy)]
enum Replace {
    Allow,
    Refuse,
}

/// The file's contents.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    format: u64,
    tunnel: String,
    owner: Owner,
    entries: Vec<Entry>,
}

/// What every format has.
#[derive(Deserialize)]
struct Head {
    format: u64,
}

fn path_of(dir: &Path, name: &str) -> Result<PathBuf, JournalError> {
    let plain = |c: char| c != '/' && !c.is_whitespace() && !c.is_control();
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || !name.chars().all(plain) {
        return Err(JournalError::Name { name: name.to_owned() });
    }
    Ok(dir.join(format!("{name}{SUFFIX}")))
}

/// Where the command keeps its journals: a file system that a reboot empties, as it empties the routing tables.
pub const DEFAULT_DIR: &str = crate::api::SOCKET_DIR;

const FORMAT: u64 = 2;
const SUFFIX: &str = ".journal";
/// A route takes about 140 bytes, and an exception stands here as a route and once more for the firewall; so this is
/// some 300 000 routes.
const MAX_BYTES: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::settings::Family;

    fn rule() -> Entry {
        let selector = Target::NotMarked(51820);
        Entry::Rule(Rule { family: Family::Ipv4, priority: 32765, table: 51820, target: selector })
    }

    fn route(net: &str) -> Entry {
        let via = Via::Device(Device { name: "adit0".into(), index: 7 });
        Entry::Route(Route { destination: net.parse().unwrap(), table: 254, via, metric: None })
    }

    fn every_kind() -> Vec<Entry> {
        let device = Device { name: "adit0".into(), index: 7 };
        vec![
            Entry::Link(device.clone()),
            Entry::Address(Address { device: device.clone(), address: "10.0.0.2/24".parse().unwrap() }),
            Entry::Mtu(Mtu { device: device.clone(), former: 1500, value: 1420 }),
            Entry::Up(device),
            route("10.0.0.0/8"),
            Entry::Route(Route {
                destination: "::/0".parse().unwrap(),
                table: 51820,
                via: Via::Unreachable,
                metric: Some(4_278_198_272),
            }),
            Entry::Route(Route {
                destination: "10.1.0.0/16".parse().unwrap(),
                table: 51820,
                via: Via::Throw,
                metric: None,
            }),
            Entry::Sysctl(Sysctl { path: "/proc/sys/net/x".into(), former: "0".into(), value: "1".into() }),
            Entry::Rule(Rule { family: Family::Ipv6, priority: 32764, table: 254, target: Target::SuppressDefault }),
            rule(),
            Entry::Socket { path: "/run/wireguard/adit0.sock".into() },
        ]
    }

    #[test]
    fn what_is_recorded_is_read_back_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(&dir.path().join("deep/down"), "adit0").unwrap();
        for entry in every_kind() {
            journal.record(entry).unwrap();
        }
        let read = Journal::load(&dir.path().join("deep/down"), "adit0").unwrap().unwrap();
        assert_eq!(read.entries(), every_kind());
        assert_eq!(read.owner(), journal.owner());
        assert!(read.owner_alive());
    }

    #[test]
    fn recording_twice_and_forgetting_what_is_not_there_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(dir.path(), "adit0").unwrap();
        journal.record(rule()).unwrap();
        journal.record(rule()).unwrap();
        journal.forget(&route("10.0.0.0/8")).unwrap();
        assert_eq!(journal.entries(), [rule()]);
        journal.edit(vec![route("10.0.0.0/8")], &[rule()]).unwrap();
        assert_eq!(Journal::load(dir.path(), "adit0").unwrap().unwrap().entries(), [route("10.0.0.0/8")]);
    }

    #[test]
    fn the_file_is_private_and_nothing_lies_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(dir.path(), "adit0").unwrap();
        journal.record(rule()).unwrap();
        assert_eq!(fs::metadata(journal.path()).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        journal.remove().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_second_journal_for_a_tunnel_is_refused_and_names_the_owner() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Journal::create(dir.path(), "adit0").unwrap();
        first.record(rule()).unwrap();
        match Journal::create(dir.path(), "adit0") {
            Err(JournalError::Exists { pid, alive, .. }) => assert_eq!((pid, alive), (std::process::id(), true)),
            other => panic!("{other:?}"),
        }
        assert_eq!(Journal::load(dir.path(), "adit0").unwrap().unwrap().entries(), [rule()]);
    }

    #[test]
    fn a_failed_write_leaves_the_journal_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(&dir.path().join("gone"), "adit0").unwrap();
        journal.record(rule()).unwrap();
        fs::remove_dir_all(dir.path().join("gone")).unwrap();
        assert!(matches!(journal.record(route("10.0.0.0/8")), Err(JournalError::Io { .. })));
        assert_eq!(journal.entries(), [rule()]);
        journal.remove().unwrap();
    }

    #[test]
    fn damaged_and_newer_files_are_errors_and_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("adit0.journal");
        for (text, expected) in [
            ("", "damaged"),
            ("{\"format\":2", "damaged"),
            ("[]", "damaged"),
            ("{\"format\":2,\"tunnel\":\"adit0\"}", "missing field"),
            ("{\"format\":3,\"shape\":\"unknown\"}", "has format 3, this program knows format 2"),
            (
                "{\"format\":2,\"tunnel\":\"other\",\"owner\":{\"pid\":1},\"entries\":[]}",
                "it is the journal of tunnel `other`",
            ),
            (
                "{\"format\":2,\"tunnel\":\"adit0\",\"owner\":{\"pid\":1},\"entries\":[{\"change\":\"moon\"}]}",
                "unknown variant `moon`",
            ),
        ] {
            fs::write(&path, text).unwrap();
            let error = Journal::load(dir.path(), "adit0").unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert!(Journal::create(dir.path(), "adit0").is_err());
        }
    }

    #[test]
    fn an_adopted_journal_belongs_to_the_process_that_took_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(dir.path(), "adit0").unwrap();
        let text = fs::read_to_string(journal.path()).unwrap();
        let pid = format!("\"pid\":{}", std::process::id());
        fs::write(journal.path(), text.replace(&pid, "\"pid\":4194305")).unwrap();
        journal = Journal::load(dir.path(), "adit0").unwrap().unwrap();
        assert!(!journal.owner_alive());
        journal.adopt().unwrap();
        assert!(Journal::load(dir.path(), "adit0").unwrap().unwrap().owner_alive());
    }

    #[test]
    fn journals_are_listed_by_name() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Journal::list(&dir.path().join("none")).unwrap().is_empty());
        for name in ["wg1", "adit0"] {
            Journal::create(dir.path(), name).unwrap();
        }
        fs::write(dir.path().join("adit0.sock"), "").unwrap();
        assert_eq!(Journal::list(dir.path()).unwrap(), ["adit0", "wg1"]);
        assert!(Journal::load(dir.path(), "wg2").unwrap().is_none());
    }

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["", ".", "..", "../x", "a/b", "sixteen-bytes-xx", "a b", "a\n"] {
            assert!(matches!(Journal::create(dir.path(), name), Err(JournalError::Name { .. })), "{name:?}");
        }
    }

    #[test]
    fn a_parameter_that_another_tunnel_changed_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let sysctl = Sysctl { path: "/proc/sys/net/x".into(), former: "0".into(), value: "1".into() };
        let mut first = Journal::create(dir.path(), "adit0").unwrap();
        first.record(Entry::Sysctl(sysctl.clone())).unwrap();
        assert_eq!(first.sysctl_of_another(&sysctl.path), None);
        let second = Journal::create(dir.path(), "adit1").unwrap();
        assert_eq!(second.sysctl_of_another(&sysctl.path), Some(sysctl));
        assert_eq!(second.sysctl_of_another("/proc/sys/net/y"), None);
    }
}
