//! Every command of the documents is run, in their order, as a reader would at a shell, and prints what they say.
//!
//! The rule: what stands in a block of `sh` runs as it stands. The words behind `sh` say at which of several terminals what
//! goes on running was started (`sh terminal 2`). A block of `text` behind it says what is printed: these lines in this order,
//! `…` for anything. What takes minutes stands in no block.
//!
//! Each document has a network and process ids of its own, so that it can use the addresses and ports that the reader will use.
//!
//! Not here: the package's README, whose commands install something (`packages`).

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::{
    apart::apart,
    harness::{Process, program},
};

/// What a document waits for comes sooner, or never.
const SECONDS_MAX: &str = "600";

const PROGRAMS: [&str; 6] = ["bash", "curl", "ip", "mount", "redis-cli", "unshare"];

/// Stands for cargo, which has built everything when this runs. The second is the command that runs this.
const CARGO: &str = "#!/bin/bash
case \"$*\" in
'run --release -- '*) shift 3 && exec quorate \"$@\" ;;
'test --workspace') ;;
*) echo \"no document says: cargo $*\" && exit 1 ;;
esac
";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository").to_owned()
}

/// One block of commands.
struct Block {
    /// Where it begins in the document.
    line: usize,
    /// Of what goes on running.
    terminal: Option<String>,
    commands: String,
    /// What it prints, if that is shown.
    shown: Option<String>,
}

/// The blocks of commands of a document in Markdown, in their order.
fn blocks(document: &str) -> Vec<Block> {
    let mut blocks = Vec::<Block>::new();
    let mut lines = document.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let inside: String = lines
            .by_ref()
            .map(|(line, _)| line)
            .take_while(|line| *line != "```")
            .map(|line| line.to_owned() + "\n")
            .collect();
        match info.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["sh"] => blocks.push(Block { line: number, terminal: None, commands: inside, shown: None }),
            ["sh", "terminal", terminal] => {
                let terminal = Some((*terminal).to_owned());
                blocks.push(Block { line: number, terminal, commands: inside, shown: None });
            }
            ["text"] => blocks.last_mut().expect("something prints it").shown = Some(inside),
            [] | ["toml" | "ini"] => {}
            _ => panic!("line {number}: nobody knows what to do with {line}"),
        }
    }
    blocks
}

/// All blocks as one script, which says before each at which line of the document it stands.
fn script(blocks: &[Block]) -> String {
    let mut script = include_str!("documents/terminals.sh").to_owned();
    for Block { line, terminal, commands, .. } in blocks {
        script += &match terminal {
            None => format!("echo '@@ {line}'\n{commands}"),
            Some(terminal) => format!("echo '@@ {line}'\nterminal {terminal} <<'COMMANDS'\n{commands}COMMANDS\n"),
        };
    }
    script + "echo '@@ 0'\ninterrupt_all\necho '@@ end'\n"
}

/// What the block at `line` printed.
fn printed(output: &str, line: usize) -> &str {
    let mark = format!("@@ {line}\n");
    let (_, rest) =
        output.split_once(&mark).unwrap_or_else(|| panic!("the block at line {line} was not run: {output}"));
    rest.split_once("@@ ").map_or(rest, |(printed, _)| printed)
}

/// Whether the shown lines are among what was printed, in this order.
fn is_printed(shown: &str, printed: &str) -> bool {
    let mut printed = printed.lines();
    shown
        .lines()
        .filter(|line| line.trim() != "…")
        .all(|line| printed.any(|printed| fits(line.trim_end(), printed.trim_end())))
}

/// Whether the text is the pattern with something in the place of each `…`.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('…');
    let first = parts.next().expect("a split has a first part");
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        if let Some(between) = last.replace(part) {
            let Some((_, after)) = rest.split_once(between) else { return false };
            rest = after;
        }
    }
    last.map_or(rest.is_empty(), |last| rest.ends_with(last))
}

