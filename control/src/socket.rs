//! The control sockets' common ground: a Unix socket that nobody but its owner and root can ever connect to.
//!
//! A listener is bound inside a fresh directory of mode 0700, given mode 0600 there and only then linked under its
//! public name, so there is no moment at which the process's umask decides who may connect. The name of a dead process
//! is taken over, the name of a living one is an error. It refuses to work in a directory that others may write to:
//! they could put a socket of their own in the place of ours and be handed private keys.

pub mod client;
pub(crate) mod lines;

use std::convert::Infallible;
use std::fs::{self, DirBuilder, Permissions};
use std::future::Future;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::scratch;

/// Why a control socket could not be bound.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The name cannot be an interface's.
    #[error(
        "«{name}» cannot be an interface name: those have 1 to 15 bytes, without «/», «:», blanks and control characters"
    )]
    Name {
        /// What was asked for.
        name: String,
    },
    /// A living process answers there.
    #[error("{}: already in use by a running tunnel", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is no socket has the name, and removing it might lose a file.
    #[error("{}: exists and is not a socket; move it away", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// Others than root and the own user can replace files in the directory.
    #[error(
        "{}: owned by uid {owner} with mode {mode:04o}, so others can replace sockets in it; it must belong to root or to uid {own} and be writable by its owner only",
        path.display()
    )]
    UnsafeDirectory {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its permission bits.
        mode: u32,
        /// The user that this process acts for.
        own: u32,
    },
    /// The operating system refused a step.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The step, as a verb with its object.
        action: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// A listening socket `DIR/NAME.sock` of mode 0600; its file is removed when this is dropped.
#[derive(Debug)]
pub struct PrivateListener {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of our socket, so that nobody else's is removed in its place.
    identity: (u64, u64),
    /// The user that the socket file belongs to, which is the user that this process acts for.
    owner: u32,
}

impl PrivateListener {
    /// Makes `dir` if it is missing (mode 0755, as wireguard-go does) and listens on `dir/name.sock`.
    ///
    /// Must be called within a tokio runtime with I/O enabled.
    ///
    /// # Errors
    /// [`SocketError`]; nothing is left behind then, except for the directory.
    pub async fn bind(dir: &Path, name: &str) -> Result<Self, SocketError> {
        let path = socket_path(dir, name)?;
        DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(|e| failed("make the directory", dir, e))?;

        scratch::sweep(dir);
        let nursery = scratch::dir_in(dir).map_err(|e| failed("make a private directory in it", dir, e))?;
        let born = nursery.path().join("s");
        let listener = UnixListener::bind(&born).map_err(|e| failed("bind a socket", &path, e))?;
        fs::set_permissions(&born, Permissions::from_mode(0o600)).map_err(|e| failed("set the mode", &path, e))?;
        let meta = fs::symlink_metadata(&born).map_err(|e| failed("inspect the new socket", &path, e))?;
        refuse_unsafe(dir, meta.uid())?;

        publish(&born, &path).await?;
        Ok(Self { listener, path, identity: (meta.dev(), meta.ino()), owner: meta.uid() })
    }

    /// Where clients connect.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for a client that is root or the own user; others are turned away. The file mode keeps them out already,
    /// this is for a descriptor or a mode that was changed behind our back.
    ///
    /// # Errors
    /// Those of accept(2).
    pub async fn accept(&self) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == 0 || peer.uid() == self.owner => return Ok(stream),
                Ok(peer) => tracing::warn!(uid = peer.uid(), "turned a client away from the control socket"),
                Err(error) => tracing::debug!(%error, "a client left before it was known who it is"),
            }
        }
    }

    /// Hands every client to `connection`, at most `limit` at a time; more of them wait in the kernel's queue. Ends
    /// only by being dropped, and ends the connections then.
    pub async fn serve<F, C>(&self, limit: usize, connection: F) -> Infallible
    where
        F: Fn(UnixStream) -> C,
        C: Future<Output = ()> + Send + 'static,
    {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                Some(ended) = connections.join_next() => if let Err(error) = ended {
                    tracing::error!(%error, "a control connection ended abnormally");
                },
                accepted = self.accept(), if connections.len() < limit => match accepted {
                    Ok(stream) => {
                        connections.spawn(connection(stream));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a control connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }
}

impl Drop for PrivateListener {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the control socket");
        }
    }
}

