//! An etcd of one member with a cluster's certificates beside it, and a bare HTTP client.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tombolo_certs::{AuthMode, Authority, Leaf, LeafRequest, Validity};

/// A running etcd; `tls/` of its directory holds the cluster's leaves.
pub(crate) struct Etcd {
    pub(crate) url: String,
    dir: TempDir,
    child: Child,
}

impl Etcd {
    /// None, loudly, when there is no binary.
    pub(crate) fn start(cluster: &str, authority: &Authority) -> Option<Self> {
        let binary = binary()?;
        let dir = tempfile::tempdir().unwrap();
        let tls = dir.path().join("tls");
        certificates(&tls, cluster, authority);
        let [client, peer] = [free_address(), free_address()];
        let url = format!("https://{client}");
        let log = std::fs::File::create(dir.path().join("etcd.log")).unwrap();
        let file = |name: &str| tls.join(name).display().to_string();
        let child = Command::new(binary)
            .arg(format!("--data-dir={}", dir.path().join("data").display()))
            .args([format!("--listen-client-urls={url}"), format!("--advertise-client-urls={url}")])
            .args([format!("--listen-peer-urls=http://{peer}"), format!("--initial-advertise-peer-urls=http://{peer}")])
            .arg(format!("--initial-cluster=default=http://{peer}"))
            .args(["--client-cert-auth".to_owned(), format!("--trusted-ca-file={}", file("ca.crt"))])
            .args([format!("--cert-file={}", file("server.crt")), format!("--key-file={}", file("server.key"))])
            .args(["--unsafe-no-fsync", "--log-level=warn"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Some(Self { url, dir, child })
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A loopback address with a port that was free a moment ago.
pub(crate) fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// The whole answer to a GET, once there is one.
pub(crate) async fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

/// Asks until there is an answer, or the time is up.
pub(crate) async fn wait_for<T>(limit: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        let answer = ask().await;
        if answer.is_some() || Instant::now() >= end {
            return answer;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// An authority for one test's clusters.
pub(crate) fn authority() -> Authority {
    Authority::create("Test CA", validity()).unwrap()
}

fn validity() -> Validity {
    Validity::days(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs(), 1)
}

pub(crate) fn certificates(dir: &Path, cluster: &str, authority: &Authority) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("ca.crt"), authority.certificate_pem()).unwrap();
    let server = Leaf::Server { namespace: "kube-system".into(), dns: vec![], ips: vec![] };
    let leaves = [("server", server), ("admin", Leaf::Admin), ("remote", Leaf::Remote(AuthMode::Migration))];
    for (name, leaf) in leaves {
        let issued = authority.issue(&LeafRequest { cluster: cluster.into(), leaf, validity: validity() }).unwrap();
        std::fs::write(dir.join(format!("{name}.crt")), issued.cert_pem).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), issued.key_pem).unwrap();
    }
}

fn binary() -> Option<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/etcd");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join("etcd")).find(|file| file.is_file());
    let named = std::env::var_os("TOMBOLO_ETCD").map(PathBuf::from);
    let found = named.or_else(|| built.is_file().then_some(built)).or(on_path);
    if found.is_none() {
        let forbidden = std::env::var_os("TOMBOLO_FORBID_SKIPS").is_some_and(|v| v == "1");
        assert!(!forbidden, "no etcd: set TOMBOLO_ETCD, or run `cargo xtask setup`");
        eprintln!("SKIPPED: no etcd; set TOMBOLO_ETCD, or run `cargo xtask setup`");
    }
    found
}
