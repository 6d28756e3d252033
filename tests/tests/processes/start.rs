//! What a node says when it cannot start, and that it starts from whatever a crash left.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    process::Command,
};

use rustix::process::Signal;

use super::{
    cluster::{CORE_PORT, Cluster, HTTP_PORT, PEER_PORT, PORT},
    harness::{Process, program, quorate, run, wait_for},
    talk::{get, put},
};

fn serve(cluster: &Cluster) -> Command {
    quorate(&["serve", "--config", cluster.config(1).to_str().unwrap()])
}

#[test]
fn a_bad_configuration_is_told_with_its_line_and_touches_nothing() {
    for (from, to, words) in [
        ("segment", "segmnt", "unknown key `segmnt` in [store]; did you mean `segment`?"),
        ("\"4MiB\"", "\"4MB\"", "unknown unit \"MB\""),
        ("partitions = 64", "partitions = 63", "must be from 64 to 16384"),
        ("id = 1\n[cluster]", "id = 9\n[cluster]", "no [[cluster.node]] has the id 9"),
        ("[store]", "[store", "line 13"),
    ] {
        let cluster = Cluster::with_nodes(1);
        cluster.edit(1, from, to);
        run(&mut serve(&cluster)).assert_failed(&["config.toml: line ", words]);
        assert_eq!(fs::read_dir(cluster.node_directory(1)).unwrap().count(), 1, "only the configuration is there");
    }
    let said = run(&mut quorate(&["serve", "--config", "/nowhere/config.toml"]));
    said.assert_failed(&["/nowhere/config.toml", "No such file"]);
    assert_eq!(run(&mut quorate(&["serve"])).code(), Some(2));
}

#[test]
fn an_address_in_use_is_told_by_name() {
    for (setting, port) in [("port", PORT), ("core_port", CORE_PORT), ("peer_port", PEER_PORT)] {
        let cluster = Cluster::with_nodes(1);
        let address = cluster.address(1, port);
        let _taken = TcpListener::bind(address).unwrap();
        run(&mut serve(&cluster)).assert_failed(&[&address.to_string(), &format!("`{setting}`"), "in use"]);
        assert!(cluster.pid(1).is_none());
    }
}

#[test]
fn a_second_process_of_one_node_is_refused() {
    let cluster = Cluster::with_nodes(1);
    let node = cluster.serve(1);
    let pid = node.pid().as_raw_nonzero().to_string();
    run(&mut serve(&cluster)).assert_failed(&["is served already", &pid]);
    assert_eq!(cluster.pid(1), Some(node.pid()));
}

/// Who connected before would wait until the store is read, and ask nobody else meanwhile.
#[test]
fn clients_can_connect_when_they_are_served_and_no_sooner() {
    let cluster = Cluster::with_nodes(1);
    let is_open = |port| TcpStream::connect(cluster.address(1, port)).is_ok();
    let opens_last = |_: &u32| {
        let node = Process::start(&mut serve(&cluster));
        wait_for("the peers' port", || is_open(PEER_PORT).then_some(()));
        node.signal(Signal::STOP);
        ![PORT, CORE_PORT, HTTP_PORT].into_iter().any(is_open)
    };
    // One that is fast serves before it is stopped; and all ports are tried for a moment at the very start.
    assert_eq!((0..20).filter(opens_last).take(3).count(), 3, "clients were let in too soon");
}

#[test]
fn too_little_locked_memory_is_told_with_the_cure() {
    let cluster = Cluster::with_nodes(1);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -l 64 && exec \"$0\" \"$@\""]).arg(program());
    command.args(["serve", "--config"]).arg(cluster.config(1));
    run(&mut command).assert_failed(&["too little memory may be locked: 64 KiB", "`ulimit -l 1024`", "LimitMEMLOCK="]);
    assert!(!cluster.node_directory(1).join("data").exists());
}

#[test]
fn no_io_uring_is_told_with_the_cure() {
    for (errno, words) in [(libc::ENOSYS, "Linux 5.8"), (libc::EPERM, "kernel.io_uring_disabled")] {
        let cluster = Cluster::with_nodes(1);
        let mut command = serve(&cluster);
        without_io_uring(&mut command, errno);
        run(&mut command).assert_failed(&["no io_uring", words]);
        assert!(!cluster.node_directory(1).join("data").exists());
    }
}

/// Makes `io_uring_setup` fail with `errno` in the process, as an old kernel or a container's seccomp profile does.
pub(super) fn without_io_uring(command: &mut Command, errno: i32) {
    let load = |offset| libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: offset };
    let unless_equal_skip = |value| libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: value };
    let answer = |value| libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: value };
    let filter = [
        load(0),
        unless_equal_skip(libc::SYS_io_uring_setup as u32),
        answer(libc::SECCOMP_RET_ERRNO | errno as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let forbid = move || {
        let mut filter = filter;
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        #[expect(unsafe_code, reason = "there is no safe call for a system call filter")]
        // SAFETY: the program and its filter live until the calls return, and the kernel copies them.
        let failed = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0) != 0
        };
        if failed { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    #[expect(unsafe_code, reason = "the filter must be in place before the program starts")]
    // SAFETY: between fork and exec it makes two system calls, and allocates nothing.
    unsafe {
        command.pre_exec(forbid);
    }
}

#[test]
fn a_stale_pid_file_and_a_torn_stop_are_no_obstacle() {
    let cluster = Cluster::with_nodes(1);
    let mut node = cluster.serve(1);
    put(cluster.clients(1), "k", "v", None).unwrap();
    node.kill();
    assert!(cluster.pid(1).is_some(), "a killed node leaves its file");
    let mut node = cluster.serve(1);
    assert_eq!(cluster.pid(1), Some(node.pid()));
    assert_eq!(get(cluster.clients(1), "k").1, ["v"]);

    node.signal(Signal::TERM);
    assert_eq!(node.wait().code(), Some(0));
    assert!(cluster.pid(1).is_none(), "a clean end removes it");
}

#[test]
fn another_number_of_cores_is_refused_with_the_command_that_moves_the_data() {
    let cluster = Cluster::with_nodes(1);
    let mut node = cluster.serve(1);
    for number in 0..50 {
        put(cluster.clients(1), &format!("key-{number}"), "v", None).unwrap();
    }
    node.signal(Signal::TERM);
    node.wait();
    for (before, cores) in [(1, 3), (3, 2), (2, 1)] {
        cluster.edit(1, &format!("cores = {before}"), &format!("cores = {cores}"));
        run(&mut serve(&cluster)).assert_failed(&[&format!("for {before} cores"), "quorate rehome --config FILE"]);
        let config = cluster.config(1);
        let rehome = ["rehome", "--config", config.to_str().unwrap()];
        let said = run(&mut quorate(&rehome));
        assert!(
            said.assert_ok().out.contains(&format!("Moved 50 records from {before} to {cores} cores")),
            "{}",
            said.out
        );
        assert!(run(&mut quorate(&rehome)).assert_ok().out.contains("Nothing to move"));

        let mut node = cluster.serve(1);
        for number in 0..50 {
            let name = format!("key-{number}");
            assert_eq!(get(cluster.clients(1), &name).1, ["v"], "{name} at {cores} cores");
        }
        run(&mut quorate(&rehome)).assert_failed(&["is served already"]);
        node.signal(Signal::TERM);
        wait_for("its end", || cluster.pid(1).is_none().then_some(()));
        assert_eq!(node.wait().code(), Some(0));
    }
}