/// Where the socket of interface `name` is in `dir`.
///
/// # Errors
/// [`SocketError::Name`] for what cannot be an interface name, [`SocketError::Io`] for a path that is longer than a
/// socket address can hold (unix(7): 108 bytes on Linux, 104 on macOS).
pub fn socket_path(dir: &Path, name: &str) -> Result<PathBuf, SocketError> {
    let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.len() > MAX_NAME || name.contains(odd) || name == "." || name == ".." {
        return Err(SocketError::Name { name: name.chars().take(64).collect() });
    }
    let path = dir.join(format!("{name}{SUFFIX}"));
    std::os::unix::net::SocketAddr::from_pathname(&path).map_err(|e| failed("use it as a socket address", &path, e))?;
    Ok(path)
}

/// The interfaces whose sockets in `dir` have a living process behind them, sorted; a missing directory has none.
///
/// Sockets that may not be connected to count as alive, as they do for wg(8).
///
/// # Errors
/// The directory cannot be read.
pub async fn list(dir: &Path) -> io::Result<Vec<String>> {
    let mut alive = Vec::new();
    for name in names(dir)? {
        if let Ok(path) = socket_path(dir, &name)
            && is_alive(&path).await
        {
            alive.push(name);
        }
    }
    Ok(alive)
}

/// The interfaces that have a socket in `dir`, whether anybody is behind it or not, sorted; a missing directory has none.
///
/// # Errors
/// The directory cannot be read.
pub fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let file = entry?.file_name();
        let Some(name) = file.to_str().and_then(|file| file.strip_suffix(SUFFIX)) else { continue };
        let Ok(path) = socket_path(dir, name) else { continue };
        if fs::metadata(&path).is_ok_and(|meta| meta.file_type().is_socket()) {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes the socket of interface `name` in `dir` if nobody listens there any more.
///
/// # Errors
/// [`SocketError`]; it is none if there is no such socket.
pub async fn remove_dead(dir: &Path, name: &str) -> Result<(), SocketError> {
    let path = socket_path(dir, name)?;
    remove_dead_at(&path).await.map_err(|error| failed("remove the socket of a process that is gone", &path, error))
}

/// Gives a file a name, unless it is taken: a link does that, unlike a rename.
#[cfg(not(target_os = "macos"))]
fn give_name(born: &Path, path: &Path) -> io::Result<()> {
    fs::hard_link(born, path)
}

/// Gives a file a name, unless it is taken. Nobody says that APFS makes links to sockets, but renames can be exclusive
/// (renameatx_np(2)).
#[cfg(target_os = "macos")]
fn give_name(born: &Path, path: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, born, CWD, path, RenameFlags::NOREPLACE)?)
}

/// Gives the socket at `born` its public name.
async fn publish(born: &Path, path: &Path) -> Result<(), SocketError> {
    // It fails if the name is taken, so that of two processes only one can win.
    for _ in 0..PUBLISH_ATTEMPTS {
        match give_name(born, path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("link the socket to its name", path, error));
            }
            Err(_) => {}
        }
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed("inspect what is there", path, error)),
            Ok(meta) if !meta.file_type().is_socket() => {
                return Err(SocketError::NotASocket { path: path.to_owned() });
            }
            Ok(_) => {}
        }
        if is_alive(path).await {
            return Err(SocketError::InUse { path: path.to_owned() });
        }
        tracing::info!(path = %path.display(), "replacing the socket of a process that is gone");
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove the socket of a process that is gone", path, error));
            }
            _ => {}
        }
    }
    Err(SocketError::InUse { path: path.to_owned() })
}

/// Removes the socket at `path` if nobody listens there; anything else that has the name by now is left alone.
///
/// # Errors
/// The file cannot be inspected or removed.
pub(crate) async fn remove_dead_at(path: &Path) -> io::Result<()> {
    let gone = |error: io::Error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Ok(()),
        Ok(_) if is_alive(path).await => Ok(()),
        Ok(_) => fs::remove_file(path).or_else(gone),
        Err(error) => gone(error),
    }
}

/// Whether somebody listens at `path`. Only a refused connection is proof of the contrary.
async fn is_alive(path: &Path) -> bool {
    match UnixStream::connect(path).await {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound),
    }
}

