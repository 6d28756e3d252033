//! The load generator against servers that do what they should, and against some that do not.

mod fake;

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use clap::Parser;
use fake::{Fake, Faults, Store};
use quorate_bench::{Args, Error, Outcome, Report};

fn run(servers: &[&Fake], options: &str) -> Result<Report, Error> {
    let servers: Vec<_> = servers.iter().map(|server| server.address.to_string()).collect();
    let line = format!("bench --quiet --servers {} {options}", servers.join(","));
    match quorate_bench::run(&Args::try_parse_from(line.split_whitespace()).unwrap(), &Arc::default())? {
        Outcome::Load(report) => Ok(*report),
        _ => panic!("load was asked for"),
    }
}

fn check(faults: Faults, options: &str, judge: impl Fn(&Report, &Store)) {
    let (server, store) = Fake::start(faults);
    let report = run(&[&server], options).unwrap();
    judge(&report, &store);
}

#[test]
fn loading_writes_every_key_once() {
    check(
        Faults::default(),
        "--workload load --keys 1000 --value-size 10B-20B --pipeline 4 --threads 2",
        |report, store| {
            assert_eq!((report.operations, store.puts()), (1000, 1000));
            assert_eq!(report.latency("insert").unwrap().count, 1000);
            assert!(report.passed() && report.errors.is_empty(), "{report}");
        },
    );
}

#[test]
fn a_bounded_run_does_exactly_its_operations() {
    let options = "--workload a --keys 100 --value-size 100B --operations 5000 --warmup 50ms --prepare";
    check(Faults::default(), options, |report, _| {
        assert_eq!((report.operations, report.absent), (5000, 0));
        let reads = report.latency("read").unwrap().count;
        assert!((2300..2700).contains(&reads), "{reads}");
    });
}

#[test]
fn the_same_seed_asks_the_same() {
    let options = "--workload b --keys 100 --value-size 100B --operations 2000 --connections 1 --warmup 0s";
    let counts = || {
        let (server, store) = Fake::start(Faults::default());
        run(&[&server], options).unwrap();
        (store.gets.load(Ordering::SeqCst), store.puts())
    };
    assert_eq!(counts(), counts());
}

#[test]
fn every_workload_runs_on_plain_and_on_versioned_commands() {
    for commands in ["", "--kv", "--r 2 --w 2 --durability one --strict", "--target native --pipeline 4"] {
        for workload in ["a", "b", "c", "d", "f", "get", "put", "mix"] {
            let options = format!(
                "--workload {workload} --keys 200 --value-size 64B --operations 2000 --warmup 0s --prepare --verify {commands}"
            );
            check(Faults::default(), &options, |report, _| {
                assert!(report.passed(), "{workload} {commands}: {report}");
                assert_eq!((report.operations, report.failed), (2000, 0), "{workload} {commands}");
            });
        }
    }
}

/// 1000/s and a stall of 300 ms: in an open loop a third of the operations of that second saw it, in a closed loop one.
#[test]
fn an_open_loop_shows_what_a_closed_loop_omits() {
    let stall = Faults { stalls_at: Some((200, Duration::from_millis(300))), ..Faults::default() };
    let options = "--workload get --keys 10 --connections 1 --warmup 0s --duration 1s";
    check(stall, &format!("{options} --rate 1000"), |report, _| {
        let read = report.latency("read").unwrap();
        assert!((900..=1000).contains(&read.count), "{report}");
        assert!((150e3..600e3).contains(&read.p90_us), "{report}");
        assert!(read.max_us >= 299e3 && read.p50_us < 50e3, "{report}");
    });
    check(stall, options, |report, _| {
        let read = report.latency("read").unwrap();
        assert!(read.max_us >= 299e3 && read.p99_us < 20e3, "{report}");
    });
}

#[test]
fn a_rate_that_cannot_be_kept_is_told() {
    let stall = Faults { stalls_at: Some((10, Duration::from_millis(400))), ..Faults::default() };
    check(stall, "--workload get --keys 10 --connections 1 --rate 1000 --warmup 0s --duration 300ms", |report, _| {
        assert!((280..=300).contains(&report.missed), "{report}");
        assert!(report.to_string().contains("the rate was not kept"));
    });
}

const VERIFY: &str =
    "--workload a --keys 300 --value-size 100B --operations 4000 --warmup 0s --verify --verify-wait 300ms";

#[test]
fn a_lost_write_is_found() {
    // Many keys with few writes: some of the writes that are lost are the last of their keys, whatever the timing.
    let options = "--workload mix --keys 2000 --prepare --value-size 100B --operations 4000 --warmup 0s --verify \
                   --verify-wait 300ms";
    for commands in ["", "--kv", "--target native"] {
        let faults = Faults { loses_every: Some(100), ..Faults::default() };
        check(faults, &format!("{options} {commands}"), |report, _| {
            let verdict = report.verdict.as_ref().unwrap();
            assert!(!report.passed() && verdict.stale_reads > 0 && verdict.lost_writes > 0, "{report}");
            assert!(verdict.violations.iter().any(|text| text.contains("lost the acknowledged write")));
        });
    }
}

#[test]
fn a_read_that_forgets_is_stale_and_not_lost() {
    let faults = Faults { forgets_every: Some(50), ..Faults::default() };
    check(faults, VERIFY, |report, _| {
        let verdict = report.verdict.as_ref().unwrap();
        assert!(!report.passed() && verdict.stale_reads > 0, "{report}");
        assert_eq!(verdict.lost_writes, 0, "{report}");
    });
    check(faults, &format!("{VERIFY} --allow-stale"), |report, _| assert!(report.passed(), "{report}"));
}

