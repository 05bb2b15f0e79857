//! `genkey`, `genpsk` and `pubkey`, as wg(8) has them.

use std::io::{self, IsTerminal, Read, Write};

use adit_core::{PresharedKey, PrivateKey};
use zeroize::Zeroizing;

use crate::failure::{Failure, Outcome, tell};

/// Longer input than this is no key.
const MAX_INPUT: u64 = 4096;

/// Prints a new private key.
pub(crate) fn genkey() -> Outcome {
    print_secret(&PrivateKey::from_bytes(*random()?).to_base64())
}

/// Prints a new preshared key.
pub(crate) fn genpsk() -> Outcome {
    print_secret(&PresharedKey::from_bytes(*random()?).to_base64())
}

/// Reads a private key and prints its public key.
pub(crate) fn pubkey() -> Outcome {
    let mut text = Zeroizing::new(String::new());
    io::stdin()
        .take(MAX_INPUT)
        .read_to_string(&mut text)
        .map_err(|error| Failure::failed(format!("standard input: {error}")))?;
    let key: PrivateKey =
        text.parse().map_err(|error| Failure::failed(format!("standard input: a private key is expected: {error}")))?;
    writeln!(io::stdout(), "{}", key.public_key())?;
    Ok(())
}

/// Fresh random bytes of the operating system.
pub(crate) fn random() -> Outcome<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut_slice())
        .map_err(|error| Failure::failed(format!("the system gives no random bytes: {error}")))?;
    Ok(bytes)
}

fn print_secret(key: &str) -> Outcome {
    warn_if_world_readable();
    writeln!(io::stdout(), "{key}")?;
    Ok(())
}

/// Warns when standard output is a file that everybody may read, as wg(8) does.
fn warn_if_world_readable() {
    use std::os::fd::AsFd;
    if io::stdout().is_terminal() {
        return;
    }
    let Ok(stat) = nix::sys::stat::fstat(io::stdout().as_fd()) else { return };
    let mode = nix::sys::stat::Mode::from_bits_truncate(stat.st_mode);
    let is_file = nix::sys::stat::SFlag::from_bits_truncate(stat.st_mode & nix::sys::stat::SFlag::S_IFMT.bits())
        == nix::sys::stat::SFlag::S_IFREG;
    if is_file && mode.intersects(nix::sys::stat::Mode::S_IRWXO) {
        tell("Warning: writing to a world accessible file. Consider setting the umask to 077.");
    }
}
