//! What README.md shows is true: its commands are ones that there are, and its files are ones that Adit takes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot do what it needs has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

const ADIT: &str = env!("CARGO_BIN_EXE_adit");

/// A fenced block: the word after the fence, and the lines up to the next.
struct Block {
    language: String,
    line: usize,
    text: String,
}

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap()
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(language), None) => {
                open = Some(Block { language: language.trim().to_owned(), line: index + 1, text: String::new() });
            }
            (None, Some(block)) => block.text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    blocks
}

/// The simple commands of a block: without prompts, comments, pipes and redirections.
fn commands(block: &Block) -> Vec<Vec<String>> {
    let lines: Vec<&str> = match block.language.as_str() {
        "sh" => block.text.lines().collect(),
        // What follows a prompt; the rest is what the commands print.
        "console" => block.text.lines().filter_map(|line| line.trim_start().strip_prefix(['$', '#'])).collect(),
        _ => Vec::new(),
    };
    let without_comment = |line: &str| line.split(" #").next().unwrap_or_default().to_owned();
    let mut commands = Vec::new();
    for line in lines {
        for part in without_comment(line).split(['|', ';', '&']) {
            let part = part.split(['>', '<']).next().unwrap_or_default();
            let words = shlex::split(part).unwrap_or_else(|| panic!("{part}: a quote is not closed"));
            let words: Vec<String> = words.into_iter().filter(|word| word != "sudo").collect();
            commands.extend((!words.is_empty()).then_some(words));
        }
    }
    commands
}

/// Whether the command line takes these words: asked for help at the end, it still complains about what is wrong.
fn accepts(words: &[String]) -> Result<(), String> {
    let output = Command::new(ADIT).args(words).arg("--help").stdin(Stdio::null()).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
fn the_commands_in_it_are_taken() {
    let mut own = 0;
    for block in blocks(&readme()) {
        for words in commands(&block) {
            let place = || format!("README.md, block at line {}: {}", block.line, words.join(" "));
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let args = match words.as_slice() {
                ["adit", args @ ..] => args,
                ["cargo", "run", "--release", "--", args @ ..] => args,
                // xtask has a test of its own for these.
                ["cargo", "xtask", ..] => continue,
                ["cargo", ..] => panic!("{}: a form of cargo that this test does not know", place()),
                _ => continue,
            };
            let args: Vec<String> = args.iter().map(|word| (*word).to_owned()).collect();
            accepts(&args).unwrap_or_else(|error| panic!("{}\n{error}", place()));
            own += 1;
        }
    }
    assert!(own >= 6, "only {own} commands of adit were found");
}

#[test]
fn the_check_of_commands_can_fail() {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    for wrong in ["fly", "up --no-such-option wg0", "status --interval never --watch", "completions cmd"] {
        assert!(accepts(&words(wrong)).is_err(), "{wrong}");
    }
    let text = "```console\n$ adit up wg0 # a comment\nwg0 is up\n# sudo adit down wg0 && true\n```\n```sh\na | adit pubkey > b\n```\n";
    let found: Vec<_> = blocks(text).iter().flat_map(commands).map(|words| words.join(" ")).collect();
    assert_eq!(found, ["adit up wg0", "adit down wg0", "true", "a", "adit pubkey"]);
}

#[test]
fn the_files_in_it_are_valid() {
    let folder = tempfile::tempdir().unwrap();
    let mut checked = 0;
    for block in blocks(&readme()) {
        let extension = match block.language.as_str() {
            "ini" | "conf" => "conf",
            "toml" if block.text.contains("[interface]") => "toml",
            "json" if block.text.contains("\"interface\"") => "json",
            _ => continue,
        };
        let path = folder.path().join(format!("readme.{extension}"));
        fs::write(&path, &block.text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let output = Command::new(ADIT).arg("check").arg(&path).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && !text.contains("warning"),
            "README.md, block at line {}\n{text}",
            block.line
        );
        checked += 1;
    }
    assert!(checked > 0, "README.md shows no configuration");
}
