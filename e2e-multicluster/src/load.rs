//! Load from a place: an `x-wing` that flies until it is told to land.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::answers::Answer;
use crate::clock::{Seen, wait_until};
use crate::process::{Membership, Process, Spec};
use crate::programs;
use crate::topology::Place;

/// Running load.
#[derive(Debug)]
pub struct Load {
    process: Process,
    out: PathBuf,
}

/// Begins to ask `target` from a place, `rate` times a second.
///
/// # Errors
/// `x-wing` cannot be started.
pub fn begin(name: &str, place: &Place, target: SocketAddr, rate: u32, logs: &Path) -> Result<Load> {
    let spec = x_wing(name, place, target)?.flag("--rate", rate.to_string());
    let (process, out) = spec.start_with_output(logs)?;
    Ok(Load { process, out })
}

impl Load {
    /// The answers so far, in order of their due times.
    ///
    /// # Errors
    /// `x-wing` died, or its lines cannot be read.
    pub fn answers(&mut self) -> Result<Vec<Answer>> {
        self.process.alive()?;
        read(&self.out)
    }

    /// Waits until the answers satisfy a condition.
    ///
    /// # Errors
    /// They do not within that time.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        within: Duration,
        mut check: impl FnMut(&[Answer]) -> Seen<T>,
    ) -> Result<T> {
        wait_until(what, within, || Ok(check(&self.answers()?)))
    }

    /// Ends the load when what is under way has been answered, and gives all answers.
    ///
    /// # Errors
    /// `x-wing` failed.
    pub fn end(mut self) -> Result<Vec<Answer>> {
        self.process.terminate();
        self.process.finish(Duration::from_secs(5))?;
        read(&self.out)
    }
}

/// Asks `count` times and gives the answers. `membership` says whether the client is behind the place's agent.
///
/// # Errors
/// `x-wing` cannot be started or fails.
pub fn ask(place: &Place, target: SocketAddr, count: u64, rate: u32, membership: Membership) -> Result<Vec<Answer>> {
    let mut spec = x_wing("x-wing", place, target)?.flag("--rate", rate.to_string());
    spec = spec.flag("--count", count.to_string());
    spec.membership = membership;
    let output = spec.output()?;
    parse(&String::from_utf8(output.stdout)?)
}

fn x_wing(name: &str, place: &Place, target: SocketAddr) -> Result<Spec> {
    Ok(Spec::new(name, programs::program("x-wing")?, place).flag("--target", target.to_string()))
}

fn read(out: &Path) -> Result<Vec<Answer>> {
    parse(&fs::read_to_string(out).with_context(|| format!("read {}", out.display()))?)
}

/// A line that is still being written is not there yet.
fn parse(text: &str) -> Result<Vec<Answer>> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut answers: Vec<Answer> =
        whole.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("read x-wing's answers")?;
    answers.sort_by_key(|a| a.n);
    Ok(answers)
}
