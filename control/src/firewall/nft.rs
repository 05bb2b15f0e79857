//! Runs `nft`, the program through which nftables is configured, with JSON (libnftables-json(5)) in and out.
//!
//! `nft` works in the network namespace of the thread that starts it, so this has to be called on a runtime of one thread.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nftables::batch::Batch;
use nftables::schema::{NfListObject, Nftables};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::{Firewall, FirewallError, KillSwitch, ruleset};

/// Applies a ruleset as one transaction.
pub(super) async fn run(ruleset: &Nftables<'_>, action: &str) -> Result<(), FirewallError> {
    nft(&["-f", "-"], &to_json(ruleset, action)?, action).await.map(drop)
}

pub(super) async fn check() -> Result<(), FirewallError> {
    let everything = Firewall {
        ifname: "check".into(),
        fwmark: 1,
        addresses: Vec::new(),
        reply_protection: false,
        kill_switch: Some(KillSwitch { excluded: Vec::new(), local: Vec::new(), no_local_dns: false }),
    };
    let action = "use the firewall";
    nft(&["-c", "-f", "-"], &to_json(&ruleset(&everything), action)?, action).await.map(drop)
}

pub(super) async fn remove(ifname: &str) -> Result<(), FirewallError> {
    let table = NfListObject::Table(ruleset::table(ifname));
    let mut batch = Batch::new();
    batch.add(table.clone());
    batch.delete(table);
    run(&batch.to_nftables(), &format!("remove the firewall of {ifname}")).await
}

pub(super) async fn exists(ifname: &str) -> Result<bool, FirewallError> {
    let wanted = super::table_name(ifname);
    Ok(tables().await?.contains(&wanted))
}

/// The names of all tables of the family `inet`.
pub(super) async fn tables() -> Result<Vec<String>, FirewallError> {
    let action = "list the firewall's tables";
    let answer = nft(&["list", "tables", "inet"], &[], action).await?;
    let listing: Listing = serde_json::from_slice(&answer)
        .map_err(|error| FirewallError::Answer { action: action.to_owned(), message: error.to_string() })?;
    Ok(listing.nftables.into_iter().filter_map(|object| object.table).map(|table| table.name).collect())
}

/// A tunnel's name must not mean anything to nftables, in whose JSON `@NAME` is a set and `NAME*` any interface.
pub(super) fn check_name(ifname: &str) -> Result<(), FirewallError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_=+.-".contains(&byte);
    let valid = (1..=15).contains(&ifname.len()) && ifname.bytes().all(allowed) && ifname != "." && ifname != "..";
    if valid { Ok(()) } else { Err(FirewallError::Name { name: ifname.to_owned() }) }
}

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    table: Option<ListedTable>,
}

#[derive(Deserialize)]
struct ListedTable {
    name: String,
}

fn to_json(ruleset: &Nftables<'_>, action: &str) -> Result<Vec<u8>, FirewallError> {
    serde_json::to_vec(ruleset)
        .map_err(|error| FirewallError::Refused { action: action.to_owned(), message: error.to_string() })
}

async fn nft(arguments: &[&str], input: &[u8], action: &str) -> Result<Vec<u8>, FirewallError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = find(&path).ok_or(FirewallError::NoProgram)?;
    let failed = |source| FirewallError::Run { program: program.clone(), source };
    let mut child = Command::new(&program)
        .arg("-j")
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let (mut stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(stdin) = &mut stdin {
            // A program that ends early says why on stderr.
            let _broken_pipe = stdin.write_all(input).await;
        }
        drop(stdin);
    };
    let work = async { tokio::join!(feed, read(stdout), read(stderr), child.wait()) };
    let (_, output, complaint, status) = tokio::time::timeout(LIMIT, work)
        .await
        .map_err(|_| FirewallError::Timeout { action: action.to_owned(), limit: LIMIT })?;
    if status.map_err(failed)?.success() {
        return output.map_err(failed);
    }
    Err(refusal(action, &String::from_utf8_lossy(&complaint.unwrap_or_default())))
}

async fn read(pipe: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(MAX_OUTPUT).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

fn refusal(action: &str, complaint: &str) -> FirewallError {
    let action = action.to_owned();
    let message = complaint.trim().to_owned();
    // A listing that is not permitted fails without a word.
    let unprivileged = message.is_empty() && !nix::unistd::geteuid().is_root();
    if unprivileged || message.contains("Operation not permitted") {
        FirewallError::Permission { action }
    } else if ["not supported", "No such file or directory"].iter().any(|sign| message.contains(sign)) {
        FirewallError::Kernel { action, message }
    } else {
        FirewallError::Refused { action, message }
    }
}

fn find(path: &OsStr) -> Option<PathBuf> {
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .chain(usual)
        .map(|folder| folder.join("nft"))
        .find(|program| is_executable(program))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

const LIMIT: Duration = Duration::from_secs(5);
const MAX_OUTPUT: u64 = 64 << 20;
