//! A real etcd: where to find one that is good enough, and one server of a cluster.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::netns;
use crate::process::{Process, Spec};
use crate::programs;
use crate::story;
use crate::topology::Place;

/// The port clients use.
pub const PORT: u16 = 2379;

/// The port of plain metrics, inside its own namespace alone.
const METRICS_PORT: u16 = 2381;

/// An etcd program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// Where it is.
    pub program: PathBuf,
    /// Its version.
    pub version: Version,
}

/// Major, minor, patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// Whether compaction is an administrator's right: 3.5.30 and 3.6.16 were seen to deny it to others, 3.6.5 not.
    pub fn guards_compaction(self) -> bool {
        self >= Self(3, 6, 16) || (self >= Self(3, 5, 30) && self < Self(3, 6, 0))
    }
}

/// Finds an etcd: `TOMBOLO_ETCD`; PATH, if it guards compaction; the one that `cargo xtask setup` built; else
/// whatever is on PATH or where Debian's package puts it: see [`Engine::warn_if_old`].
///
/// # Errors
/// There is none, or `TOMBOLO_ETCD` is no etcd.
pub fn locate() -> Result<Engine> {
    if let Some(program) = std::env::var_os("TOMBOLO_ETCD") {
        return examine(Path::new(&program)).context("TOMBOLO_ETCD");
    }
    let on_path = programs::on_path("etcd").and_then(|p| examine(&p).ok());
    let debian = || examine(Path::new("/usr/bin/etcd")).ok();
    if let Some(engine) = on_path.iter().cloned().chain(built()).find(|e| e.version.guards_compaction()) {
        return Ok(engine);
    }
    on_path.or_else(debian).context("no etcd was found")
}

impl Engine {
    /// Warns, loudly, of an engine that lets peers compact each other's stores.
    pub fn warn_if_old(&self) {
        let Version(major, minor, patch) = self.version;
        if !self.version.guards_compaction() {
            story::warn(&format!(
                "{} is etcd {major}.{minor}.{patch}: before 3.5.30 and 3.6.16 ANY PEER MAY COMPACT the store of \
                 another cluster. Good enough for a look; for anything else run `cargo xtask setup --all` (needs Go) \
                 or install etcd 3.6.16",
                self.program.display()
            ));
        }
    }
}

/// `target/tools/etcd/etcd`, wherever the target folder is: above the programs' own folder.
fn built() -> Option<Engine> {
    let folder = programs::folder().ok()?;
    let mut tools = folder.ancestors().map(|dir| dir.join("tools/etcd"));
    tools.find_map(|dir| examine(&dir).ok().or_else(|| examine(&dir.join("etcd")).ok()))
}

