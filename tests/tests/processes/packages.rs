//! The Debian package: what it holds, and that what it installs serves and tells the service manager so.
//!
//! The rule: it is built by the script that everybody builds it by, from the binary under test. It is installed for real, on a
//! copy of this machine that is gone with the test.
//!
//! Not here: what a configuration may say (`start`).

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixDatagram,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{
    apart::{apart, command, skip},
    cluster::{Cluster, PORT},
    harness::{PATIENCE, Process, program, quorate, run},
    talk::{get, is_up, put},
};

/// What `build-deb.sh` ends with where cargo-deb cannot be had.
const UNAVAILABLE: i32 = 69;

/// The most that `systemd-analyze security` may find, of 100.
const EXPOSURE_MAX: u32 = 15;

/// The package of the binary under test. Where there can be none, it says why.
fn package() -> Option<&'static Path> {
    static PACKAGE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let build = || {
        // A directory of its own: nobody shall take the binary of a test for a release.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("package");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/build-deb.sh");
        let said = run(Command::new(script).arg(program()).env("CARGO_TARGET_DIR", target));
        if said.code() == Some(UNAVAILABLE) {
            return None;
        }
        said.assert_ok().out.lines().last().map(PathBuf::from)
    };
    let package = PACKAGE.get_or_init(build).as_deref();
    if package.is_none() {
        skip("there is no cargo-deb, and it cannot be installed");
    }
    package
}

/// The package's files, below a directory that goes when this is dropped.
fn unpacked() -> Option<TempDir> {
    let directory = temporary_directory();
    command("dpkg-deb", &format!("--extract {} {}", package()?.display(), directory.path().display()));
    Some(directory)
}

fn temporary_directory() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory can be made")
}

/// All commands, each with the commands that it is below: `["cluster", "join"]`.
fn commands(below: &[String]) -> Vec<Vec<String>> {
    let help = run(Command::new(program()).args(below).arg("--help"));
    // In one group or in several, above all else that is listed.
    let listed = help.assert_ok().out.lines().take_while(|line| !["Arguments:", "Options:"].contains(line));
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .filter_map(|line| line.split_whitespace().next())
        .flat_map(|name| {
            let path = [below, &[name.to_owned()]].concat();
            [vec![path.clone()], commands(&path)].concat()
        })
        .collect()
}

#[test]
fn it_holds_what_a_machine_needs() {
    let Some(package) = package() else { return };
    let listing = command("dpkg-deb", &format!("--contents {}", package.display()));
    for (mode, path) in [
        ("-rwxr-xr-x", "usr/bin/quorate"),
        ("-rw-r-----", "etc/quorate/quorate.toml"),
        ("-rw-r--r--", "usr/lib/systemd/system/quorate.service"),
        ("-rw-r--r--", "usr/lib/sysusers.d/quorate.conf"),
        ("-rw-r--r--", "usr/lib/tmpfiles.d/quorate.conf"),
        ("-rw-r--r--", "usr/share/doc/quorate/copyright"),
        ("-rw-r--r--", "usr/share/doc/quorate/README.md"),
        ("-rw-r--r--", "usr/share/doc/quorate/README.Debian"),
        ("-rw-r--r--", "usr/share/doc/quorate/examples/quorate.toml"),
    ] {
        let line = listing.lines().find(|line| line.ends_with(&format!(" ./{path}"))).unwrap_or_default();
        assert!(line.starts_with(&format!("{mode} 0/0 ")), "{path} is not {mode} in:\n{listing}");
    }
    let conffiles = command("dpkg-deb", &format!("--info {} conffiles", package.display()));
    assert_eq!(conffiles.trim(), "/etc/quorate/quorate.toml");
}

#[test]
fn its_man_pages_and_completions_name_every_command() {
    let Some(root) = unpacked() else { return };
    let shared = root.path().join("usr/share");
    let commands = commands(&[]);
    assert!(commands.len() > 20 && commands.contains(&vec!["cluster".to_owned(), "join".to_owned()]), "{commands:?}");

    let man = |path: &[String]| {
        let name = [&["quorate".to_owned()], path].concat().join("-");
        let page = shared.join(format!("man/man1/{name}.1.gz"));
        (name, command("gzip", &format!("--decompress --stdout {}", page.display())).replace("\\-", "-"))
    };
    let read = |file: &str| fs::read_to_string(shared.join(file)).expect("it is in the package");
    let fish = read("fish/vendor_completions.d/quorate.fish");
    let zsh = read("zsh/vendor-completions/_quorate");
    assert!(zsh.starts_with("#compdef quorate"));
    let bash = shared.join("bash-completion/completions/quorate");
    for path in &commands {
        let (last, above) = path.split_last().expect("a command has a name");
        let (name, page) = man(path);
        assert!(page.contains(".SH SYNOPSIS") && page.contains(".SH OPTIONS"), "{name}:\n{page}");
        assert!(man(above).1.contains(&format!("{name}(1)")), "{name} is not named one above");
        assert!(fish.contains(&format!("-a \"{last}\"")), "fish does not complete {path:?}");
        assert!(zsh.contains(&format!("'{last}:")), "zsh does not complete {path:?}");
        assert!(completed_by_bash(&bash, above).contains(last), "bash does not complete {path:?}");
    }
}