/// Where a reader stands who has cloned the repository and built it.
fn clone() -> TempDir {
    let clone = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory can be made");
    let place = |path: &str| clone.path().join(path);
    for entry in fs::read_dir(root()).expect("it is there") {
        let name = entry.expect("it can be read").file_name();
        if !["target", ".git"].contains(&name.to_str().expect("its files have plain names")) {
            symlink(root().join(&name), clone.path().join(&name)).expect("a link can be made");
        }
    }
    fs::create_dir_all(place("target/release")).expect("a directory can be made");
    symlink(program(), place("target/release/quorate")).expect("a link can be made");
    fs::create_dir(place("programs")).expect("a directory can be made");
    fs::write(place("programs/cargo"), CARGO).expect("a file can be written");
    fs::set_permissions(place("programs/cargo"), fs::Permissions::from_mode(0o755)).expect("it is ours");
    clone
}

/// Follows a document from its first command to its last.
fn follow(document: &str) {
    apart(&PROGRAMS, || {
        let text = fs::read_to_string(root().join(document)).unwrap_or_else(|error| panic!("{document}: {error}"));
        let blocks = blocks(&text);
        assert!(!blocks.is_empty(), "{document} has no commands");
        let clone = clone();
        let file = clone.path().join("script");
        fs::write(&file, script(&blocks)).expect("a file can be written");
        let path = std::env::var("PATH").expect("there is one");
        let mut bash = Command::new("unshare");
        // With the first process of a space of ids all others in it end.
        bash.args(["--pid", "--fork", "--kill-child", "--mount-proc", "timeout", SECONDS_MAX, "bash"])
            .arg(&file)
            .current_dir(clone.path());
        bash.env("PATH", format!("{0}/programs:{0}/target/release:{path}", clone.path().display()));
        // redis-cli shall print what it prints at a terminal.
        bash.env("FAKETTY", "1").env("TERM", "dumb");
        let mut bash = Process::start(&mut bash);
        let output = bash.read_to_end();
        assert!(bash.wait().success() && output.ends_with("@@ end\n"), "{document}:\n{output}");
        for Block { line, shown, .. } in &blocks {
            let printed = printed(&output, *line);
            let shown = shown.as_deref().unwrap_or_default();
            assert!(is_printed(shown, printed), "{document}, line {line} shows:\n{shown}\nbut it printed:\n{printed}");
        }
    });
}

#[test]
fn the_readme_can_be_followed() {
    follow("README.md");
}

#[test]
fn the_operators_guide_can_be_followed() {
    follow("docs/operations.md");
}

#[test]
fn no_document_is_left_out() {
    for entry in fs::read_dir(root().join("docs")).expect("it is there") {
        let path = entry.expect("it can be read").path();
        if path.extension().is_some_and(|extension| extension == "md") && !path.ends_with("operations.md") {
            let text = fs::read_to_string(&path).expect("it can be read");
            assert!(blocks(&text).is_empty(), "nobody runs the commands of {}", path.display());
        }
    }
}

#[test]
fn what_is_shown_is_compared_word_for_word() {
    assert!(is_printed("OK\n\"hello\"\n", "OK\n\"hello\"\n"));
    assert!(is_printed("1 … 3\n…\nend …", "1 2 3\nmore\nend of it"));
    for (shown, printed) in
        [("OK", "OKAY"), ("1 … 3", "1 2 4"), ("b\na", "a\nb"), ("a\na", "a"), ("a …", "b"), ("… a …", "b a")]
    {
        assert!(!is_printed(shown, printed), "{shown} is not {printed}");
    }
}

#[test]
fn a_document_is_taken_apart_block_by_block() {
    let blocks =
        blocks("# Title\n```sh\na\nb\n```\n```text\nc\n```\n\n```toml\nx = 1\n```\n```sh terminal 2\nd\n```\n");
    let [first, second] = blocks.as_slice() else { panic!("there are two") };
    assert_eq!((first.line, first.commands.as_str(), first.shown.as_deref()), (2, "a\nb\n", Some("c\n")));
    assert_eq!((second.line, second.terminal.as_deref(), second.commands.as_str()), (13, Some("2"), "d\n"));
}
