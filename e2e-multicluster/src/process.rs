//! Processes of a mesh: started in a place, written to a log, noticed when they die, ended when dropped.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::clock::{Seen, wait_through, wait_until};
use crate::topology::Place;

/// How long a process may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// Lines of a log that a failure quotes.
const TAIL: usize = 20;

/// A running process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// A program with its arguments and the place it runs in.
#[derive(Clone, Debug)]
pub struct Spec {
    /// What it is called in messages; also its log's name.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Extra environment.
    pub env: Vec<(String, String)>,
    /// Namespace and cgroup.
    pub place: Place,
    /// Whether it runs in the place's cgroup, and so behind the place's agent.
    pub membership: Membership,
}

/// Whether a process is in its place's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Membership {
    /// It is.
    Inside,
    /// It is in this other cgroup, in the same network namespace.
    Outside(PathBuf),
}

impl Spec {
    /// A process in a place and its cgroup.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>, place: &Place) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            place: place.clone(),
            membership: Membership::Inside,
        }
    }

    /// With one more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// With a flag and its value.
    #[must_use]
    pub fn flag(self, flag: &str, value: impl AsRef<OsStr>) -> Self {
        self.arg(flag).arg(value)
    }

    /// With a variable in its environment.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The shell enters the cgroup, then becomes the program inside the namespace. `nsenter` and not `ip netns exec`:
    /// that one remounts /sys, and the cgroup tree would be gone.
    fn command(&self) -> Command {
        const ENTER: &str = r#"echo $$ >"$1/cgroup.procs" && net=$2 && shift 2 && exec nsenter --net="$net" -- "$@""#;
        let cgroup = match &self.membership {
            Membership::Inside => &self.place.cgroup,
            Membership::Outside(other) => other,
        };
        let mut command = Command::new("sh");
        command.args(["-c", ENTER, "sh"]).arg(cgroup).arg(format!("/run/netns/{}", self.place.netns));
        command.arg(&self.program).args(&self.args).envs(self.env.iter().map(|(k, v)| (k, v)));
        // Logs are read as files.
        command.env("NO_COLOR", "1");
        // A group of its own: Ctrl-C is the harness's to handle, not the mesh's.
        command.stdin(Stdio::null()).process_group(0);
        command
    }

    /// Starts it. Standard output and error go to `<logs>/<name>.log`, appended.
    ///
    /// # Errors
    /// The log cannot be opened or the shell not be started. A program that is not there is noticed by
    /// [`Process::alive`].
    pub fn start(&self, logs: &Path) -> Result<Process> {
        let log = logs.join(format!("{}.log", self.name));
        let out = File::options().create(true).append(true).open(&log).context("open a log")?;
        self.start_to(out.try_clone()?, out, log)
    }

    /// Starts it with its standard output in a new file `<logs>/<name>.out`.
    ///
    /// # Errors
    /// As [`Spec::start`].
    pub fn start_with_output(&self, logs: &Path) -> Result<(Process, PathBuf)> {
        let (log, out) = (logs.join(format!("{}.log", self.name)), logs.join(format!("{}.out", self.name)));
        let err = File::options().create(true).append(true).open(&log).context("open a log")?;
        let process = self.start_to(File::create(&out)?, err, log)?;
        Ok((process, out))
    }

    fn start_to(&self, out: File, err: File, log: PathBuf) -> Result<Process> {
        let child = self.command().stdout(out).stderr(err).spawn();
        Ok(Process { name: self.name.clone(), child: child.with_context(|| format!("start {}", self.name))?, log })
    }

    /// Runs it to its end and gives its output.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn output(&self) -> Result<Output> {
        self.command().output().with_context(|| format!("run {}", self.name))
    }
}

impl Process {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How long it waited for a CPU since its start, by the thread that waited longest: what the neighbours on this
    /// machine cost it. Nothing where the kernel does not count it.
    pub fn starved(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten().flatten();
        let waits = tasks.filter_map(|task| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split(' ').nth(1)?.parse().ok()
        });
        Duration::from_nanos(waits.max().unwrap_or(0))
    }

    /// What of its memory is in RAM now, in bytes.
    ///
    /// # Errors
    /// It ended.
    pub fn resident(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("it has ended")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    /// Its log so far.
    fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Checks that it runs.
    ///
    /// # Errors
    /// It ended; the message has the end of its log.
    pub fn alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended by itself ({status}); its log ends:\n{}", self.name, tail(&self.log()));
        }
        Ok(())
    }

    /// Kills it, as a crash would.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end, with SIGTERM, and waits until it has.
    ///
    /// # Errors
    /// It does not end in time, or fails.
    pub fn stop(mut self) -> Result<()> {
        self.terminate();
        self.finish(GRACE)
    }

    /// Lets it go on without this process.
    pub fn leave(self) {
        std::mem::forget(self);
    }

    /// Waits for it to end by itself.
    ///
    /// # Errors
    /// It does not within that time, or fails.
    pub fn finish(mut self, within: Duration) -> Result<()> {
        let child = &mut self.child;
        let status = wait_until(&format!("the end of {}", self.name), within, || {
            Ok(child.try_wait()?.map_or_else(|| Seen::NotYet("it runs".into()), Seen::Ready))
        })?;
        if !status.success() {
            bail!("{} failed ({status}); its log ends:\n{}", self.name, tail(&self.log()));
        }
        Ok(())
    }

    /// Sends SIGTERM and does not wait.
    pub fn terminate(&mut self) {
        // Only while it has not been waited for is the process id certainly ours.
        let running = matches!(self.child.try_wait(), Ok(None));
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|_| running) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    fn end(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        self.terminate();
        let child = &mut self.child;
        let ended = wait_through(&format!("the end of {}", self.name), GRACE, || {
            Ok(child.try_wait()?.map_or_else(|| Seen::NotYet("it ignores SIGTERM".into()), |_| Seen::Ready(())))
        });
        if ended.is_err() {
            self.child.kill()?;
            self.child.wait()?;
        }
        ended
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// The last lines of a log, indented.
fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_the_end_of_a_log() {
        assert_eq!(tail("a\nb"), "    a\n    b");
        assert_eq!(tail(&"x\n".repeat(50)).lines().count(), TAIL);
    }
}
