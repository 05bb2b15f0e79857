//! The addresses that a tunnel's endpoints resolved to last, kept over restarts.
//!
//! A kill switch stays closed when a tunnel crashes, and then lets no question to a DNS server out either: without what is
//! kept here a tunnel whose endpoint is a name could never come back by itself. An old address can do no harm but be of no
//! use, for the peer has to prove who it is.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::config::Endpoint;
use crate::scratch;

/// The last addresses of one tunnel's endpoints.
#[derive(Debug, Default)]
pub(crate) struct LastAddresses {
    path: Option<PathBuf>,
    known: BTreeMap<String, SocketAddr>,
}

impl LastAddresses {
    /// Reads what is kept for a tunnel; what is damaged counts as nothing.
    pub(crate) fn load(dir: &Path, tunnel: &str) -> Self {
        let path = path(dir, tunnel);
        let read = |path: &PathBuf| -> io::Result<BTreeMap<String, SocketAddr>> {
            let mut text = Vec::new();
            std::fs::File::open(path)?.take(MAX_SIZE).read_to_end(&mut text)?;
            Ok(serde_json::from_slice(&text)?)
        };
        let known = path.as_ref().map(read).and_then(|known| match known {
            Ok(known) => Some(known),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::debug!(%error, "the endpoints' last addresses cannot be read");
                }
                None
            }
        });
        Self { path, known: known.unwrap_or_default() }
    }

    /// The address of an endpoint, which is a name.
    pub(crate) fn get(&self, endpoint: &Endpoint) -> Option<SocketAddr> {
        self.known.get(&endpoint.to_string()).copied()
    }

    /// Keeps these addresses, and no others. That this fails is no reason not to have a tunnel.
    pub(crate) fn store(self, addresses: &HashMap<Endpoint, SocketAddr>) {
        let Some(path) = &self.path else { return };
        let addresses: BTreeMap<_, _> = addresses.iter().map(|(name, address)| (name.to_string(), *address)).collect();
        if addresses == self.known {
            return;
        }
        let write = || -> io::Result<()> {
            let dir = path.parent().unwrap_or(Path::new("/"));
            std::fs::create_dir_all(dir)?;
            // It is readable to its owner only, as it shall stay: it says whom the tunnel talks to.
            let mut file = scratch::file_in(dir)?;
            serde_json::to_writer(&mut file, &addresses)?;
            file.flush()?;
            file.persist(path)?;
            Ok(())
        };
        if let Err(error) = write() {
            tracing::debug!(%error, "the endpoints' addresses were not kept");
        }
    }
}

/// Nothing is kept for a tunnel whose name cannot be a part of a file's: it does not start anyway.
fn path(dir: &Path, tunnel: &str) -> Option<PathBuf> {
    (!tunnel.is_empty() && !tunnel.contains('/')).then(|| dir.join(format!("{tunnel}.endpoints.json")))
}

/// Longest file that is read, in bytes: ten thousand names.
const MAX_SIZE: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        text.parse().unwrap()
    }

    fn addresses(of: &[(&str, &str)]) -> HashMap<Endpoint, SocketAddr> {
        of.iter().map(|(name, address)| (endpoint(name), address.parse().unwrap())).collect()
    }

    #[test]
    fn what_was_kept_is_known_again_to_this_tunnel_only() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("not there yet");
        let both = [("vpn.example:51820", "203.0.113.9:51820"), ("six.example:1", "[2001:db8::1]:1")];
        LastAddresses::load(&dir, "adt0").store(&addresses(&both));
        let known = LastAddresses::load(&dir, "adt0");
        for (name, address) in both {
            assert_eq!(known.get(&endpoint(name)), Some(address.parse().unwrap()));
        }
        assert_eq!(known.get(&endpoint("vpn.example:51821")), None, "another port");
        assert_eq!(LastAddresses::load(&dir, "adt1").get(&endpoint("six.example:1")), None);
        let mode = dir.join("adt0.endpoints.json").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        known.store(&addresses(&both[..1]));
        assert_eq!(LastAddresses::load(&dir, "adt0").get(&endpoint("six.example:1")), None, "of interest no more");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn damage_counts_as_nothing_and_is_mended() {
        let folder = tempfile::tempdir().unwrap();
        for damage in ["", "{", "[]", "{\"vpn.example:1\": \"nowhere\"}", "{\"vpn.example:1\": 5}"] {
            std::fs::write(folder.path().join("adt0.endpoints.json"), damage).unwrap();
            let known = LastAddresses::load(folder.path(), "adt0");
            assert_eq!(known.get(&endpoint("vpn.example:1")), None, "{damage}");
            known.store(&addresses(&[("vpn.example:1", "203.0.113.9:1")]));
            assert!(LastAddresses::load(folder.path(), "adt0").get(&endpoint("vpn.example:1")).is_some());
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_and_an_odd_name_do_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        LastAddresses::load(&file, "adt0").store(&addresses(&[("vpn.example:1", "203.0.113.9:1")]));
        for name in ["", "../adt0", "/adt0"] {
            LastAddresses::load(folder.path(), name).store(&addresses(&[("vpn.example:1", "203.0.113.9:1")]));
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
