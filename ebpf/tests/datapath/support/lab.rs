//! A network namespace and a child cgroup for one test, gone with it, also after a panic.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use tombolo_ebpf::{Datapath, DatapathConfig, DatapathError, Limits, cgroup2_mount, requirements, uninstall};

use super::clock::until;
use super::role::{MARK, ROLE};
use super::trace::Traced;

/// What all our namespaces and cgroups begin with; then the test's pid and a number.
const PREFIX: &str = "tombolo-ebpf-test";

/// A namespace whose only way is its loopback, a bpffs, and a cgroup with the programs attached.
pub(crate) struct Lab {
    name: String,
    cgroup: PathBuf,
    bpffs: PathBuf,
    servers: Vec<Peer>,
    config: DatapathConfig,
    datapath: Option<Datapath>,
}

/// Where a client is, seen from the lab's cgroup.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cgroup {
    Inside,
    /// In a child of it.
    Below,
    Outside,
}

impl Lab {
    /// A lab with small tables, or `None`, having said so, where it cannot be.
    pub(crate) fn new() -> Option<Self> {
        Self::with(Limits { services: 64, backends: 256, slots: 1024, members: 64 }, 4096)
    }

    /// A lab with tables of these sizes and room for so many connections.
    pub(crate) fn with(limits: Limits, connections: u32) -> Option<Self> {
        static SWEEP: Once = Once::new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let Some(mount) = cgroup2_mount() else { return skip("no cgroup v2 is mounted") };
        SWEEP.call_once(|| sweep(&mount));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}-{}-{number}", std::process::id());
        let cgroup = mount.join(&name);
        let bpffs = std::env::temp_dir().join(&name);
        let mut config = DatapathConfig::new(cgroup.clone(), bpffs.join("agent"));
        (config.limits, config.connections) = (limits, connections);
        config.object = std::env::var_os("TOMBOLO_BPF_OBJECT").map(PathBuf::from);
        let mut lab = Self { name, cgroup, bpffs, servers: Vec::new(), config, datapath: None };
        if let Err(error) = lab.build() {
            return skip(&error);
        }
        let missing = requirements(&lab.config);
        if !missing.is_empty() {
            return skip(&format!("{missing:?}"));
        }
        lab.datapath = Some(lab.open());
        Some(lab)
    }

    fn build(&self) -> Result<(), String> {
        fs::create_dir(&self.cgroup).map_err(|e| format!("cannot make cgroup {}: {e}", self.cgroup.display()))?;
        fs::create_dir(&self.bpffs).map_err(|e| format!("cannot make {}: {e}", self.bpffs.display()))?;
        run("mount", &["-t", "bpf", "bpf", &self.bpffs.to_string_lossy()])?;
        run("ip", &["netns", "add", &self.name])?;
        run("nsenter", &[&format!("--net={}", self.netns().display()), "ip", "link", "set", "lo", "up"])
    }

    /// Where the programs are attached.
    pub(crate) fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    fn netns(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// The datapath under test.
    pub(crate) fn datapath(&mut self) -> &mut Datapath {
        self.datapath.as_mut().expect("attached until the lab is dropped, or detached by the test")
    }

    /// What the datapath is made from; what is changed counts when it is opened again.
    pub(crate) fn config(&mut self) -> &mut DatapathConfig {
        &mut self.config
    }

    /// A datapath of this lab's configuration.
    pub(crate) fn open(&self) -> Datapath {
        Datapath::open(&self.config).unwrap()
    }

    /// Another agent's datapath on the same cgroup.
    pub(crate) fn another(&self) -> Result<Datapath, DatapathError> {
        Datapath::open(&DatapathConfig { pins: self.another_pins(), ..self.config.clone() })
    }

    /// Where that one pins.
    pub(crate) fn another_pins(&self) -> PathBuf {
        self.bpffs.join("another")
    }

    /// Ends the datapath as the end of its process does: what is pinned goes on.
    pub(crate) fn abandon(&mut self) {
        self.datapath.take().expect("open");
    }

    /// A new life of the datapath, of the configuration as it is now.
    pub(crate) fn reopen(&mut self) -> &mut Datapath {
        self.datapath = None;
        self.datapath = Some(self.open());
        self.datapath()
    }

    /// Detaches the datapath before the lab ends.
    pub(crate) fn detach(&mut self) {
        self.abandon();
        uninstall(&self.config.pins).unwrap();
    }

    /// Listens on addresses of the namespace; each answers with its label.
    pub(crate) fn serve(&mut self, listeners: &[(SocketAddr, &str)]) {
        let mut server = self.start("serve", Cgroup::Outside);
        for (addr, label) in listeners {
            assert_eq!(server.ask(&format!("tcp {addr} {label}")), "ok");
        }
        self.servers.push(server);
    }

    /// The same for datagrams.
    pub(crate) fn serve_udp(&mut self, sockets: &[(SocketAddr, &str)]) {
        let mut server = self.start("serve", Cgroup::Outside);
        for (addr, label) in sockets {
            assert_eq!(server.ask(&format!("udp {addr} {label}")), "ok");
        }
        self.servers.push(server);
    }

    /// A client in the namespace.
    pub(crate) fn client(&self, cgroup: Cgroup) -> Peer {
        self.start("dial", cgroup)
    }

    /// A client in this lab's cgroup and another lab's namespace.
    pub(crate) fn client_at(&self, other: &Self) -> Peer {
        self.start_at("dial", Cgroup::Inside, other)
    }

    /// A process of a role.
    pub(crate) fn start(&self, role: &str, cgroup: Cgroup) -> Peer {
        self.start_at(role, cgroup, self)
    }

    fn start_at(&self, role: &str, cgroup: Cgroup, namespace: &Self) -> Peer {
        let script = match cgroup {
            Cgroup::Inside => r#"echo $$ > "$1/cgroup.procs" && shift && exec nsenter "$@""#,
            Cgroup::Below => {
                r#"mkdir -p "$1/below" && echo $$ > "$1/below/cgroup.procs" && shift && exec nsenter "$@""#
            }
            Cgroup::Outside => r#"shift && exec nsenter "$@""#,
        };
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(&self.cgroup).arg(format!("--net={}", namespace.netns().display()));
        command.arg(std::env::current_exe().unwrap()).args(["role", "--exact", "--nocapture", "--test-threads=1"]);
        Peer::new(command.env(ROLE, role))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.servers.clear();
        self.datapath = None;
        unmount(&self.bpffs);
        // Not a panic in a drop: what is left is swept by the next run.
        until(|| !self.cgroup.exists() || remove(&self.cgroup));
        if self.netns().exists() {
            let _ = run("ip", &["netns", "del", &self.name]);
        }
    }
}

