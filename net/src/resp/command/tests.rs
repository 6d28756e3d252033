//! Commands: what Redis clients send, every way it can be cut, and what no client should send.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::resp::write_command;

fn small_limits() -> CommandLimits {
    CommandLimits { arguments_max: 8, argument_bytes_max: 64, command_bytes_max: 256, inline_bytes_max: 64 }
}

/// All commands of `input`, and how the stream ended.
fn parse_all(parser: &mut CommandParser, mut input: &[u8]) -> (Vec<Vec<Vec<u8>>>, Result<usize, ProtocolError>) {
    let mut commands = Vec::new();
    loop {
        match parser.parse(input) {
            Ok(Some(command)) => {
                if !command.is_empty() {
                    commands.push(command.arguments().map(<[u8]>::to_vec).collect());
                }
                let consumed = command.consumed();
                input = &input[consumed..];
            }
            Ok(None) => return (commands, Ok(input.len())),
            Err(error) => return (commands, Err(error)),
        }
    }
}

fn check(input: &str, commands: &[&[&str]]) {
    let expected: Vec<Vec<Vec<u8>>> =
        commands.iter().map(|c| c.iter().map(|a| a.as_bytes().to_vec()).collect()).collect();
    let (got, end) = parse_all(&mut CommandParser::new(small_limits()), input.as_bytes());
    assert_eq!((got, end), (expected, Ok(0)), "{input:?}");
}

fn check_refused(input: &[u8], text: &str) {
    let (_, end) = parse_all(&mut CommandParser::new(small_limits()), input);
    assert_eq!(
        end.unwrap_err().to_string(),
        format!("Protocol error: {text}"),
        "{:?}",
        input.escape_ascii().to_string()
    );
}

#[test]
fn arrays_and_lines() {
    check("*1\r\n$4\r\nPING\r\n", &[&["PING"]]);
    check("*2\r\n$3\r\nGET\r\n$0\r\n\r\nPING\r\n", &[&["GET", ""], &["PING"]]);
    check("*2\r\n$3\r\nGET\r\n$2\r\n\r\n\r\n", &[&["GET", "\r\n"]]);
    check("PING\r\nPING\n  set  a\tb \r\n", &[&["PING"], &["PING"], &["set", "a", "b"]]);
    check("\r\n\n   \r\n*0\r\n*-1\r\nPING\r\n", &[&["PING"]]);
}

#[test]
fn quotes_in_lines() {
    check("a \"b c\" 'd e'\r\n", &[&["a", "b c", "d e"]]);
    check("\"\\x41\\n\\\"\\q\" 'it\\'s' \"\"\r\n", &[&["A\n\"q", "it's", ""]]);
    check("\"\\xzz\"\r\n", &[&["xzz"]]);
    check("ab\"cd\"\r\n", &[&["abcd"]]);
    for line in ["a \"b\r\n", "a 'b\r\n", "\"a\"b\r\n", "'a'b\r\n", "\"\\\r\n"] {
        check_refused(line.as_bytes(), "unbalanced quotes in request");
    }
}

#[test]
fn refusals_have_the_texts_of_redis() {
    check_refused(b"*x\r\n", "invalid multibulk length");
    check_refused(b"*9\r\n", "invalid multibulk length");
    check_refused(b"*99999999999999999999\r\n", "invalid multibulk length");
    check_refused(b"*1\rx", "invalid multibulk length");
    check_refused(b"*1\r\nPING\r\n", "expected '$', got 'P'");
    check_refused(b"*1\r\n\r\n", "expected '$', got '\\r'");
    check_refused(b"*1\r\n$x\r\n", "invalid bulk length");
    check_refused(b"*1\r\n$-1\r\n", "invalid bulk length");
    check_refused(b"*1\r\n$65\r\n", "invalid bulk length");
    check_refused(b"*1\r\n$18446744073709551615\r\n", "invalid bulk length");
    check_refused(b"*1\r\n$4\r\nPINGxx", "expected CRLF after a bulk string");
    check_refused(&[b"*".as_slice(), &[b'1'; 64]].concat(), "too big mbulk count string");
    check_refused(&[b"*1\r\n$".as_slice(), &[b'1'; 64]].concat(), "too big bulk count string");
    check_refused(&[b'a'; 65], "too big inline request");
    let five = [
        b"*5\r\n".as_slice(),
        &b"$60\r\n".iter().copied().chain([b'v'; 60]).chain(*b"\r\n").collect::<Vec<_>>().repeat(5),
    ]
    .concat();
    check_refused(&five, "too big command");
}

