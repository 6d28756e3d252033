//! All commands, one by one: each is explained, by examples that parse, and tells JSON.

use super::*;

/// These have no `--json`.
const WITHOUT_JSON: [(&str, &str); 4] = [
    ("serve", "it runs on; what it tells is its log"),
    ("config example", "it prints a configuration"),
    ("completions", "it prints a script for a shell"),
    ("man", "it writes pages for people"),
];

/// Calls `look` with each command that is shown, and its name: "cluster join".
fn walk(look: &mut dyn FnMut(&clap::Command, &str)) {
    fn below(command: &clap::Command, name: &str, look: &mut dyn FnMut(&clap::Command, &str)) {
        look(command, name);
        for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
            below(command, format!("{name} {}", command.get_name()).trim(), look);
        }
    }
    let mut command = command_line();
    // So that each command has the options of those above it.
    command.build();
    below(&command, "", look);
}

fn text(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

/// The words of a line as a shell has them.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match quote {
            Some(mark) if c == mark => quote = None,
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            None if c == '#' && word.is_none() => break,
            _ => word.get_or_insert_default().push(c),
        }
    }
    assert_eq!(quote, None, "a quote is open in {line}");
    words.extend(word);
    words
}

/// The lines below `Examples:`.
fn examples(command: &clap::Command) -> Vec<String> {
    let help = text(command.get_after_help());
    let lines = help.lines().skip_while(|line| *line != "Examples:").skip(1);
    lines.take_while(|line| line.starts_with("  ")).map(str::to_owned).collect()
}

#[test]
fn the_command_line_is_consistent() {
    command_line().debug_assert();
}

#[test]
fn every_command_and_every_argument_is_explained() {
    walk(&mut |command, name| {
        assert!(!text(command.get_about()).is_empty(), "{name}");
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let help = text(argument.get_help().or(argument.get_long_help()));
            assert!(!help.is_empty(), "{name}: {}", argument.get_id());
        }
    });
}

#[test]
fn every_command_has_examples_of_itself_that_parse() {
    walk(&mut |command, name| {
        let examples = examples(command);
        assert!(!examples.is_empty(), "{name} has no examples");
        for line in &examples {
            assert!(line.len() <= 132, "{line} is long");
            // Of a pipe each part, of a redirection what stands before it.
            let words = words(line);
            let parts = words.split(|word| ["|", "&&", ">", "<"].contains(&word.as_str()));
            let quorate: Vec<_> = parts.filter(|part| part.first().is_some_and(|word| word == "quorate")).collect();
            assert!(!quorate.is_empty(), "{line} shows no command");
            for part in quorate {
                if let Err(error) = command_line().try_get_matches_from(part) {
                    assert_eq!(error.kind(), ErrorKind::DisplayHelp, "{line}: {error}");
                }
            }
        }
        let own =
            |line: &String| line.trim_start().starts_with(format!("quorate {name}").trim_end()) || line.contains('|');
        assert!(examples.iter().any(own), "the examples of {name} are of others");
    });
}

#[test]
fn every_command_that_shows_or_does_something_tells_json() {
    let mut without = Vec::new();
    walk(&mut |command, name| {
        let json = command.get_arguments().find(|argument| argument.get_long() == Some("json"));
        match json {
            None if !command.has_subcommands() => without.push(name.to_owned()),
            Some(json) => {
                assert!(!json.get_action().takes_values(), "{name}: --json prints");
                assert!(text(json.get_help()).starts_with("Print JSON"), "{name}");
            }
            None => {}
        }
    });
    assert_eq!(without, WITHOUT_JSON.map(|(name, _)| name.to_owned()));
}

#[test]
fn options_mean_the_same_everywhere() {
    walk(&mut |command, name| {
        for argument in command.get_arguments() {
            let help = text(argument.get_help());
            let wanted = match argument.get_long() {
                Some("quiet") => "Show no progress",
                Some("timeout") => "How long to wait for an answer",
                Some("wait") => "Wait until",
                _ => continue,
            };
            assert!(help.starts_with(wanted), "{name}: {help}");
        }
    });
}

#[test]
fn every_command_is_in_a_group() {
    let command = command_line();
    let shown: Vec<&str> =
        command.get_subcommands().filter(|command| !command.is_hide_set()).map(clap::Command::get_name).collect();
    let grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
    assert_eq!(shown, grouped);
    let help = command_line().render_help().to_string();
    assert!(help.contains("Start nodes:\n  dev          Start a local cluster"), "{help}");
    assert!(help.contains("\nOptions:\n  -h, --help"), "{help}");
}

#[test]
fn json_is_wanted_by_its_option_alone() {
    let wants = |line: &str| wants_json(words(line).into_iter().map(OsString::from));
    assert!(wants("quorate ring --json") && wants("quorate --json nonsense"));
    assert!(!wants("quorate put key -- --json") && !wants("quorate put key json"));
}