/// A client or a server; ended with this value.
pub(crate) struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    fn new(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, input, output: BufReader::new(output) }
    }

    /// Gives an order, after which the process ends by itself, and kills it right before the `nth` of its calls that
    /// change what outlives it; whether it got there.
    pub(crate) fn killed_at(mut self, order: &str, nth: usize) -> bool {
        let traced = Traced::seize(self.ask("thread").parse().unwrap());
        writeln!(self.input, "{order}").unwrap();
        let got_there = traced.runs_to_change(nth);
        self.child.kill().unwrap();
        traced.ended();
        let status = self.child.wait().unwrap();
        assert!(got_there || status.success(), "{order}: {status}");
        got_there
    }

    /// Gives an order and waits for the answer.
    pub(crate) fn ask(&mut self, order: &str) -> String {
        writeln!(self.input, "{order}").unwrap();
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the peer ended at {order:?}");
            if let Some(answer) = line.trim_end().strip_prefix(MARK) {
                return answer.to_owned();
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    match Command::new(program).args(args).output() {
        Ok(out) if out.status.success() => Ok(()),
        Ok(out) => Err(format!("{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr).trim())),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

/// Says that a test is skipped, past the harness's capture; or fails it.
fn skip<T>(why: &str) -> Option<T> {
    assert!(std::env::var_os("TOMBOLO_FORBID_SKIPS").is_none_or(|v| v != "1"), "skips are forbidden: {why}");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {why}");
    None
}

/// Removes what test processes that are gone left behind.
fn sweep(mount: &Path) {
    let leftovers = |dir: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| is_leftover(path)).collect()
    };
    for cgroup in leftovers(mount) {
        remove(&cgroup);
    }
    for bpffs in leftovers(&std::env::temp_dir()) {
        unmount(&bpffs);
    }
    for netns in leftovers(Path::new("/run/netns")) {
        let _ = run("ip", &["netns", "del", &netns.file_name().unwrap_or_default().to_string_lossy()]);
    }
}

/// Unmounts a bpffs and removes its folder; the links pinned in it are detached by that.
fn unmount(bpffs: &Path) {
    let _ = run("umount", &[&bpffs.to_string_lossy()]);
    let _ = fs::remove_dir(bpffs);
}

/// Removes a lab's cgroup with its child; whether it could.
fn remove(cgroup: &Path) -> bool {
    let _ = fs::remove_dir(cgroup.join("below"));
    fs::remove_dir(cgroup).is_ok()
}

/// Whether a name is ours and its process is gone.
fn is_leftover(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('-')?.split('-').next());
    pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
}
