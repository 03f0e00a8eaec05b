//! One cluster's control plane: its etcd, API server and controllers, in the site's control namespace.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Api;
use crate::clock::{Seen, wait_until};
use crate::process::{Process, Spec};
use crate::run::Run;
use crate::topology::Site;

/// The port of the API server, on the control place's address.
pub const PORT: u16 = 6443;

/// The user of [`KubeCluster::nobody`], to whom no role is bound.
pub const NOBODY: &str = "nobody";

/// The port of its etcd's clients, on loopback: the mesh's own store has etcd's usual one.
pub(super) const ETCD_PORT: u16 = 12379;

/// How long until an API server is ready on a busy machine; 3 s on an idle one.
const READY: Duration = Duration::from_secs(90);

/// The controllers that a mesh sees the work of. No scheduler and no node lifecycle: the harness's kubelet is both.
const CONTROLLERS: [&str; 9] = [
    "namespace-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
    "endpointslice-controller",
    "endpointslice-mirroring-controller",
    "deployment-controller",
    "replicaset-controller",
    "daemonset-controller",
    "garbage-collector-controller",
];

/// A running cluster.
#[derive(Debug)]
pub struct KubeCluster {
    /// Its share of the machine.
    pub site: Site,
    pub(super) kit: PathBuf,
    pub(super) dir: PathBuf,
    pub(super) logs: PathBuf,
    pub(super) etcd: Option<Process>,
    apiserver: Option<Process>,
    manager: Option<Process>,
    flags: Vec<OsString>,
}

impl KubeCluster {
    /// Starts a cluster and waits until its API server is ready. `flags` are the API server's beside the usual.
    ///
    /// # Errors
    /// A file cannot be written, a process dies, or it is not ready in time.
    pub fn start(run: &Run, site: &Site, kit: &Path, flags: &[&str]) -> Result<Self> {
        let dir = run.dir().join(format!("{}-kube", site.name));
        fs::create_dir_all(&dir)?;
        let mut cluster = Self {
            site: site.clone(),
            kit: kit.to_owned(),
            dir,
            logs: run.logs(),
            etcd: None,
            apiserver: None,
            manager: None,
            flags: flags.iter().map(Into::into).collect(),
        };
        cluster.write_keys()?;
        cluster.start_etcd()?;
        cluster.start_apiserver()?;
        cluster.wait_ready(READY)?;
        cluster.start_manager()?;
        Ok(cluster)
    }

    /// As the administrator.
    pub fn admin(&self) -> Api {
        self.api("admin")
    }

    /// As a user who may do nothing.
    pub fn nobody(&self) -> Api {
        self.api(NOBODY)
    }

    fn api(&self, user: &str) -> Api {
        Api { netns: self.site.control.netns.clone(), kubeconfig: self.kubeconfig(user) }
    }