/// What bash offers after `quorate` and these words.
fn completed_by_bash(completions: &Path, words: &[String]) -> BTreeSet<String> {
    let script = "source \"$0\"; COMP_WORDS=(quorate \"$@\" ''); COMP_CWORD=$(($# + 1)); \
                  _quorate quorate '' \"${COMP_WORDS[$#]}\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let said = run(Command::new("bash").args(["-uc", script]).arg(completions).args(words));
    said.assert_ok().out.lines().map(str::to_owned).collect()
}

#[test]
fn its_unit_is_valid_and_gives_the_node_no_more_than_it_needs() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return skip("there is no `systemd-analyze`");
    }
    let directory = temporary_directory();
    let unit = directory.path().join("quorate.service");
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/quorate.service")).unwrap();
    // It need not be installed for this.
    fs::write(&unit, text.replace("/usr/bin/quorate", program().to_str().expect("it is text"))).unwrap();
    let analyze = |arguments: &str| {
        let mut analyze = Command::new("systemd-analyze");
        run(analyze.args(arguments.split_whitespace()).arg(&unit))
    };
    let said = analyze("verify --man=no");
    assert!(said.status.success() && !said.error.contains("quorate.service"), "{}", said.error);
    let said = analyze(&format!("security --no-pager --offline=true --threshold={EXPOSURE_MAX}"));
    assert!(said.status.success(), "{}", said.out);
}

/// What starts a service and listens to it.
struct Manager(UnixDatagram);

impl Manager {
    /// Listens at `path`. What it starts finds that path in the variable NOTIFY_SOCKET.
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("a socket can be made");
        // It may run as anybody.
        fs::set_permissions(path, Permissions::from_mode(0o777)).expect("it is ours");
        socket.set_read_timeout(Some(PATIENCE)).expect("it is longer than nothing");
        Self(socket)
    }

    /// The next that the service says.
    fn hear(&self) -> String {
        let mut bytes = [0; 256];
        let length = self.0.recv(&mut bytes).expect("the service says something");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }
}

#[test]
fn a_node_tells_the_service_manager_when_it_serves_and_when_it_stops() {
    let cluster = Cluster::with_nodes(1);
    let socket = cluster.node_directory(1).join("notify");
    let manager = Manager::at(&socket);
    let mut serve = quorate(&["serve", "--config", cluster.config(1).to_str().unwrap()]);
    let mut node = Process::start(serve.env("NOTIFY_SOCKET", socket));
    assert_eq!(manager.hear(), "READY=1\n");
    assert!(is_up(cluster.clients(1)), "it answers as soon as it said so");
    node.signal(Signal::TERM);
    assert_eq!(manager.hear(), "STOPPING=1\n");
    assert_eq!(node.wait().code(), Some(0));
}

/// Programs that [`Machine`] needs.
const PROGRAMS: [&str; 6] = ["dpkg", "chroot", "mount", "ip", "systemd-sysusers", "systemd-tmpfiles"];

/// A copy of this machine that keeps what it writes to itself. Made on a thread of [`apart`].
struct Machine {
    directory: TempDir,
}

impl Machine {
    /// None where the kernel cannot lay one file system over another.
    fn new() -> Option<Self> {
        let mut directory = temporary_directory();
        // Nothing is removed through a mount: see its end.
        directory.disable_cleanup(true);
        command("mount", &format!("--bind {0} {0}", directory.path().display()));
        let machine = Self { directory };
        let (root, written) = (machine.at("/"), machine.directory.path().join("written"));
        for directory in [&root, &written, &machine.directory.path().join("data")] {
            fs::create_dir(directory).expect("a directory can be made");
        }
        command("mount", &format!("-t tmpfs -o mode=755 tmpfs {}", written.display()));
        for directory in ["upper", "work"] {
            fs::create_dir(written.join(directory)).expect("a directory can be made");
        }
        let written = written.display();
        let layers = format!("lowerdir=/,upperdir={written}/upper,workdir={written}/work");
        if !mount(&format!("-t overlay -o {layers} overlay {}", root.display())) {
            return None;
        }
        command("mount", &format!("--bind /proc {}", machine.at("/proc").display()));
        // Programs of the machine shall make no files among this one's devices.
        command("mount", &format!("-t tmpfs -o mode=755 tmpfs {}", machine.at("/dev").display()));
        for device in ["null", "zero", "full", "random", "urandom", "tty"] {
            let place = machine.at(&format!("/dev/{device}"));
            fs::write(&place, "").expect("a file can be made");
            command("mount", &format!("--bind /dev/{device} {}", place.display()));
        }
        symlink("pts/ptmx", machine.at("/dev/ptmx")).expect("a link can be made");
        // The node wants a real disk.
        fs::create_dir_all(machine.at("/var/lib/quorate")).expect("a directory can be made");
        command(
            "mount",
            &format!("--bind {}/data {}", machine.directory.path().display(), machine.at("/var/lib/quorate").display()),
        );
        Some(machine)
    }

