//! What README.md shows of `adit explain` is what it prints: each block's tunnel is brought up from examples/ on a host at
//! 192.168.1.20, and its commands are run.

use std::path::Path;

use adit_tests::{Namespace, process};
use anyhow::{Context as _, Result, ensure};

use crate::host::{ADIT, Host, LIMIT};

const SECTION: &str = "## Why did my packet go there?";

/// A command and what follows it in the block.
struct Shown {
    words: Vec<String>,
    output: String,
}

/// The console blocks of the section.
fn blocks() -> Result<Vec<Vec<Shown>>> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md"))?;
    let section = readme.split_once(SECTION).context("the section is gone")?.1;
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut blocks = Vec::new();
    for block in section.split("```console\n").skip(1) {
        let mut commands: Vec<Shown> = Vec::new();
        for line in block.split("```").next().unwrap_or_default().lines() {
            match line.strip_prefix("$ ") {
                Some(command) => {
                    let command = command.split(" #").next().unwrap_or_default();
                    let words = command.split_whitespace().filter(|word| *word != "sudo").map(str::to_owned).collect();
                    commands.push(Shown { words, output: String::new() });
                }
                None => commands.last_mut().context("a block begins with a command")?.output += &format!("{line}\n"),
            }
        }
        blocks.push(commands);
    }
    Ok(blocks)
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn the_explanations_in_it_are_real() -> Result<()> {
    let mut explained = Vec::new();
    for commands in blocks()? {
        let last = commands.last().context("a block has commands")?;
        let example = last.words.last().context("a command has words")?.clone();
        let host = host(&example)?;
        for Shown { words, output } in commands {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let found = match words.as_slice() {
                ["adit", args @ .., tunnel] if *tunnel == example => {
                    let run = process::finish(&mut host.command(args.iter().chain([&host.name.as_str()])), "", LIMIT)?;
                    run.stdout + &run.stderr
                }
                ["ip", args @ ..] => host.namespace().ip(&args.join(" "))?,
                other => anyhow::bail!("not a command that this test knows: {other:?}"),
            };
            assert_eq!(found.replace(&host.name, &example), output, "README.md: {}", words.join(" "));
        }
        explained.push(example);
    }
    for example in ["full", "split-include", "split-exclude"] {
        ensure!(explained.iter().any(|name| name == example), "{example} is not explained");
    }
    Ok(())
}

/// A host with one of examples/ up.
fn host(example: &str) -> Result<Host> {
    let namespace = Namespace::new("readme")?;
    namespace.ip("link add eth0 type veth peer name far0")?;
    for words in [
        "link set eth0 up",
        "link set far0 up",
        "addr add 192.168.1.20/24 dev eth0",
        "route add default via 192.168.1.1",
    ] {
        namespace.ip(words)?;
    }
    let host = Host::within(namespace)?;
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    host.write_raw(&std::fs::read_to_string(examples.join(format!("{example}.conf")))?)?;
    let hosts = host.path("hosts");
    std::fs::write(&hosts, "192.0.2.10 vpn.example.com\n")?;
    let mut command = host.namespace().command("unshare");
    command.args(["--mount", "sh", "-c", r#"mount --bind "$0" /etc/hosts && exec "$@""#]).arg(&hosts);
    command.args([ADIT, "up", "--handshake-wait", "0"]).arg(host.file());
    process::finish(&mut command, "", LIMIT)?.success()?;
    Ok(host)
}
