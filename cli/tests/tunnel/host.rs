//! A host to break things on: a namespace with an underlay, a configuration file, and a look at all that may change.
//!
//! Dropping it ends what runs in the namespace and removes the files that a tunnel of its name leaves in shared folders.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use adit_tests::process::{self, Finished};
use adit_tests::{Namespace, Process, names, wg};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// The command under test.
pub(crate) const ADIT: &str = env!("CARGO_BIN_EXE_adit");

/// How long a command may take that is expected to end.
pub(crate) const LIMIT: Duration = Duration::from_secs(40);

/// A public key that nobody has the private key of.
pub(crate) const STRANGER: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

pub(crate) struct Host {
    namespace: Option<Namespace>,
    folder: tempfile::TempDir,
    pub(crate) name: String,
    pub(crate) key: adit_core::PrivateKey,
    /// Another key that the interface may be given.
    pub(crate) other_key: adit_core::PrivateKey,
}

impl Host {
    pub(crate) fn new(label: &str) -> Result<Self> {
        let namespace = Namespace::new(label)?;
        namespace.ip("link add under0 type veth peer name under1")?;
        for link in ["under0", "under1"] {
            namespace.ip(&format!("link set {link} up"))?;
        }
        namespace.ip("addr add 198.51.100.1/24 dev under0")?;
        namespace.ip("route add default via 198.51.100.254")?;
        Self::within(namespace)
    }

    /// A host in a namespace that has its underlay already.
    pub(crate) fn within(namespace: Namespace) -> Result<Self> {
        Ok(Self {
            namespace: Some(namespace),
            folder: tempfile::tempdir()?,
            name: names::link("cli"),
            key: wg::private_key()?,
            other_key: wg::private_key()?,
        })
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        self.namespace.as_ref().expect("only dropping takes it")
    }

    /// `adit ARGS` in the namespace.
    pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.namespace().command(ADIT);
        command.args(args).env_remove("ADIT_LOG");
        command
    }

    /// `adit WORDS` in the namespace, to its end.
    pub(crate) fn adit(&self, words: &str) -> Result<Finished> {
        process::finish(&mut self.command(words.split_whitespace()), "", LIMIT)
    }

    /// `adit up` with the host's file and more options, to its end.
    pub(crate) fn up(&self, options: &str) -> Result<Finished> {
        let mut command = self.command(["up"]);
        if !options.contains("--handshake-wait") {
            command.args(["--handshake-wait", "0"]);
        }
        command.args(options.split_whitespace()).arg(self.file());
        process::finish(&mut command, "", LIMIT)
    }

    /// `adit up --foreground` with the host's file and more options.
    pub(crate) fn foreground(&self, options: &str) -> Result<Process> {
        let mut command = self.command(["up", "--foreground", "--handshake-wait", "0"]);
        Process::start("adit up", command.args(options.split_whitespace()).arg(self.file()))
    }

    /// The tunnel's file.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join(format!("{}.conf", self.name))
    }

    /// A path beside the tunnel's file.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the tunnel's file: the private key and these lines.
    pub(crate) fn write(&self, lines: &str) -> Result<()> {
        self.write_raw(&format!("[Interface]\nPrivateKey = {}\n{lines}\n", self.key.to_base64()))
    }

    pub(crate) fn write_raw(&self, text: &str) -> Result<()> {
        fs::write(self.file(), text)?;
        fs::set_permissions(self.file(), fs::Permissions::from_mode(0o600))?;
        Ok(())
    }

    /// `adit status NAME --json`.
    pub(crate) fn status(&self) -> Result<Value> {
        let text = self.adit(&format!("status {} --json", self.name))?.success()?;
        serde_json::from_str(&text).with_context(|| text)
    }

    /// The tunnel's process.
    pub(crate) fn pid(&self) -> Result<u32> {
        let pid = self.status()?["pid"].as_u64().context("pid")?;
        Ok(u32::try_from(pid)?)
    }

    /// The default log.
    pub(crate) fn log(&self) -> PathBuf {
        format!("/run/adit/{}.log", self.name).into()
    }

    /// Everything that a tunnel may change.
    pub(crate) fn snapshot(&self) -> Result<String> {
        let mut all = String::new();
        for words in ["-o link", "-o addr", "-4 rule", "-6 rule", "-4 route show table all", "-6 route show table all"]
        {
            writeln!(all, "ip {words}:\n{}", self.namespace().ip(words)?)?;
        }
        let sysctl = "/proc/sys/net/ipv4/conf/all/src_valid_mark";
        writeln!(all, "{sysctl}: {}", self.namespace().enter(|| fs::read_to_string(sysctl))??)?;
        for file in self.shared_files().into_iter().filter(|file| *file != self.log()) {
            writeln!(all, "{}", file.display())?;
        }
        let processes: Vec<u32> = self.namespace().pids()?;
        writeln!(all, "processes: {processes:?}")?;
        Ok(all)
    }

    /// Fails unless everything is as it was `before`. The kernel may take a moment to remove a device.
    pub(crate) fn assert_as_before(&self, before: &str, what: &str) -> Result<()> {
        let mut now = String::new();
        let same = adit_tests::eventually("nothing to be left", Duration::from_secs(3), || {
            now = self.snapshot().unwrap_or_default();
            now == before
        });
        ensure!(same.is_ok(), "{what}\n--- before\n{before}\n--- after\n{now}");
        Ok(())
    }

    /// What is in shared folders under the tunnel's name.
    fn shared_files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for folder in ["/run/adit", "/var/run/wireguard"] {
            let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
            let prefix = format!("{}.", self.name);
            found.extend(files.filter(|path| name_of(path).starts_with(&prefix)));
        }
        found.sort();
        found
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.namespace.take());
        for file in self.shared_files() {
            let _ = fs::remove_file(file);
        }
        for key in [&self.key, &self.other_key] {
            let _ = fs::remove_file(format!("/var/lib/adit/{}.timestamp", key.public_key().to_hex()));
        }
    }
}

/// Fails unless a program ended with `code` and said `text` on standard error.
pub(crate) fn assert_failed(run: &Finished, code: i32, text: &str) {
    assert_eq!(run.status.code(), Some(code), "{run:#?}");
    assert!(run.stderr.contains(text), "«{text}» expected: {run:#?}");
    assert_eq!(run.stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "one error, once: {run:#?}");
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}
