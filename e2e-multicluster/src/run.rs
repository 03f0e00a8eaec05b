//! One run: a directory, a name that everything it makes carries, and the certainty that all of it goes again.
//!
//! A run's namespaces are `tb-<name>-…`, its processes live in cgroups below `tombolo-<name>`, its mounts and files in
//! its directory. So whatever happened, [`sweep_all`] finds everything by the name alone: no list can be out of date.
//! The owner holds a lock on `run.json`; who gets that lock knows that the owner is gone. A janitor process waits for
//! it, so that even a killed owner leaves nothing behind.

use std::fs::{self, File, TryLockError};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::clock::{Seen, wait_through};
use crate::needs;

const PREFIX: &str = "tombolo-e2e-";
const FACTS: &str = "run.json";
const BPFFS: &str = "bpffs";

/// A live run. Dropping it undoes everything, unless it was [kept](Run::keep).
#[derive(Debug)]
pub struct Run {
    facts: Facts,
    dir: PathBuf,
    lock: Option<File>,
    janitor: Option<Child>,
    kept: bool,
}

/// What `run.json` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Facts {
    name: String,
    cgroup: PathBuf,
    pid: u32,
    kept: bool,
}

/// A run's directory that was found, and what is known of its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The directory.
    pub dir: PathBuf,
    /// Its state.
    pub state: State,
}

/// Whose a found run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its owner, this process, lives.
    Owned(u32),
    /// Left up on purpose by `--keep`.
    Kept,
    /// Its owner died.
    Abandoned,
}

impl Run {
    /// Begins a run: its directory, cgroup, bpffs, and the janitor (`janitor_program janitor DIR`).
    ///
    /// # Errors
    /// Any of these cannot be made; what was made before is undone.
    pub fn begin(janitor_program: &Path) -> Result<Self> {
        let dir =
            tempfile::Builder::new().prefix(PREFIX).rand_bytes(5).tempdir().context("make the run's directory")?;
        let dir = dir.keep();
        let name = dir.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_prefix(PREFIX));
        let name = name.context("the directory is named after the run")?.to_owned();
        let cgroup = needs::cgroup2()?.join(format!("tombolo-{name}"));
        let facts = Facts { name, cgroup, pid: std::process::id(), kept: false };
        let lock = write_facts(&dir, &facts)?;
        lock.lock().context("lock the run")?;
        let mut run = Self { facts, dir, lock: Some(lock), janitor: None, kept: false };
        run.janitor = Some(start_janitor(janitor_program, &run.dir)?);
        run.furnish()?;
        Ok(run)
    }

    fn furnish(&self) -> Result<()> {
        for sub in ["log", BPFFS] {
            fs::create_dir(self.dir.join(sub)).with_context(|| format!("make {sub}/ of the run"))?;
        }
        fs::create_dir(&self.facts.cgroup).with_context(|| format!("make cgroup {}", self.facts.cgroup.display()))?;
        let at = self.bpffs();
        command("mount", &["-t".as_ref(), "bpf".as_ref(), "bpf".as_ref(), at.as_os_str()])
    }

    /// The run's name: five letters and digits.
    pub fn name(&self) -> &str {
        &self.facts.name
    }

    /// The run's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where logs go.
    pub fn logs(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// The run's own BPF file system.
    pub fn bpffs(&self) -> PathBuf {
        self.dir.join(BPFFS)
    }

    /// The name of one of the run's network namespaces.
    pub fn netns(&self, leaf: &str) -> String {
        format!("{}{leaf}", netns_prefix(&self.facts.name))
    }

    /// Makes a cgroup of the run.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make_cgroup(&self, leaf: &str) -> Result<PathBuf> {
        let path = self.facts.cgroup.join(leaf);
        fs::create_dir(&path).with_context(|| format!("make cgroup {}", path.display()))?;
        Ok(path)
    }

    /// Kills every process of the run at once.
    ///
    /// # Errors
    /// Some would not die.
    pub fn kill_all(&self) -> Result<()> {
        kill_cgroup(&self.facts.cgroup)
    }

    /// Leaves everything up for [`sweep_all`] to undo some day.
    ///
    /// # Errors
    /// The intention cannot be written down.
    pub fn keep(mut self) -> Result<PathBuf> {
        self.facts.kept = true;
        // Rewritten in place: the lock is on the file, not on its name.
        fs::write(self.dir.join(FACTS), serde_json::to_vec(&self.facts)?)?;
        self.kept = true;
        Ok(self.dir.clone())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = undo(&self.dir, &self.facts)
        {
            crate::story::warn(&format!("could not clean up everything of run {}: {error:#}", self.facts.name));
        }
        drop(self.lock.take());
        if let Some(mut janitor) = self.janitor.take() {
            let _ = janitor.wait();
        }
    }
}

/// All runs of this machine, under the directory for temporary files.
///
/// # Errors
/// That directory cannot be read.
pub fn found() -> Result<Vec<Found>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(std::env::temp_dir()).context("read the directory for temporary files")? {
        let dir = entry?.path();
        let named = dir.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(PREFIX));
        if let Some(state) = named.then(|| state_of(&dir)).flatten() {
            all.push(Found { dir, state });
        }
    }
    Ok(all)
}