#[test]
fn limits_are_inclusive() {
    let argument = vec![b'v'; 64];
    let mut bytes = Vec::new();
    write_command(&mut bytes, &[&argument]);
    let (commands, end) = parse_all(&mut CommandParser::new(small_limits()), &bytes);
    assert_eq!((commands, end), (vec![vec![argument]], Ok(0)));
    let line = [vec![b'a'; 63], b"\r\n".to_vec()].concat();
    assert_eq!(parse_all(&mut CommandParser::new(small_limits()), &line).1, Ok(0));
}

/// A claimed count or length reserves nothing.
#[test]
fn claims_reserve_nothing() {
    let mut parser = CommandParser::new(CommandLimits::default());
    assert!(parser.parse(b"*1048576\r\n$8388608\r\n").unwrap().is_none());
    assert_eq!(parser.arguments.capacity(), 0);
    assert!(parser.is_within_command());
    assert_eq!(parser.bytes_wanted(), 20 + 8_388_608 + 2);
}

/// What a large command needed is given back.
#[test]
fn large_commands_leave_nothing_behind() {
    let mut bytes = Vec::new();
    write_command(&mut bytes, &vec![b"x".as_slice(); 100_000]);
    let mut parser = CommandParser::new(CommandLimits::default());
    assert_eq!(parser.parse(&bytes).unwrap().unwrap().len(), 100_000);
    assert!(!parser.is_within_command());
    parser.parse(b"").unwrap();
    assert!(parser.arguments.capacity() <= ARGUMENTS_KEPT);
}

/// Feeds `input` cut into the given pieces, keeping only what is not consumed, as a connection does.
fn parse_in_pieces(input: &[u8], cuts: &[usize]) -> (Vec<Vec<Vec<u8>>>, Result<usize, ProtocolError>) {
    let mut parser = CommandParser::new(small_limits());
    let (mut buffer, mut commands, mut fed) = (Vec::new(), Vec::new(), 0);
    for &cut in cuts.iter().chain([&input.len()]) {
        buffer.extend_from_slice(&input[fed..cut.max(fed)]);
        fed = fed.max(cut);
        let (more, end) = parse_all(&mut parser, &buffer);
        commands.extend(more);
        match end {
            Ok(left) => drop(buffer.drain(..buffer.len() - left)),
            Err(error) => return (commands, Err(error)),
        }
    }
    (commands, Ok(buffer.len()))
}

#[test]
fn split_at_every_byte() {
    let input = b"*2\r\n$3\r\nGET\r\n$5\r\na\r\nbc\r\nPING 'x y'\r\n\r\n*0\r\n*1\r\n$4\r\nPING\r\nGET k\n";
    let whole = parse_in_pieces(input, &[]);
    assert_eq!(whole.0.len(), 4);
    for cut in 0..=input.len() {
        assert_eq!(parse_in_pieces(input, &[cut]), whole, "cut at {cut}");
    }
    assert_eq!(parse_in_pieces(input, &(0..input.len()).collect::<Vec<_>>()), whole);
}

proptest! {
    #[test]
    fn written_commands_are_read_back(
        commands in vec(vec(vec(any::<u8>(), 0..20), 1..6), 0..6),
        mut cuts in vec(0usize..400, 0..12),
    ) {
        let mut bytes = Vec::new();
        for command in &commands {
            write_command(&mut bytes, &command.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
        cuts.iter_mut().for_each(|cut| *cut = (*cut).min(bytes.len()));
        cuts.sort_unstable();
        prop_assert_eq!(parse_in_pieces(&bytes, &cuts), (commands, Ok(0)));
    }

    /// Garbage gives the same commands and the same end however it is cut, and what is kept stays small.
    #[test]
    fn garbage_is_refused_however_it_is_cut(
        input in vec(prop_oneof![
            Just(b"*".to_vec()), Just(b"$".to_vec()), Just(b"\r\n".to_vec()), Just(b"\"".to_vec()), Just(b"1".to_vec()),
            Just(b"*2\r\n$1\r\nx\r\n".to_vec()), vec(any::<u8>(), 0..5),
        ], 0..60),
        mut cuts in vec(0usize..200, 0..12),
    ) {
        let input = input.concat();
        cuts.iter_mut().for_each(|cut| *cut = (*cut).min(input.len()));
        cuts.sort_unstable();
        let whole = parse_in_pieces(&input, &[]);
        prop_assert_eq!(&parse_in_pieces(&input, &cuts), &whole);
        if let Ok(left) = whole.1 {
            prop_assert!(left <= small_limits().command_bytes_max + 64);
        }
    }
}