fn examine(program: &Path) -> Result<Engine> {
    let output = Command::new(program).arg("--version").output();
    let output = output.with_context(|| format!("run {} --version", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = parse_version(&text).with_context(|| format!("{} is no etcd", program.display()))?;
    Ok(Engine { program: program.to_owned(), version })
}

fn parse_version(text: &str) -> Option<Version> {
    let line = text.lines().find_map(|line| line.strip_prefix("etcd Version: "))?;
    let mut numbers = line.trim().split(['.', '-', '+']).map(|n| n.parse().ok());
    Some(Version(numbers.next()??, numbers.next()??, numbers.next()??))
}

/// One cluster's etcd server and its data.
#[derive(Debug)]
pub struct Server {
    engine: Engine,
    name: String,
    place: Place,
    tls: PathBuf,
    data: PathBuf,
    logs: PathBuf,
    lives: u32,
    extra: Vec<String>,
    process: Option<Process>,
}

/// Where a server's store stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revisions {
    /// The revision of the last write.
    pub current: i64,
    /// The revision up to which history is gone.
    pub compacted: i64,
}

impl Server {
    /// A server that is not started yet, with the TLS files of a cluster's directory.
    pub fn new(engine: Engine, cluster: &str, place: &Place, tls: &Path, data: &Path, logs: &Path) -> Self {
        Self {
            engine,
            name: cluster.to_owned(),
            place: place.clone(),
            tls: tls.to_owned(),
            data: data.to_owned(),
            logs: logs.to_owned(),
            lives: 0,
            extra: Vec::new(),
            process: None,
        }
    }

    /// Starts it on the data that is there, if any.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&mut self) -> Result<()> {
        self.lives += 1;
        self.process = Some(self.spec().start(&self.logs)?);
        Ok(())
    }

    /// Kills it, as a crash would. The data stays.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), Process::kill)
    }

    /// Kills it and starts it with nothing: another store, with another cluster id and low revisions.
    ///
    /// # Errors
    /// The data cannot be removed, or it cannot be started.
    pub fn restart_empty(&mut self) -> Result<()> {
        self.kill()?;
        fs::remove_dir_all(&self.data).context("remove etcd's data")?;
        self.start()
    }

    /// Kills it and starts it on its data.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.start()
    }

    /// Kills it and starts it on its data, with these flags besides the usual.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn restart_with(&mut self, extra: &[&str]) -> Result<()> {
        self.extra = extra.iter().map(|flag| (*flag).to_owned()).collect();
        self.restart()
    }

    /// Where its store stands, by its own metrics.
    ///
    /// # Errors
    /// It does not answer.
    pub fn revisions(&self) -> Result<Revisions> {
        let metrics = netns::inside(&self.place.netns, || {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, METRICS_PORT))?;
            stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        })?;
        let gauge = |name: &str| {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            parse_gauge(line.with_context(|| format!("etcd's metrics have no {name}"))?)
        };
        Ok(Revisions {
            current: gauge("etcd_debugging_mvcc_current_revision")?,
            compacted: gauge("etcd_debugging_mvcc_compact_revision")?,
        })
    }

    /// Lets it go on without this process.
    pub fn leave(self) {
        self.process.into_iter().for_each(Process::leave);
    }

    /// Checks that it runs.
    ///
    /// # Errors
    /// It ended by itself.
    pub fn alive(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::alive)
    }

    /// The address clients use.
    pub fn url(&self) -> String {
        url(self.place.address.v4)
    }

    /// Where it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    fn spec(&self) -> Spec {
        let peer = "http://127.0.0.1:2380";
        let listen = format!("{},{}", self.url(), url(Ipv4Addr::LOCALHOST));
        let spec = Spec::new(format!("{}-etcd", self.name), &self.engine.program, &self.place)
            .flag("--name", &self.name)
            .flag("--data-dir", &self.data)
            .flag("--listen-client-urls", listen)
            .flag("--advertise-client-urls", self.url())
            .flag("--listen-metrics-urls", format!("http://127.0.0.1:{METRICS_PORT}"))
            .flag("--listen-peer-urls", peer)
            .flag("--initial-advertise-peer-urls", peer)
            .flag("--initial-cluster", format!("{}={peer}", self.name))
            .flag("--initial-cluster-state", "new")
            // Part of what etcd derives its cluster id from: each empty start is another store.
            .flag("--initial-cluster-token", format!("{}-{}-{}", self.name, self.lives, crate::clock::monotonic_us()))
            .arg("--client-cert-auth")
            .flag("--trusted-ca-file", self.tls.join("ca.crt"))
            .flag("--cert-file", self.tls.join("server.crt"))
            .flag("--key-file", self.tls.join("server.key"))
            .arg("--enable-grpc-gateway=false")
            .flag("--log-level", "warn")
            .flag("--log-outputs", "stderr");
        let spec = self.extra.iter().fold(spec, Spec::arg);
        // A machine that dies takes the whole mesh with it, so nothing is gained by waiting for its disk.
        if self.engine.version >= Version(3, 5, 0) { spec.arg(OsStr::new("--unsafe-no-fsync")) } else { spec }
    }
}

/// Prometheus writes large numbers as 1.2345e+06.
fn parse_gauge(text: &str) -> Result<i64> {
    let number: f64 = text.trim().parse().with_context(|| format!("{text:?} is no number"))?;
    #[expect(clippy::cast_possible_truncation, reason = "a test's revisions are small whole numbers")]
    Ok(number as i64)
}

fn url(address: Ipv4Addr) -> String {
    format!("https://{address}:{PORT}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_etcd_prints() {
        assert_eq!(parse_version("etcd Version: 3.6.5\nGit SHA: x\n"), Some(Version(3, 6, 5)));
        assert_eq!(parse_version("etcd Version: 3.5.16-rc.1\n"), Some(Version(3, 5, 16)));
        assert_eq!(parse_version("zsh: 3.6.5"), None);
        let guards =
            |patches: &[(u32, u32)]| patches.iter().map(|(b, c)| Version(3, *b, *c).guards_compaction()).collect();
        let seen: Vec<bool> = guards(&[(4, 23), (5, 16), (5, 30), (6, 5), (6, 16)]);
        assert_eq!(seen, [false, false, true, false, true]);
    }
}