fn state_of(dir: &Path) -> Option<State> {
    let file = File::open(dir.join(FACTS)).ok()?;
    let facts = read_facts(dir).ok()?;
    Some(match file.try_lock() {
        Err(TryLockError::WouldBlock) => State::Owned(facts.pid),
        _ if facts.kept => State::Kept,
        _ => State::Abandoned,
    })
}

/// Sweeps the runs whose owner died; kept runs too if `state` says so. Gives the directories that went.
///
/// # Errors
/// Something would not go.
pub fn sweep_all(also_kept: AlsoKept) -> Result<Vec<PathBuf>> {
    let mut gone = Vec::new();
    for Found { dir, state } in found()? {
        let wanted = state == State::Abandoned || (state == State::Kept && also_kept == AlsoKept::Yes);
        if wanted && sweep(&dir)? == Swept::Yes {
            gone.push(dir);
        }
    }
    Ok(gone)
}

/// Whether [`sweep_all`] also takes what `--keep` left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlsoKept {
    /// It does.
    Yes,
    /// It does not.
    No,
}

/// Whether a run was undone, or somebody else has it: its owner or its janitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Swept {
    Yes,
    NotOurs,
}

fn sweep(dir: &Path) -> Result<Swept> {
    let Ok(file) = File::open(dir.join(FACTS)) else { return Ok(Swept::NotOurs) };
    if file.try_lock().is_err() {
        return Ok(Swept::NotOurs);
    }
    undo(dir, &read_facts(dir)?)?;
    Ok(Swept::Yes)
}

/// Waits until the owner of the run is gone, then undoes the run unless it was kept. This is all a janitor does.
///
/// # Errors
/// Something would not go.
pub fn janitor(dir: &Path) -> Result<()> {
    let Ok(file) = File::open(dir.join(FACTS)) else { return Ok(()) };
    file.lock().context("wait for the run's owner")?;
    match read_facts(dir) {
        Ok(facts) if !facts.kept => undo(dir, &facts),
        _ => Ok(()),
    }
}

fn undo(dir: &Path, facts: &Facts) -> Result<()> {
    let cgroup = kill_cgroup(&facts.cgroup).and_then(|()| remove_cgroup(&facts.cgroup));
    let netns = remove_netns(&netns_prefix(&facts.name));
    let mount = unmount_below(dir);
    cgroup.and(netns).and(mount)?;
    fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))
}

/// Kills every process in a cgroup and below it at once, and waits until they are gone.
///
/// # Errors
/// Some would not die.
pub fn kill_cgroup(cgroup: &Path) -> Result<()> {
    if !cgroup.exists() {
        return Ok(());
    }
    if fs::write(cgroup.join("cgroup.kill"), "1").is_err() {
        bail!("cannot kill what runs in {}: needs root and Linux 5.14", cgroup.display());
    }
    wait_through("the run's processes to end", Duration::from_secs(10), || {
        let events = fs::read_to_string(cgroup.join("cgroup.events"))?;
        Ok(if events.contains("populated 0") { Seen::Ready(()) } else { Seen::NotYet("some still run".into()) })
    })
}

fn remove_cgroup(cgroup: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(cgroup) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup).with_context(|| format!("remove cgroup {}", cgroup.display()))
}

fn remove_netns(prefix: &str) -> Result<()> {
    let Ok(entries) = fs::read_dir("/run/netns") else { return Ok(()) };
    for entry in entries {
        let name = entry?.file_name();
        if name.to_str().is_some_and(|n| n.starts_with(prefix)) {
            command("ip", &["netns".as_ref(), "del".as_ref(), name.as_os_str()])?;
        }
    }
    Ok(())
}

fn unmount_below(dir: &Path) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).filter(|p| Path::new(p).starts_with(dir));
    points.collect::<Vec<_>>().into_iter().rev().try_for_each(|p| command("umount", &[p.as_ref()]))
}

fn netns_prefix(name: &str) -> String {
    format!("tb-{name}-")
}

fn write_facts(dir: &Path, facts: &Facts) -> Result<File> {
    let path = dir.join(FACTS);
    fs::write(&path, serde_json::to_vec(facts)?).with_context(|| format!("write {}", path.display()))?;
    Ok(File::open(&path)?)
}

fn read_facts(dir: &Path) -> Result<Facts> {
    let path = dir.join(FACTS);
    let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no run's", path.display()))
}

fn start_janitor(program: &Path, dir: &Path) -> Result<Child> {
    let mut command = Command::new(program);
    command.arg("janitor").arg(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // A group of its own: Ctrl-C must not reach it.
    command.process_group(0).spawn().with_context(|| format!("start the janitor, {}", program.display()))
}

fn command(program: &str, args: &[&std::ffi::OsStr]) -> Result<()> {
    let output = Command::new(program).args(args).output().with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        bail!("{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
