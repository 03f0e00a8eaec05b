//! Where a measurement of the datapath runs: cgroups made for it, and network and mount namespaces of its own, which go
//! with the process whatever becomes of it.
//!
//! Nothing here has a default route, so what is not translated goes nowhere.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tombolo_ebpf::{Datapath, DatapathConfig, cgroup2_mount};

use crate::figures::{Figure, Figures};

/// Set in the process that has its namespaces.
const INSIDE: &str = "TOMBOLO_BENCH_INSIDE";

/// What our cgroups begin with; then the pid and a name.
const PREFIX: &str = "tombolo-bench";

/// A folder that every machine has and that nobody else sees changed: our mount namespace is private.
const FOLDER: &str = "/mnt";

/// The exit code of a measurement that cannot run on this machine, and said why.
const LACKING: u8 = 2;

/// The whole life of a program that measures: begins anew on ground of its own, measures, tells the figures, and writes
/// them to a file.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to its user")]
pub fn measure(file: Option<&Path>, work: impl FnOnce(&mut Ground) -> Result<Vec<Figure>>) -> ExitCode {
    if let Some(lacking) = lacking() {
        eprintln!("the measurement cannot run here: {lacking}");
        return ExitCode::from(LACKING);
    }
    let measured = enter().and_then(|()| work(&mut Ground::prepare()?)).and_then(|figures| {
        let figures = Figures::of_this_machine(figures);
        println!("{figures}");
        file.map_or(Ok(()), |file| figures.write(file))
    });
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What the machine lacks for any measurement of the datapath, if anything.
fn lacking() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root: run it with sudo -E, or as root".to_owned());
    }
    if cgroup2_mount().is_none() {
        return Some("no cgroup v2 hierarchy is mounted".to_owned());
    }
    let programs = [("ip", "iproute2"), ("mount", "mount"), ("unshare", "util-linux")];
    let absent = programs.into_iter().find(|(program, _)| !is_on_path(program));
    absent.map(|(program, package)| format!("`{program}` is not on PATH: install the package {package}"))
}

/// Whether a program of that name is on PATH.
pub fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Moves into namespaces of our own: this program begins anew in them. Returns when it is there.
fn enter() -> Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    let mut again = Command::new("unshare");
    again.args(["--mount", "--net", "--propagation", "private", "--"]).arg(std::env::current_exe()?);
    Err(again.args(std::env::args_os().skip(1)).env(INSIDE, "1").exec()).context("cannot start unshare")
}

/// Cgroups and file systems of one measurement.
#[derive(Debug)]
pub struct Ground {
    cgroups: PathBuf,
    home: PathBuf,
    made: Vec<PathBuf>,
}

impl Ground {
    /// Prepares the namespaces that [`enter`] led to: a bpffs, and the loopback.
    fn prepare() -> Result<Self> {
        ensure!(std::env::var_os(INSIDE).is_some(), "call enter first");
        let cgroups = cgroup2_mount().context("no cgroup v2 hierarchy is mounted")?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).context("this process has no cgroup v2")?;
        sweep(&cgroups);
        let home = cgroups.join(own);
        run("mount", &["-t", "tmpfs", "tombolo-bench", FOLDER])?;
        fs::create_dir(format!("{FOLDER}/bpf"))?;
        run("mount", &["-t", "bpf", "tombolo-bench", &format!("{FOLDER}/bpf")])?;
        fs::create_dir_all("/run/netns")?;
        run("mount", &["-t", "tmpfs", "tombolo-bench", "/run/netns"])?;
        run("ip", &["link", "set", "lo", "up"])?;
        Ok(Self { cgroups, home, made: Vec::new() })
    }

    /// A file of ours.
    pub fn file(&self, name: &str) -> PathBuf {
        Path::new(FOLDER).join(name)
    }

    /// A new child cgroup.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn cgroup(&mut self, name: &str) -> Result<PathBuf> {
        let path = self.cgroups.join(format!("{PREFIX}-{}-{name}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("make cgroup {}", path.display()))?;
        self.made.push(path.clone());
        Ok(path)
    }

    /// What a datapath on a cgroup of ours is made from: default sizes, pins of its own.
    pub fn datapath(&self, cgroup: &Path) -> DatapathConfig {
        let pins = Path::new(FOLDER).join("bpf").join(cgroup.file_name().unwrap_or_default());
        let mut config = DatapathConfig::new(cgroup.to_owned(), pins);
        config.object = std::env::var_os("TOMBOLO_BPF_OBJECT").map(PathBuf::from);
        config
    }

    /// A datapath with default sizes on a new cgroup.
    ///
    /// # Errors
    /// The cgroup or the datapath's own.
    pub fn translated(&mut self, name: &str) -> Result<(PathBuf, Datapath)> {
        let cgroup = self.cgroup(name)?;
        let datapath = Datapath::open(&self.datapath(&cgroup))?;
        Ok((cgroup, datapath))
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next run.
        let _ = join(&self.home);
        for cgroup in &self.made {
            let _ = fs::remove_dir(cgroup);
        }
    }
}

/// Moves this process into a cgroup: sockets it makes from now on belong there.
///
/// # Errors
/// The cgroup is gone.
pub fn join(cgroup: &Path) -> Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0").with_context(|| format!("join {}", cgroup.display()))
}

/// A network namespace.
#[derive(Debug)]
pub struct Netns(File);

impl Netns {
    /// The one that this thread is in.
    ///
    /// # Errors
    /// /proc is not readable.
    pub fn current() -> Result<Self> {
        File::open("/proc/thread-self/ns/net").map(Self).context("open /proc/thread-self/ns/net")
    }

    /// A new one with its loopback up.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn make(name: &str) -> Result<Self> {
        run("ip", &["netns", "add", name])?;
        run("ip", &["-n", name, "link", "set", "lo", "up"])?;
        let path = Path::new("/run/netns").join(name);
        File::open(&path).map(Self).with_context(|| format!("open {}", path.display()))
    }

    /// Moves this thread there; programs it starts are there too.
    ///
    /// # Errors
    /// The right to do so is missing.
    pub fn enter(&self) -> Result<()> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).context("enter a namespace")
    }
}

/// Runs a program that must succeed.
///
/// # Errors
/// It did not; with what it said.
pub fn run(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program).args(args).output().with_context(|| format!("cannot start {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", args.join(" "), said.trim());
    Ok(())
}

/// Removes cgroups of measurements that were killed.
fn sweep(cgroups: &Path) {
    for entry in fs::read_dir(cgroups).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('-')?.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}