#[test]
fn a_damaged_value_is_found() {
    let faults = Faults { damages_every: Some(100), ..Faults::default() };
    check(faults, VERIFY, |report, _| {
        assert!(!report.passed() && report.verdict.as_ref().unwrap().damaged_values > 0, "{report}");
    });
}

#[test]
fn a_write_that_may_have_happened_is_no_violation() {
    for (commands, class) in [("", "TIMEOUT"), ("--kv", "TIMEOUT"), ("--target native", "Timeout")] {
        let faults = Faults { refuses_every: Some(50), ..Faults::default() };
        check(faults, &format!("{VERIFY} {commands}"), |report, _| {
            let verdict = report.verdict.as_ref().unwrap();
            assert!(report.passed() && verdict.unknown > 10, "{report}");
            assert_eq!(report.errors[class].count, verdict.unknown);
        });
    }
}

#[test]
fn a_server_without_the_commands_is_told() {
    let (server, _) = Fake::start(Faults::default());
    // The fake knows no CLUSTER SLOTS.
    let error = run(&[&server], "--cluster").unwrap_err();
    assert!(matches!(&error, Error::Servers(text) if text.contains("unknown command")), "{error}");
}

#[test]
fn cut_connections_are_opened_again() {
    let faults = Faults { cuts_after: Some(100), ..Faults::default() };
    for target in ["", "--target native"] {
        check(faults, &format!("{VERIFY} --connections 8 --timeout 500ms {target}"), |report, _| {
            assert!(report.passed(), "{report}");
            assert!(report.errors["connection lost"].count >= 30, "{report}");
            assert_eq!(report.operations + report.failed, 4000);
        });
    }
}

/// Both servers keep their values in one place, as replicas do. One is killed, then the other; then both come back.
#[test]
fn killed_servers_are_survived() {
    let (mut first, store) = Fake::start(Faults::default());
    let mut second = Fake::start_at("127.0.0.1:0".parse().unwrap(), Arc::clone(&store), Faults::default());
    let addresses = [first.address, second.address];
    let line = format!(
        "bench --quiet --servers {},{} --workload a --keys 300 --value-size 100B --duration 2s --warmup 0s \
         --rate 4000 --verify --timeout 200ms --kv",
        addresses[0], addresses[1]
    );
    let args = Args::try_parse_from(line.split_whitespace()).unwrap();
    let load = thread::spawn(move || quorate_bench::run(&args, &Arc::default()));
    store.wait_for_puts(300);
    first.kill();
    store.wait_for_puts(300);
    let mut first = Fake::start_at(addresses[0], Arc::clone(&store), Faults::default());
    second.kill();
    store.wait_for_puts(300);
    first.kill();
    let _first = Fake::start_at(addresses[0], Arc::clone(&store), Faults::default());
    let _second = Fake::start_at(addresses[1], Arc::clone(&store), Faults::default());
    let Ok(Outcome::Load(report)) = load.join().unwrap() else { panic!("a report") };
    assert!(report.passed(), "{report}");
    assert!(report.errors.keys().any(|class| class == "connection lost" || class == "connection refused"), "{report}");
    assert!(report.operations > 2000, "{report}");
    let verdict = report.verdict.as_ref().unwrap();
    assert_eq!((verdict.lost_writes, verdict.unread_keys), (0, 0));
}

/// Eight of the clients are at home there. Once they have all met it, one of them tries it now and then.
#[test]
fn a_server_that_stands_still_is_tried_by_one_client_at_a_time() {
    let (sound, store) = Fake::start(Faults::default());
    let faults = Faults { stalls_at: Some((100, Duration::from_secs(4))), ..Faults::default() };
    let still = Fake::start_at("127.0.0.1:0".parse().unwrap(), store, faults);
    let options = "--workload get --keys 10 --connections 16 --warmup 0s --duration 3s --timeout 300ms";
    let report = run(&[&sound, &still], options).unwrap();
    let timeouts = report.errors["timeout"].count;
    assert!((8..=16).contains(&timeouts), "{report}");
}

#[test]
fn nobody_there_is_an_error_and_no_hang() {
    let (mut server, _) = Fake::start(Faults::default());
    server.kill();
    let error =
        run(&[&server], "--duration 300ms --warmup 0s --timeout 100ms --connections 4").unwrap_err().to_string();
    assert!(error.contains("no server can be connected to") && error.contains("quorate dev"), "{error}");
}

/// What cannot be read at the end is not verified.
#[test]
fn a_server_that_never_comes_back_fails_the_verification() {
    let (mut server, store) = Fake::start(Faults::default());
    let line = format!(
        "bench --quiet --servers {} --workload put --keys 100 --value-size 100B --duration 500ms --warmup 0s --verify \
         --timeout 100ms --verify-wait 200ms --connections 4",
        server.address
    );
    let args = Args::try_parse_from(line.split_whitespace()).unwrap();
    let load = thread::spawn(move || quorate_bench::run(&args, &Arc::default()));
    store.wait_for_puts(500);
    server.kill();
    let Ok(Outcome::Load(report)) = load.join().unwrap() else { panic!("a report") };
    let verdict = report.verdict.as_ref().unwrap();
    assert!(!report.passed() && verdict.unread_keys == verdict.keys && verdict.keys > 0, "{report}");
}
