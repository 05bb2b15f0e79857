//! The one UAPI exchange that a benchmark takes: an engine gets its key and its peer (wireguard.com/xplatform).

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use adit_core::{PrivateKey, PublicKey};
use ipnet::IpNet;
use zeroize::Zeroizing;

/// What an engine is told.
pub(super) struct Setup {
    pub(super) private_key: PrivateKey,
    pub(super) listen_port: u16,
    pub(super) peer: PublicKey,
    pub(super) endpoint: SocketAddr,
    pub(super) allowed: Vec<IpNet>,
}

impl Setup {
    fn request(&self) -> Zeroizing<String> {
        let key = Zeroizing::new(self.private_key.to_hex());
        let mut text = Zeroizing::new(String::with_capacity(1024));
        text.push_str("set=1\nprivate_key=");
        text.push_str(&key);
        let peer = self.peer.to_hex();
        text.push_str(&format!("\nlisten_port={}\nreplace_peers=true\npublic_key={peer}\n", self.listen_port));
        text.push_str(&format!("endpoint={}\nreplace_allowed_ips=true\n", self.endpoint));
        for net in &self.allowed {
            text.push_str(&format!("allowed_ip={net}\n"));
        }
        text.push('\n');
        text
    }

    /// Tells an engine, in the file system of the calling thread.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] and [`io::ErrorKind::ConnectionRefused`] while nobody listens; an answer that is not
    /// `errno=0`, or none in time.
    pub(super) fn tell(&self, socket: &Path) -> io::Result<()> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        stream.write_all(self.request().as_bytes())?;
        let mut reply = Vec::new();
        let mut buffer = [0; 256];
        while !reply.ends_with(b"\n\n") && reply.len() < MAX_REPLY {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => reply.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"));
                }
                Err(error) => return Err(error),
            }
        }
        accepted(&String::from_utf8_lossy(&reply))
    }
}

/// Reads an answer.
fn accepted(reply: &str) -> io::Result<()> {
    match reply.lines().find_map(|line| line.strip_prefix("errno=")) {
        Some("0") => Ok(()),
        Some(errno) => Err(io::Error::other(format!("it refused its configuration with errno {errno}"))),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "its answer on the UAPI socket has no errno")),
    }
}

/// Engines answer from memory.
const LIMIT: Duration = Duration::from_secs(3);

/// An answer to `set` is one line.
const MAX_REPLY: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_what_the_protocol_wants() {
        let other = PrivateKey::from_bytes([9; 32]).public_key();
        let setup = Setup {
            private_key: PrivateKey::from_bytes([8; 32]),
            listen_port: 51820,
            peer: other,
            endpoint: "[2001:db8::2]:51821".parse().unwrap(),
            allowed: vec!["10.77.0.2/32".parse().unwrap(), "fd77::2/128".parse().unwrap()],
        };
        let private = "08".repeat(32);
        let wanted = format!(
            "set=1\nprivate_key={private}\nlisten_port=51820\nreplace_peers=true\npublic_key={}\n\
             endpoint=[2001:db8::2]:51821\nreplace_allowed_ips=true\nallowed_ip=10.77.0.2/32\nallowed_ip=fd77::2/128\n\n",
            other.to_hex()
        );
        // Clamping (RFC 7748) leaves this key as it is but for its last byte.
        let request = setup.request();
        let clamped = request.replacen(&setup.private_key.to_hex(), &private, 1);
        assert_eq!(clamped, wanted);
    }

    #[test]
    fn only_errno_0_is_success() {
        assert!(accepted("errno=0\n\n").is_ok());
        assert!(accepted("errno=-22\n\n").unwrap_err().to_string().contains("errno -22"));
        assert!(accepted("").unwrap_err().to_string().contains("no errno"));
        assert!(accepted("xerrno=0\n\n").is_err());
    }
}
