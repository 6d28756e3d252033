//! Replies: what the writer writes is read back, in both versions, however it is cut.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::resp::{Protocol, Writer};

/// The replies of `input`, cut at every given place, and how the stream ended.
fn check_stream(input: &[u8], cuts: &[usize]) -> (Vec<String>, Result<usize, ReplyError>) {
    let mut scanner = ReplyScanner::new(ReplyLimits::default());
    let (mut buffer, mut replies, mut fed) = (Vec::new(), Vec::new(), 0);
    for &cut in cuts.iter().chain([&input.len()]) {
        buffer.extend_from_slice(&input[fed..cut.max(fed)]);
        fed = fed.max(cut);
        loop {
            match scanner.scan(&buffer) {
                Ok(Some(length)) => {
                    replies.push(format!("{:?}", Reply::parse(&buffer[..length])));
                    buffer.drain(..length);
                }
                Ok(None) => break,
                Err(error) => return (replies, Err(error)),
            }
        }
    }
    (replies, Ok(buffer.len()))
}

fn check(protocol: Protocol, write: impl Fn(&mut Writer<'_>), bytes: &str, reply: &Reply<'_>) {
    let mut out = Vec::new();
    write(&mut Writer::new(&mut out, protocol));
    assert_eq!(out.escape_ascii().to_string(), bytes.as_bytes().escape_ascii().to_string());
    let mut scanner = ReplyScanner::new(ReplyLimits::default());
    assert_eq!(scanner.scan(&out), Ok(Some(out.len())), "{bytes:?}");
    assert_eq!(&Reply::parse(&out), reply, "{bytes:?}");
}

#[test]
fn each_kind_in_both_versions() {
    use Protocol::{Resp2, Resp3};
    use Reply::{Array, Boolean, Bulk, Double, Error, Integer, Map, Null, Push, Set, Simple, Verbatim};
    let one = || Integer(1);
    check(Resp2, |w| w.ok(), "+OK\r\n", &Simple(b"OK"));
    check(Resp2, |w| w.error("ERR a\r\nb"), "-ERR a  b\r\n", &Error(b"ERR a  b"));
    check(Resp2, |w| w.integer(i64::MIN), ":-9223372036854775808\r\n", &Integer(i64::MIN));
    check(Resp2, |w| w.integer(0), ":0\r\n", &Integer(0));
    check(Resp2, |w| w.bulk(b"a\r\n"), "$3\r\na\r\n\r\n", &Bulk(b"a\r\n"));
    check(Resp2, |w| w.bulk(b""), "$0\r\n\r\n", &Bulk(b""));
    check(Resp2, |w| w.null(), "$-1\r\n", &Null);
    check(Resp3, |w| w.null(), "_\r\n", &Null);
    check(Resp2, |w| w.null_array(), "*-1\r\n", &Null);
    check(Resp3, |w| w.null_array(), "_\r\n", &Null);
    check(Resp2, |w| w.array(0), "*0\r\n", &Array(vec![]));
    check(
        Resp2,
        |w| {
            w.map(1);
            w.integer(1);
            w.integer(1);
        },
        "*2\r\n:1\r\n:1\r\n",
        &Array(vec![one(), one()]),
    );
    check(
        Resp3,
        |w| {
            w.map(1);
            w.integer(1);
            w.integer(1);
        },
        "%1\r\n:1\r\n:1\r\n",
        &Map(vec![(one(), one())]),
    );
    check(
        Resp3,
        |w| {
            w.set(1);
            w.integer(1);
        },
        "~1\r\n:1\r\n",
        &Set(vec![one()]),
    );
    check(
        Resp3,
        |w| {
            w.push(1);
            w.integer(1);
        },
        ">1\r\n:1\r\n",
        &Push(vec![one()]),
    );
    check(Resp2, |w| w.double(1.5), "$3\r\n1.5\r\n", &Bulk(b"1.5"));
    check(Resp3, |w| w.double(1.5), ",1.5\r\n", &Double(1.5));
    check(Resp3, |w| w.double(f64::NEG_INFINITY), ",-inf\r\n", &Double(f64::NEG_INFINITY));
    check(Resp2, |w| w.boolean(true), ":1\r\n", &one());
    check(Resp3, |w| w.boolean(false), "#f\r\n", &Boolean(false));
    check(Resp2, |w| w.verbatim("ab"), "$2\r\nab\r\n", &Bulk(b"ab"));
    check(Resp3, |w| w.verbatim("ab"), "=6\r\ntxt:ab\r\n", &Verbatim(b"ab"));
}

#[test]
fn what_no_server_should_send() {
    for (input, error) in [
        ("?1\r\n", ReplyError::UnknownType(b'?')),
        (":1a\r\n", ReplyError::Malformed),
        (":1\rx", ReplyError::Malformed),
        ("#x\r\n", ReplyError::Malformed),
        ("_x\r\n", ReplyError::Malformed),
        ("(1x\r\n", ReplyError::Malformed),
        (",x\r\n", ReplyError::Malformed),
        ("$-2\r\n", ReplyError::Malformed),
        ("*?\r\n", ReplyError::Malformed),
        ("=3\r\nabc\r\n", ReplyError::Malformed),
        ("$1\r\nabc", ReplyError::Unterminated),
        ("$99999999999\r\n", ReplyError::TooBig),
        ("*99999999999\r\n", ReplyError::TooBig),
    ] {
        assert_eq!(check_stream(input.as_bytes(), &[]).1, Err(error), "{input:?}");
    }
    let deep = "*1\r\n".repeat(17) + ":1\r\n";
    assert_eq!(check_stream(deep.as_bytes(), &[]).1, Err(ReplyError::TooBig));
    assert_eq!(check_stream(&deep.as_bytes()[4..], &[]).0.len(), 1);
    assert_eq!(check_stream(&[b'+'; 70_000], &[]).1, Err(ReplyError::TooBig));
}

/// A row of attributes neither recurses nor counts as replies.
#[test]
fn attributes_are_passed_over() {
    let input = "|0\r\n".repeat(200_000) + "|1\r\n+k\r\n*1\r\n:2\r\n:1\r\n";
    assert_eq!(check_stream(input.as_bytes(), &[]).0, ["Integer(1)"]);
    let inside = "*2\r\n|1\r\n+k\r\n+v\r\n:1\r\n:2\r\n";
    assert_eq!(check_stream(inside.as_bytes(), &[]).0, ["Array([Integer(1), Integer(2)])"]);
}

fn any_reply() -> impl Strategy<Value = Vec<u8>> {
    let write = |f: &dyn Fn(&mut Writer<'_>)| {
        let mut out = Vec::new();
        f(&mut Writer::new(&mut out, Protocol::Resp3));
        out
    };
    let leaf = prop_oneof![
        any::<i64>().prop_map(move |n| write(&|w| w.integer(n))),
        any::<f64>().prop_map(move |n| write(&|w| w.double(n))),
        any::<bool>().prop_map(move |b| write(&|w| w.boolean(b))),
        vec(any::<u8>(), 0..30).prop_map(move |b| write(&|w| w.bulk(&b))),
        "[ -~]{0,20}".prop_map(move |t| write(&|w| w.error(&t))),
        Just(write(&|w| w.null())),
    ];
    leaf.prop_recursive(3, 24, 4, move |inner| {
        (vec(inner, 0..4), any::<bool>()).prop_map(move |(elements, set)| {
            let head = write(&|w| if set { w.set(elements.len()) } else { w.array(elements.len()) });
            [head, elements.concat()].concat()
        })
    })
}

proptest! {
    #[test]
    fn a_stream_of_replies_is_read_however_it_is_cut(
        replies in vec(any_reply(), 0..5),
        mut cuts in vec(0usize..600, 0..12),
    ) {
        let bytes = replies.concat();
        cuts.iter_mut().for_each(|cut| *cut = (*cut).min(bytes.len()));
        cuts.sort_unstable();
        let whole = check_stream(&bytes, &[]);
        prop_assert_eq!((whole.0.len(), whole.1), (replies.len(), Ok(0)));
        prop_assert_eq!(check_stream(&bytes, &cuts), check_stream(&bytes, &[]));
        prop_assert_eq!(check_stream(&bytes, &(0..bytes.len()).collect::<Vec<_>>()), check_stream(&bytes, &[]));
    }

    #[test]
    fn garbage_never_panics(
        input in vec(prop_oneof![
            Just(b"*2\r\n".to_vec()), Just(b"$3\r\n".to_vec()), Just(b"\r\n".to_vec()), Just(b"%1\r\n".to_vec()),
            Just(b":1\r\n".to_vec()), Just(b"|1\r\n".to_vec()), Just(b"_\r\n".to_vec()), vec(any::<u8>(), 0..5),
        ], 0..60),
    ) {
        let input = input.concat();
        let _ = check_stream(&input, &[]);
    }
}
