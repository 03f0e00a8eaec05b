//! What the program does besides running: it looks at a machine, or leaves it.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use tombolo_ebpf::{Need, Probe, State};

use crate::config::{Flags, Output};
use crate::snapshot;

/// Tells what of the datapath this machine can do; an error when it cannot run here.
pub fn probe(flags: &Flags, output: Output, out: &mut impl Write) -> Result<()> {
    let probe = tombolo_ebpf::probe(&flags.datapath().map_err(|mistake| anyhow!("--cgroup: {mistake}"))?);
    match output {
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&probe)?)?,
        Output::Text => print(&probe, out)?,
    }
    if !probe.is_usable() {
        bail!("the datapath cannot run here: what is required is absent");
    }
    Ok(())
}

fn print(probe: &Probe, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "Linux {}", probe.kernel)?;
    for check in &probe.checks {
        let sign = match (check.state, check.need) {
            (State::Present, _) => "yes",
            (State::Absent, Need::Required) => "NO",
            (State::Absent, Need::Optional) => "no",
            (State::Unknown, _) => "?",
        };
        let means = if check.state == State::Present { "" } else { &check.without };
        let words = [check.found.as_str(), means].into_iter().filter(|text| !text.is_empty());
        writeln!(out, "  {sign:<3}  {}{}", check.name, words.map(|text| format!(": {text}")).collect::<String>())?;
    }
    if probe.programs.is_empty() {
        return writeln!(out, "no program is on these hooks");
    }
    writeln!(out, "programs on these hooks, those of an agent that runs among them:")?;
    probe.programs.iter().try_for_each(|program| writeln!(out, "  {program}"))
}

/// Takes away all that an agent left behind, and says what that was. Once more does nothing.
pub fn uninstall(flags: &Flags, out: &mut impl Write) -> Result<()> {
    if UnixStream::connect(&flags.admin_socket).is_ok() {
        bail!("an agent answers at {}: stop it first", flags.admin_socket.display());
    }
    let removed = tombolo_ebpf::uninstall(&flags.bpffs)?;
    let mut count = removed.links.len() + removed.maps.len();
    for link in &removed.links {
        writeln!(out, "detached {link}")?;
    }
    for map in removed.maps.iter().chain(&removed.folder) {
        writeln!(out, "removed {}", map.display())?;
    }
    for file in [&flags.state_dir.join(snapshot::FILE), &flags.state_dir.join(snapshot::NEW_FILE), &flags.admin_socket]
    {
        count += usize::from(remove(file, out)?);
    }
    // A folder with something else in it is not ours alone.
    if fs::remove_dir(&flags.state_dir).is_ok() {
        writeln!(out, "removed {}", flags.state_dir.display())?;
    }
    if count == 0 {
        writeln!(out, "nothing was left of an agent")?;
    }
    Ok(())
}

fn remove(file: &Path, out: &mut impl Write) -> Result<bool> {
    match fs::remove_file(file) {
        Ok(()) => writeln!(out, "removed {}", file.display()).map(|()| true).map_err(Into::into),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("removing {}", file.display())),
    }
}
