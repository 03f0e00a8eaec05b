//! What may happen to the state of a cluster: its history compacted, an older copy of it restored.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::KubeCluster;
use super::cluster::ETCD_PORT;
use crate::clock::{Seen, wait_until};
use crate::netns;
use crate::process::Process;

/// How long an etcd takes to answer after its start.
const SOON: Duration = Duration::from_secs(30);

/// A copy of a cluster's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    dir: PathBuf,
    /// The revision of the last write in it.
    pub revision: i64,
}

impl KubeCluster {
    /// The revision of the last write: the highest `resourceVersion` there is.
    ///
    /// # Errors
    /// Its etcd does not answer.
    pub fn revision(&self) -> Result<i64> {
        let answer = self.ask_etcd("/v3/kv/range", &json!({"key": "AA==", "count_only": true}))?;
        let revision = answer["header"]["revision"].as_str().context("etcd says its revision")?;
        Ok(revision.parse()?)
    }

    /// Drops the whole history up to now, as the API server does every five minutes. Who asks for a version before gets
    /// 410, unless the API server still has it in memory.
    ///
    /// # Errors
    /// Its etcd does not answer, or refuses.
    pub fn compact(&self) -> Result<i64> {
        let revision = self.revision()?;
        let answer =
            self.ask_etcd("/v3/kv/compaction", &json!({"revision": revision.to_string(), "physical": true}))?;
        ensure!(answer.get("code").is_none(), "compaction: {answer}");
        Ok(revision)
    }

    /// Copies its state while everything runs on: what a crash at this moment would leave.
    ///
    /// # Errors
    /// It cannot be copied.
    pub fn save(&self, name: &str) -> Result<Saved> {
        let revision = self.revision()?;
        let dir = self.dir.join(format!("saved-{name}"));
        let etcd = self.etcd.as_ref().context("its etcd runs")?;
        let paused = Paused::pause(etcd)?;
        let copied = copy(&self.data(), &dir);
        drop(paused);
        copied.map(|()| Saved { dir, revision })
    }

    /// Brings back a state: the API server and its etcd are killed, the data replaced, both started and waited for. All
    /// revisions since are given a second time, to other writes.
    ///
    /// The controllers are started again as well, as etcd's manual asks for: a watch from a version that the server has
    /// not reached again is silent, and they do not notice. For the same reason kube-proxy is to be started again.
    ///
    /// # Errors
    /// It cannot be copied, or they are not ready in time.
    pub fn restore(&mut self, saved: &Saved) -> Result<()> {
        self.kill_apiserver()?;
        self.etcd.take().map_or(Ok(()), Process::kill)?;
        fs::remove_dir_all(self.data()).context("remove etcd's data")?;
        copy(&saved.dir, &self.data())?;
        self.start_etcd()?;
        wait_until("the etcd of the restored state", SOON, || {
            Ok(self.revision().map_or_else(|e| Seen::NotYet(format!("{e:#}")), Seen::Ready))
        })?;
        self.restart_apiserver()?;
        self.restart_controllers()
    }

    /// One request to the JSON gateway of its etcd.
    fn ask_etcd(&self, path: &str, body: &Value) -> Result<Value> {
        let body = body.to_string();
        let request = format!("POST {path} HTTP/1.0\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let answer = netns::inside(&self.site.control.netns, || {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, ETCD_PORT))?;
            stream.set_read_timeout(Some(SOON))?;
            stream.write_all(request.as_bytes())?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        })?;
        let (_, body) = answer.split_once("\r\n\r\n").context("etcd answers with HTTP")?;
        serde_json::from_str(body).with_context(|| format!("etcd answers {body:?}"))
    }
}

/// A stopped process, which goes on when this is dropped.
struct Paused(Pid);

impl Paused {
    fn pause(process: &Process) -> Result<Self> {
        let pid = Pid::from_raw(i32::try_from(process.pid())?).context("a process id")?;
        kill_process(pid, Signal::STOP)?;
        Ok(Self(pid))
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let output = Command::new("cp").arg("-a").arg(from).arg(to).output().context("run cp")?;
    ensure!(output.status.success(), "cp: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
