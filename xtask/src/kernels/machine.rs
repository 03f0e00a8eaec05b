//! A machine in QEMU: what it runs, and what its console says of it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How long a machine may run. Ten minutes were seen where others had ten times more to do than there was machine.
const LIMIT: Duration = Duration::from_secs(1200);

/// The kernel's parameters. Where others keep the machine busy, an emulated timer fails the check of timers.
const KERNEL: &str = "console=ttyS0 quiet panic=-1 no_timer_check";

/// What stands before a test program's exit code on the console. QEMU's own exit code says nothing of it.
const CODE: &str = "tombolo-exit";

/// Random cases of a property: an emulated processor is slow, and the property is about the code, not the kernel.
const CASES: u32 = 8;

/// The first program of the machine: file systems, the loopback, modules, then each test program, then power off.
pub(super) fn init(programs: &[&str], words: &[String], variables: &[(&str, String)]) -> String {
    let mut script = "#!/bin/busybox sh\n\
        /bin/busybox --install -s /bin 2>/dev/null\n\
        export PATH=/bin HOME=/\n\
        mount -t proc proc /proc\n\
        mount -t sysfs sys /sys\n\
        mount -t devtmpfs dev /dev\n\
        mount -t cgroup2 none /sys/fs/cgroup\n\
        mount -t bpf none /sys/fs/bpf\n\
        mount -t tmpfs tmp /tmp\n\
        mount -t tmpfs run /run\n\
        ip link set lo up\n\
        for module in /modules/*.ko; do insmod $module; done\n"
        .to_owned();
    let exports = variables.iter().map(|(name, value)| format!("export {name}={value}\n"));
    script.extend(exports);
    let words: String = words.iter().map(|word| format!(" '{word}'")).collect();
    for program in programs {
        let _ = write!(script, "PROPTEST_CASES={CASES} {program} --test-threads=1{words}\necho {CODE} $? {program}\n");
    }
    script + "poweroff -f\n"
}

/// What a machine's console showed.
#[derive(Debug)]
pub(super) struct Outcome {
    console: String,
    log: PathBuf,
    took: Duration,
}

/// Boots a kernel without hardware virtualisation, which may be there and not work, and waits until it is off.
pub(super) fn boot(image: &Path, initramfs: &Path, log: &Path) -> Result<Outcome> {
    let begun = Instant::now();
    let mut qemu = Command::new("timeout");
    qemu.arg("--kill-after=5").arg(LIMIT.as_secs().to_string()).arg("qemu-system-x86_64");
    qemu.args(["-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", "1024", "-smp", "1"]);
    qemu.args(["-display", "none", "-no-reboot", "-nodefaults", "-serial", "stdio"]);
    qemu.arg("-kernel").arg(image).arg("-initrd").arg(initramfs).args(["-append", KERNEL]);
    let console = File::create(log).with_context(|| format!("create {}", log.display()))?;
    let errors = console.try_clone()?;
    let status = qemu.stdin(Stdio::null()).stdout(console).stderr(errors).status().context("cannot start timeout")?;
    let console = String::from_utf8_lossy(&fs::read(log)?).replace('\r', "");
    ensure!(status.success(), "not off after {} s: {status}\n{}", LIMIT.as_secs(), tail(&console));
    Ok(Outcome { console, log: log.to_owned(), took: begun.elapsed() })
}

impl Outcome {
    /// What was run, when every program ran some test and failed none.
    pub(super) fn judge(self) -> Result<String> {
        let codes: Vec<_> = self.console.lines().filter_map(|line| line.strip_prefix(CODE)).collect();
        if codes.is_empty() {
            bail!("no test program ended, see {}\n{}", self.log.display(), tail(&self.console));
        }
        if let Some(code) = codes.iter().find(|code| !code.starts_with(" 0 ")) {
            bail!("{} failed, see {}\n{}", code.trim(), self.log.display(), failures(&self.console));
        }
        let passed: u32 = self.console.lines().filter_map(passed).sum();
        ensure!(passed > 0, "no test ran, see {}", self.log.display());
        Ok(format!("{passed} tests passed, {} s", self.took.as_secs()))
    }
}

/// How many tests passed, in the last line of a test program.
fn passed(line: &str) -> Option<u32> {
    line.strip_prefix("test result: ok. ")?.split(' ').next()?.parse().ok()
}

/// What the test programs said of their failures, or the last lines where they said nothing.
fn failures(console: &str) -> String {
    let said: Vec<_> = console.split("\nfailures:\n").skip(1).step_by(2).collect();
    if said.is_empty() { tail(console) } else { said.join("\n") }
}

fn tail(console: &str) -> String {
    let lines: Vec<_> = console.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::{Duration, Outcome, init};

    fn judged(console: &str) -> Result<String, String> {
        let outcome = Outcome { console: console.to_owned(), log: "log".into(), took: Duration::from_secs(3) };
        outcome.judge().map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn every_program_must_end_well_and_have_run_something() {
        let ok = "test result: ok. 3 passed; 0 failed\ntombolo-exit 0 one\ntest result: ok. 4 passed; 0\ntombolo-exit 0 two\n";
        assert_eq!(judged(ok).unwrap(), "7 tests passed, 3 s");
        assert!(judged("Kernel panic").unwrap_err().contains("Kernel panic"));
        assert!(
            judged("test result: ok. 0 passed; 0 failed\ntombolo-exit 0 one\n").unwrap_err().contains("no test ran")
        );
        let failed =
            "\nfailures:\n\nleft: 1 right: 2\n\nfailures:\n    a::b\n\ntombolo-exit 101 one\ntombolo-exit 0 two\n";
        let said = judged(failed).unwrap_err();
        assert!(said.contains("101 one") && said.contains("left: 1 right: 2"), "{said}");
    }

    #[test]
    fn the_first_program_runs_each_with_its_words() {
        let script = init(&["one", "two"], &["udp".to_owned()], &[("A", "b".to_owned())]);
        assert!(script.contains("export A=b\n"));
        assert!(script.contains(" one --test-threads=1 'udp'\necho tombolo-exit $? one\n"), "{script}");
        assert!(script.ends_with("two\npoweroff -f\n"));
    }
}
