//! Rubbish at every port: an error or a closed connection, no crash, no growth, nothing lost.

use quorate_net::{
    frame::{HEADER_BYTES, MAGIC, VERSION},
    resp::write_command,
};

use super::{
    cluster::{CORE_PORT, Cluster, PEER_PORT, PORT, VALUE_MAX},
    harness::{is_alive, peak_memory, wait_for},
    talk::{self, Resp, get, put, send_and_read_to_end},
};

/// What a node's memory may grow by while it is fed with rubbish. Its store and buffers take a part of it anyhow.
const GROWTH_MAX: u64 = 64 << 20;

/// Three nodes with a key in them, fed by `feed`; afterwards all is as before.
fn survive(feed: impl FnOnce(&Cluster)) {
    let cluster = Cluster::new();
    let nodes = cluster.serve_all();
    put(cluster.clients(1), "kept", "v", None).unwrap();
    let before: Vec<u64> = nodes.iter().map(|node| peak_memory(node.pid())).collect();
    feed(&cluster);
    for (number, (node, before)) in (1..).zip(nodes.iter().zip(before)) {
        assert!(is_alive(node.pid()), "node {number} died");
        let growth = peak_memory(node.pid()) - before;
        assert!(growth < GROWTH_MAX, "node {number} grew by {growth} bytes");
        assert_eq!(get(cluster.clients(number), "kept").1, ["v"]);
    }
    put(cluster.clients(2), "new", "v", None).unwrap();
}

/// Bytes without sense that are the same in each run.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A frame's header that claims `length` bytes.
fn header(kind: u8, length: u32) -> Vec<u8> {
    let mut header = [&MAGIC[..], &[VERSION, kind], &length.to_le_bytes()].concat();
    header.resize(HEADER_BYTES, 0);
    header
}

#[test]
fn garbage_at_every_port_is_survived() {
    survive(|cluster| {
        let mut garbage =
            vec![noise(1 << 20), vec![0; 1 << 20], vec![0xff; 1 << 20], b"GET / HTTP/1.1\r\n\r\n".to_vec()];
        for kind in 0..=8 {
            for length in [0, 1, 1 << 16, u32::MAX] {
                garbage.push(header(kind, length));
                garbage.push([header(kind, length), noise(1 << 17)].concat());
            }
        }
        for bytes in &garbage {
            for port in [PORT, CORE_PORT, PEER_PORT] {
                for node in 1..=3 {
                    send_and_read_to_end(cluster.address(node, port), bytes, 1);
                }
            }
        }
    });
}

#[test]
fn endless_input_is_cut_off() {
    survive(|cluster| {
        let megabyte = vec![b'a'; 1 << 20];
        let frame = header(2, 8 << 20);
        for node in 1..=3 {
            for (start, wanted) in [
                (&b""[..], "-ERR Protocol error: too big inline request"),
                (b"*1", "-ERR Protocol error: "),
                (b"*1\r\n$1", "-ERR Protocol error: "),
                (b"*1\r\n$99999999999\r\n", "-ERR Protocol error: invalid bulk length"),
                (b"*99999999999\r\n", "-ERR Protocol error: invalid multibulk length"),
                (b"*-5\r\n$4\r\nPING\r\n", ""),
                (b"*1000000\r\n$4\r\nPING\r\n", "-ERR Protocol error: "),
                (b"*2\r\n:5\r\n", "-ERR Protocol error: expected '$', got ':'"),
                (b"SET \"k v\r\n", "-ERR Protocol error: unbalanced quotes in request"),
            ] {
                let said = talk_endlessly(cluster, node, start, &megabyte);
                assert!(said.starts_with(wanted), "{}: {said}", start.escape_ascii());
            }
            send_and_read_to_end(cluster.clients(node), &[frame.clone(), vec![0; 1 << 20]].concat(), 64);
        }
    });
}

fn talk_endlessly(cluster: &Cluster, node: u16, start: &[u8], filler: &[u8]) -> String {
    let said = send_and_read_to_end(cluster.clients(node), &[start, filler].concat(), 32);
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn what_is_too_large_or_unknown_gets_an_error_and_the_connection_goes_on() {
    survive(|cluster| {
        let key = vec![b'k'; (4 << 10) + 1];
        let value = vec![b'v'; VALUE_MAX + 1];
        let fits = vec![b'v'; VALUE_MAX];
        let mut resp = Resp::connect(cluster.clients(1));
        for (command, wanted) in [
            (&[&b"NOSUCH"[..], b"a", b"b"][..], "ERR unknown command 'NOSUCH', with args beginning with: 'a' 'b' "),
            (&[b"GET"], "ERR wrong number of arguments for 'get' command"),
            (&[b"SET", &key, b"v"], "ERR "),
            (&[b"GET", &key], "ERR "),
            (&[b"SET", b"", b"v"], "ERR "),
            (&[b"SET", b"large", &value], "ERR "),
            (&[b"KV.PUT", b"kept", b"v", b"CTX", b"no context"], "BADCONTEXT "),
            (&[b"KV.GET", b"kept", b"R", b"9"], "ERR "),
            (&[b"SELECT", b"1"], "ERR "),
        ] {
            let said = resp.text(command);
            assert!(said.starts_with(wanted), "{}: {said}", command[0].escape_ascii());
            assert_eq!(resp.text(&[b"PING"]), "PONG");
        }
        // Refused with all that follows it, so on a connection of its own.
        assert!(Resp::connect(cluster.clients(1)).text(&[b"MULTI"]).starts_with("ERR "));
        assert_eq!(resp.command(&[b"GET", b"large"]), b"$-1\r\n");
        // So large that a busy machine may not be done with it in time.
        wait_for("the largest value to be written", || (resp.text(&[b"SET", b"large", &fits]) == "OK").then_some(()));
        assert_eq!(resp.text(&[b"GET", b"large"]).len(), VALUE_MAX);
    });
}

#[test]
fn a_client_that_does_not_read_is_bounded() {
    survive(|cluster| {
        let mut resp = Resp::connect(cluster.clients(1));
        assert_eq!(resp.text(&[b"SET", b"large", &vec![b'v'; VALUE_MAX]]), "OK");
        let mut asks = Vec::new();
        for _ in 0..1000 {
            write_command(&mut asks, &[b"GET", b"large"]);
        }
        // 2.5 GB of answers, if the node made them all.
        talk::send_without_reading(cluster.clients(1), &asks, 10);
    });
}
