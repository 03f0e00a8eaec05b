//! Starts, kills and empties an etcd of one member.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use etcd_client::Client;
use tempfile::TempDir;
use tombolo_store::StoreConfig;
use tombolo_store::dial::{Dialer, Reconnect};

use super::{Pki, until};

pub(crate) struct Etcd {
    pub(crate) pki: Pki,
    dir: TempDir,
    binary: PathBuf,
    ports: [u16; 2],
    life: u32,
    token: u32,
    child: Child,
}

/// What a restart keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// The data.
    Same,
    /// Nothing: another `cluster_id`.
    New,
    /// Nothing but the `cluster_id`.
    NewWithSameId,
}

impl Etcd {
    /// None, loudly, when there is no binary.
    pub(crate) async fn start() -> Option<Self> {
        let binary = binary()?;
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::new(dir.path());
        let ports = [free_port(), free_port()];
        let child = spawn(&binary, dir.path(), &pki, ports, 0, 0);
        let etcd = Self { pki, dir, binary, ports, life: 0, token: 0, child };
        etcd.answers().await;
        Some(etcd)
    }

    /// Kills it at once (SIGKILL).
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again after [`Self::kill`].
    pub(crate) async fn restart(&mut self, life: Life) {
        self.life += u32::from(life != Life::Same);
        self.token += u32::from(life == Life::New);
        self.child = spawn(&self.binary, self.dir.path(), &self.pki, self.ports, self.life, self.token);
        self.answers().await;
    }

    pub(crate) fn store(&self, certificate: &str) -> StoreConfig {
        StoreConfig {
            endpoints: vec![format!("https://we.mesh.cilium.io:{}", self.ports[0])],
            tls: self.pki.files(certificate),
            host_aliases: BTreeMap::from([("we.mesh.cilium.io".into(), vec!["127.0.0.1".parse().unwrap()])]),
        }
    }

    pub(crate) async fn client(&self, certificate: &str) -> Client {
        let channel = Dialer::new(&self.store(certificate)).unwrap().channel(Reconnect::Always).await.unwrap();
        Client::from_channel(etcd_client::Channel::Tonic(channel), None).await.unwrap()
    }

    async fn answers(&self) {
        let dialer = Dialer::new(&self.store("admin")).unwrap();
        until("etcd answers", async || {
            let Ok(channel) = dialer.clone().channel(Reconnect::Never).await else { return false };
            let client = Client::from_channel(etcd_client::Channel::Tonic(channel), None).await.unwrap();
            client.kv_client().get("/", None).await.is_ok()
        })
        .await;
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn spawn(binary: &Path, dir: &Path, pki: &Pki, ports: [u16; 2], life: u32, token: u32) -> Child {
    let [client, peer] = ports.map(|port| format!("127.0.0.1:{port}"));
    let tls = pki.files("server");
    let log = std::fs::File::create(dir.join(format!("etcd-{life}.log"))).unwrap();
    Command::new(binary)
        .arg(format!("--data-dir={}", dir.join(format!("data-{life}")).display()))
        .arg(format!("--listen-client-urls=https://{client}"))
        .arg(format!("--advertise-client-urls=https://{client}"))
        .arg(format!("--listen-peer-urls=http://{peer}"))
        .arg(format!("--initial-advertise-peer-urls=http://{peer}"))
        .arg(format!("--initial-cluster=default=http://{peer}"))
        .arg(format!("--initial-cluster-token=life-{token}"))
        .arg("--client-cert-auth")
        .arg(format!("--trusted-ca-file={}", tls.ca.display()))
        .arg(format!("--cert-file={}", tls.cert.display()))
        .arg(format!("--key-file={}", tls.key.display()))
        .args(["--unsafe-no-fsync", "--log-level=warn", "--max-request-bytes=1572864"])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn binary() -> Option<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/etcd");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join("etcd")).find(|file| file.is_file());
    let found = std::env::var_os("TOMBOLO_ETCD").map(PathBuf::from).or_else(|| built.is_file().then_some(built));
    let found = found.or(on_path);
    if found.is_none() {
        let forbidden = std::env::var_os("TOMBOLO_FORBID_SKIPS").is_some_and(|v| v == "1");
        assert!(!forbidden, "no etcd: set TOMBOLO_ETCD, or run `cargo xtask setup`");
        #[expect(clippy::print_stderr, reason = "a skip must be seen")]
        {
            eprintln!("SKIPPED: no etcd; set TOMBOLO_ETCD, or run `cargo xtask setup`");
        }
    }
    found
}