    /// Where its `path` is seen on this one.
    fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join("root").join(path.trim_start_matches('/'))
    }

    /// Runs a program on it, which must succeed.
    fn command(&self, arguments: &str) -> String {
        command("chroot", &format!("{} {arguments}", self.at("/").display()))
    }

    /// The mode and the owners of a file, as its own users and groups.
    fn stat(&self, path: &str) -> String {
        self.command(&format!("stat --format=%a:%U:%G {path}")).trim().to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let unmount = Command::new("umount").args(["--recursive", "--lazy"]).arg(self.directory.path()).status();
        self.directory.disable_cleanup(!unmount.is_ok_and(|status| status.success()));
    }
}

/// Whether the kernel can mount this. If not, says so.
fn mount(arguments: &str) -> bool {
    let said = run(Command::new("mount").args(arguments.split_whitespace()));
    if !said.status.success() {
        skip(&format!("`mount {arguments}` failed: {}", said.error));
    }
    said.status.success()
}

#[test]
fn what_it_installs_serves_and_goes_again_without_the_data() {
    let Some(package) = package() else { return };
    apart(&PROGRAMS, || {
        let Some(machine) = Machine::new() else { return };
        fs::copy(package, machine.at("/quorate.deb")).unwrap();
        machine.command("dpkg --install /quorate.deb");
        assert_eq!(machine.stat("/etc/quorate/quorate.toml"), "640:root:quorate");
        assert_eq!(machine.stat("/var/lib/quorate"), "750:quorate:quorate");
        let config = fs::read_to_string(machine.at("/etc/quorate/quorate.toml")).unwrap();
        let secret = config.lines().find_map(|line| line.strip_prefix("secret = ")).expect("it has one");
        assert!(secret.len() == 34 && secret[1..33].bytes().all(|byte| byte.is_ascii_hexdigit()), "{config}");

        let manager = Manager::at(&machine.at("/run/notify"));
        let mut serve = Command::new("chroot");
        serve.arg("--userspec=quorate:quorate").arg(machine.at("/"));
        serve.args(["/usr/bin/quorate", "serve", "--config", "/etc/quorate/quorate.toml"]);
        let mut node = Process::start(serve.env("NOTIFY_SOCKET", "/run/notify"));
        assert_eq!(manager.hear(), "READY=1\n");
        assert_eq!(machine.stat("/run/quorate/pid"), "644:quorate:quorate");
        let pid = fs::read_to_string(machine.at("/run/quorate/pid")).unwrap();
        assert_eq!(pid.trim(), node.pid().as_raw_nonzero().to_string());
        let address = ([127, 0, 0, 1], PORT).into();
        put(address, "key", "value", None).unwrap();
        assert_eq!(get(address, "key").1, ["value"]);
        node.signal(Signal::TERM);
        assert_eq!(manager.hear(), "STOPPING=1\n");
        assert_eq!(node.wait().code(), Some(0));

        machine.command("dpkg --install /quorate.deb");
        assert_eq!(fs::read_to_string(machine.at("/etc/quorate/quorate.toml")).unwrap(), config);
        machine.command("dpkg --remove quorate");
        assert!(!machine.at("/usr/bin/quorate").exists() && machine.at("/etc/quorate/quorate.toml").exists());
        machine.command("dpkg --purge quorate");
        assert!(!machine.at("/etc/quorate").exists());
        assert!(machine.at("/var/lib/quorate/core-0").exists(), "data goes by nobody's hand but its owner's");
    });
}

#[test]
fn the_service_gets_on_with_what_its_unit_leaves_it() {
    let Some(package) = package() else { return };
    if !Path::new("/lib/systemd/systemd").exists() {
        return skip("there is no systemd");
    }
    apart(&PROGRAMS, || {
        let Some(machine) = Machine::new() else { return };
        fs::copy(package, machine.at("/quorate.deb")).unwrap();
        fs::write(machine.at("/check.sh"), include_str!("packages/service.sh")).unwrap();
        // Its own cgroup, so that systemd makes none in one that others are in.
        let groups = machine.directory.path().join("groups");
        fs::create_dir(&groups).unwrap();
        if !mount(&format!("-t cgroup2 cgroup2 {}", groups.display())) {
            return;
        }
        let group = groups.join(format!("quorate-test-{}", std::process::id()));
        fs::create_dir(&group).unwrap();
        let mut boot = Command::new("sh");
        boot.args(["-c", include_str!("packages/boot.sh"), "boot"]).arg(machine.at("/")).arg(&group);
        let said = run(&mut boot);
        command("find", &format!("{} -depth -type d -exec rmdir {{}} ;", group.display()));
        let heard = fs::read_to_string(machine.at("/said")).unwrap_or_default();
        assert!(said.status.success(), "{}{}\n{heard}", said.out, said.error);
    });
}