fn refuse_unsafe(dir: &Path, own: u32) -> Result<(), SocketError> {
    let meta = fs::metadata(dir).map_err(|e| failed("inspect the directory", dir, e))?;
    let (owner, mode) = (meta.uid(), meta.mode() & 0o7777);
    if (owner == 0 || owner == own) && mode & 0o022 == 0 {
        return Ok(());
    }
    Err(SocketError::UnsafeDirectory { path: dir.to_owned(), owner, mode, own })
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> SocketError {
    SocketError::Io { action, path: path.to_owned(), source }
}

/// What the files of control sockets end with; wg(8) looks for it (ipc-uapi-unix.h, SOCK_SUFFIX).
const SUFFIX: &str = ".sock";

/// Longest interface name in bytes: IFNAMSIZ less its NUL (linux/if.h, net/if.h).
const MAX_NAME: usize = 15;

/// How often the name may be snatched away between looking and linking before it counts as taken.
const PUBLISH_ATTEMPTS: usize = 3;

/// Pause after a failed accept(2), which mostly means that descriptors ran out: without it the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn private_dir() -> tempfile::TempDir {
        tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap()
    }

    fn entries(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn the_socket_is_private_alone_and_gone_after_drop() {
        let dir = private_dir();
        let deeper = dir.path().join("wireguard");
        let listener = PrivateListener::bind(&deeper, "adit0").await.unwrap();
        assert_eq!(entries(&deeper), ["adit0.sock"]);
        assert_eq!(fs::metadata(listener.path()).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(list(&deeper).await.unwrap(), ["adit0"]);
        drop(listener);
        assert!(entries(&deeper).is_empty());
    }

    #[tokio::test]
    async fn a_living_socket_is_in_use_and_stays() {
        let dir = private_dir();
        let first = PrivateListener::bind(dir.path(), "adit0").await.unwrap();
        let error = PrivateListener::bind(dir.path(), "adit0").await.unwrap_err();
        assert!(error.to_string().ends_with("adit0.sock: already in use by a running tunnel"), "{error}");
        assert_eq!(entries(dir.path()), ["adit0.sock"]);
        let (client, server) = tokio::join!(UnixStream::connect(first.path()), first.accept());
        assert!(client.is_ok() && server.is_ok());
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced() {
        let dir = private_dir();
        // The standard library leaves the file behind, as a killed process does.
        drop(std::os::unix::net::UnixListener::bind(dir.path().join("adit0.sock")).unwrap());
        assert!(list(dir.path()).await.unwrap().is_empty());
        let listener = PrivateListener::bind(dir.path(), "adit0").await.unwrap();
        assert!(is_alive(listener.path()).await);
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_kept() {
        let dir = private_dir();
        fs::write(dir.path().join("adit0.sock"), "precious").unwrap();
        let error = PrivateListener::bind(dir.path(), "adit0").await.unwrap_err();
        assert!(matches!(error, SocketError::NotASocket { .. }), "{error}");
        assert_eq!(fs::read_to_string(dir.path().join("adit0.sock")).unwrap(), "precious");
        assert_eq!(entries(dir.path()), ["adit0.sock"]);
    }

    #[tokio::test]
    async fn dropping_spares_the_socket_of_a_successor() {
        let dir = private_dir();
        let first = PrivateListener::bind(dir.path(), "adit0").await.unwrap();
        fs::remove_file(first.path()).unwrap();
        let second = PrivateListener::bind(dir.path(), "adit0").await.unwrap();
        drop(first);
        assert!(is_alive(second.path()).await);
    }

    #[tokio::test]
    async fn a_directory_that_others_write_to_is_refused() {
        let dir = private_dir();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        let error = PrivateListener::bind(dir.path(), "adit0").await.unwrap_err();
        assert!(matches!(error, SocketError::UnsafeDirectory { mode: 0o777, .. }), "{error}");
        assert!(entries(dir.path()).is_empty());
    }

    #[test]
    fn names_that_are_no_interfaces_are_refused() {
        for name in ["", ".", "..", "a/b", "a b", "a:b", "a\nb", "sixteen-bytes-xx"] {
            assert!(matches!(socket_path(Path::new("/run"), name), Err(SocketError::Name { .. })), "{name:?}");
        }
        assert_eq!(socket_path(Path::new("/run/wireguard"), "wg0").unwrap(), Path::new("/run/wireguard/wg0.sock"));
        let deep = PathBuf::from("/").join("d".repeat(104));
        assert!(matches!(socket_path(&deep, "wg0"), Err(SocketError::Io { .. })));
    }
}