    /// The kubeconfig of a user: `admin` or `nobody`. It is good wherever the control place's address is reached.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.dir.join(format!("{user}.kubeconfig"))
    }

    /// The certificate that the API server's is verified by.
    pub fn authority(&self) -> PathBuf {
        self.dir.join("certs/apiserver.crt")
    }

    /// The address of the API server.
    pub fn server(&self) -> String {
        format!("https://{}:{PORT}", self.site.control.address.v4)
    }

    /// Waits until the API server is ready.
    ///
    /// # Errors
    /// It is not within that time, or a process died.
    pub fn wait_ready(&mut self, within: Duration) -> Result<()> {
        let api = self.admin();
        wait_until(&format!("the API server of {}", self.site.name), within, || {
            self.alive()?;
            if !self.authority().exists() {
                return Ok(Seen::NotYet("it has no certificate yet".to_owned()));
            }
            Ok(api.ready().map_or_else(|e| Seen::NotYet(format!("{e:#}")), Seen::Ready))
        })
    }

    /// Kills the API server, as a crash would.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill_apiserver(&mut self) -> Result<()> {
        self.apiserver.take().map_or(Ok(()), Process::kill)
    }

    /// Starts the API server on what its etcd has; [`Self::wait_ready`] waits for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_apiserver(&mut self) -> Result<()> {
        ensure!(self.apiserver.is_none(), "the API server of {} runs", self.site.name);
        self.apiserver = Some(self.apiserver_spec().start(&self.logs)?);
        Ok(())
    }

    /// Kills the API server, starts it again and waits until it is ready.
    ///
    /// # Errors
    /// It is not ready in time.
    pub fn restart_apiserver(&mut self) -> Result<()> {
        self.kill_apiserver()?;
        self.start_apiserver()?;
        self.wait_ready(READY)
    }

    /// The process id of the API server, while it runs.
    pub fn apiserver_pid(&self) -> Option<u32> {
        self.apiserver.as_ref().map(Process::pid)
    }

    /// Checks that all that was started still runs.
    ///
    /// # Errors
    /// Something ended by itself.
    pub fn alive(&mut self) -> Result<()> {
        self.etcd.iter_mut().chain(&mut self.apiserver).chain(&mut self.manager).try_for_each(Process::alive)
    }

    /// Tokens, kubeconfigs, and the key that signs service accounts' tokens.
    fn write_keys(&self) -> Result<()> {
        let mut users = String::new();
        for (user, group) in [("admin", "system:masters"), (NOBODY, "nobodies")] {
            let token = format!("{user}-of-{}-{}", self.site.name, crate::clock::monotonic_us());
            users.push_str(&format!("{token},{user},{user},{group}\n"));
            fs::write(self.kubeconfig(user), self.kubeconfig_text(user, &token))?;
        }
        fs::write(self.dir.join("tokens.csv"), users)?;
        let key = self.dir.join("accounts.key");
        let made = Command::new("openssl").args(["genrsa", "-out"]).arg(&key).arg("2048").output();
        let made = made.context("run openssl")?;
        ensure!(made.status.success(), "openssl genrsa: {}", String::from_utf8_lossy(&made.stderr));
        Ok(())
    }

    /// The file of a person, with a name for each thing that `connect --context` goes by.
    fn kubeconfig_text(&self, user: &str, token: &str) -> String {
        let (name, server, authority) = (&self.site.name, self.server(), self.authority());
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: {name}\n\
             clusters:\n- name: {name}\n  cluster:\n    server: {server}\n    certificate-authority: {}\n\
             users:\n- name: {user}-{name}\n  user:\n    token: {token}\n\
             contexts:\n- name: {name}\n  context:\n    cluster: {name}\n    user: {user}-{name}\n",
            authority.display()
        )
    }

    pub(super) fn start_etcd(&mut self) -> Result<()> {
        let clients = format!("http://127.0.0.1:{ETCD_PORT}");
        let peers = format!("http://127.0.0.1:{}", ETCD_PORT + 1);
        let spec = self
            .part("kube-etcd", "etcd", "200MiB")
            .flag("--name", "kube")
            .flag("--data-dir", self.data())
            .flag("--listen-client-urls", &clients)
            .flag("--advertise-client-urls", &clients)
            .flag("--listen-peer-urls", &peers)
            .flag("--initial-advertise-peer-urls", &peers)
            .flag("--initial-cluster", format!("kube={peers}"))
            .arg("--unsafe-no-fsync")
            .flag("--log-level", "warn");
        self.etcd = Some(spec.start(&self.logs)?);
        Ok(())
    }

    /// Where its etcd keeps its data.
    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("etcd")
    }

    fn apiserver_spec(&self) -> Spec {
        let address = self.site.control.address.v4.to_string();
        let key = self.dir.join("accounts.key");
        let spec = self
            .part("kube-apiserver", "apiserver", "400MiB")
            .flag("--etcd-servers", format!("http://127.0.0.1:{ETCD_PORT}"))
            .flag("--bind-address", &address)
            // It cannot find one out where there is no default route.
            .flag("--advertise-address", &address)
            .flag("--secure-port", PORT.to_string())
            // What the Service `kubernetes` leads to is of no interest, and its leases write for ever.
            .flag("--endpoint-reconciler-type", "none")
            .flag("--service-cluster-ip-range", self.site.service_ranges().join(","))
            .flag("--cert-dir", self.dir.join("certs"))
            .flag("--token-auth-file", self.dir.join("tokens.csv"))
            .flag("--authorization-mode", "RBAC")
            .flag("--service-account-issuer", "https://kubernetes.default.svc")
            .flag("--service-account-signing-key-file", &key)
            .flag("--service-account-key-file", &key)
            .arg("--allow-privileged")
            // The kubelet of this harness gives tokens to Pods, and nobody removes a taint from a Node.
            .flag("--disable-admission-plugins", "ServiceAccount,TaintNodesByCondition")
            .flag("-v", "0");
        self.flags.iter().fold(spec, Spec::arg)
    }

    /// Starts the controllers again. Their clients wait up to a minute before they ask an API server again that was
    /// away, which is nothing that a mesh is to be measured by.
    ///
    /// # Errors
    /// They cannot be started.
    pub fn restart_controllers(&mut self) -> Result<()> {
        self.stop_manager()?;
        self.start_manager()
    }

    fn stop_manager(&mut self) -> Result<()> {
        self.manager.take().map_or(Ok(()), Process::kill)
    }

    fn start_manager(&mut self) -> Result<()> {
        let spec = self
            .part("kube-controllers", "controller-manager", "200MiB")
            .flag("--kubeconfig", self.kubeconfig("admin"))
            .arg("--leader-elect=false")
            .flag("--secure-port", "0")
            // What Pods verify the API server by, in every namespace.
            .flag("--root-ca-file", self.authority())
            .flag("--controllers", CONTROLLERS.join(","))
            .arg("--use-service-account-credentials=false")
            .flag("--mirroring-endpointslice-updates-batch-period", "0s")
            // Its default of 20 requests a second would be what a test of many endpoints measures.
            .flag("--kube-api-qps", "2000")
            .flag("--kube-api-burst", "4000")
            .flag("--concurrent-service-endpoint-syncs", "10");
        self.manager = Some(spec.start(&self.logs)?);
        Ok(())
    }

    /// A component in the control place; its memory is bounded softly, for several clusters run on one machine.
    fn part(&self, name: &str, component: &str, memory: &str) -> Spec {
        Spec::new(format!("{}-{name}", self.site.name), &self.kit, &self.site.control)
            .arg(component)
            .env("GOMEMLIMIT", memory)
    }
}
