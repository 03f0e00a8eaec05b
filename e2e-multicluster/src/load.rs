//! Load from a place: an `x-wing` that flies until it is told to land.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::answers::Answer;
use crate::clock::{Seen, wait_until};
use crate::process::{Membership, Process, Spec};
use crate::programs;
use crate::topology::Place;

/// How `x-wing` asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// HTTP over TCP.
    Http,
    /// A DNS query from an unconnected UDP socket.
    Dns,
    /// Text from a connected UDP socket.
    Datagram,
}

/// Which sockets `x-wing` asks over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sockets {
    /// A new one for each request.
    Fresh,
    /// One for all, as long as it works.
    Kept,
}

/// What is asked, how, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dial {
    /// Frontends, asked in turn.
    pub targets: Vec<SocketAddr>,
    /// How.
    pub way: Way,
    /// Over which sockets.
    pub sockets: Sockets,
    /// Requests a second.
    pub rate: u32,
}

impl Dial {
    /// A request to this frontend over a new socket each, `rate` times a second.
    pub fn new(target: SocketAddr, way: Way, rate: u32) -> Self {
        Self { targets: vec![target], way, sockets: Sockets::Fresh, rate }
    }

    /// HTTP requests.
    pub fn http(target: SocketAddr, rate: u32) -> Self {
        Self::new(target, Way::Http, rate)
    }

    /// Over one socket that is kept.
    #[must_use]
    pub fn kept(self) -> Self {
        Self { sockets: Sockets::Kept, ..self }
    }

    fn spec(&self, name: &str, place: &Place) -> Result<Spec> {
        let spec = Spec::new(name, programs::program("x-wing")?, place)
            .flag("--way", name_of(&self.way))
            .flag("--sockets", name_of(&self.sockets))
            .flag("--rate", self.rate.to_string());
        Ok(self.targets.iter().fold(spec, |spec, target| spec.flag("--target", target.to_string())))
    }
}

fn name_of(value: &impl ValueEnum) -> String {
    value.to_possible_value().expect("no value is skipped").get_name().to_owned()
}

/// Running load.
#[derive(Debug)]
pub struct Load {
    process: Process,
    out: PathBuf,
}

/// Begins to ask from a place.
///
/// # Errors
/// `x-wing` cannot be started.
pub fn begin(name: &str, place: &Place, dial: &Dial, logs: &Path) -> Result<Load> {
    let (process, out) = dial.spec(name, place)?.start_with_output(logs)?;
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
pub fn ask(place: &Place, dial: &Dial, count: u64, membership: Membership) -> Result<Vec<Answer>> {
    let mut spec = dial.spec("x-wing", place)?.flag("--count", count.to_string());
    spec.membership = membership;
    let output = spec.output()?;
    parse(&String::from_utf8(output.stdout)?)
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
