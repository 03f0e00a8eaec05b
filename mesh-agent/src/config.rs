//! Flags, and the configuration they mean once validated as a whole.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use smol_str::SmolStr;
use tombolo_core::id::{ClusterId, ClusterName, MaxClusters};
use tombolo_ebpf::{AfterOthers, DatapathConfig};
use tombolo_wire::etcd_config::{self, EtcdConfig};

/// Merges what the mesh says into this node's maps. Without a command it runs until SIGTERM; what it left in the kernel
/// goes on then, and the next start takes it over.
#[derive(Clone, Debug, Parser)]
#[command(name = "tombolo-agent", version)]
pub struct Cli {
    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to run.
    #[command(flatten)]
    pub flags: Flags,
}

/// What else the program does.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Tells what of the datapath this kernel and machine can do; fails where it cannot run. Attaches nothing.
    Probe {
        /// How to print it.
        #[arg(short, long, default_value = "text")]
        output: Output,
    },
    /// Takes away all that an agent left: programs, maps, pins, snapshot, socket. The agent must not run.
    Uninstall,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For a person.
    Text,
    /// For a program.
    Json,
}

/// All flags. Those that also mean something to another command may stand after its name.
#[derive(Clone, Debug, Args)]
pub struct Flags {
    /// This cluster's name: 1–32 of a-z, 0-9 and '-'.
    #[arg(long, env = "TOMBOLO_CLUSTER_NAME")]
    pub cluster_name: Option<String>,
    /// This cluster's id, 1–255 (1–511 in a mesh of that size).
    #[arg(long, env = "TOMBOLO_CLUSTER_ID")]
    pub cluster_id: Option<u32>,
    /// This node's name, as its EndpointSlices say it.
    #[arg(long, env = "TOMBOLO_NODE_NAME")]
    pub node_name: Option<String>,
    /// The own store: an etcd client file as Cilium's (endpoints, trusted-ca-file, cert-file, key-file).
    #[arg(long, env = "TOMBOLO_STORE_CONFIG")]
    pub store_config: Option<PathBuf>,
    /// The cgroup v2 folder whose processes are translated.
    #[arg(long, env = "TOMBOLO_CGROUP", global = true)]
    pub cgroup: Option<PathBuf>,
    /// Lets --cgroup be the root: every process of the machine is translated, as on a real node.
    #[arg(long, env = "TOMBOLO_ALLOW_ROOT_CGROUP", global = true)]
    pub allow_root_cgroup: bool,
    /// A folder in a BPF file system, of this agent alone: what is pinned in its `tombolo/` outlives the agent.
    #[arg(long, env = "TOMBOLO_BPFFS", default_value = "/sys/fs/bpf", global = true)]
    pub bpffs: PathBuf,
    /// A folder for the snapshot of what the mesh said, of this agent alone.
    #[arg(long, env = "TOMBOLO_STATE_DIR", default_value = "/var/lib/tombolo", global = true)]
    pub state_dir: PathBuf,
    /// A cgroup whose processes, and those below it, are left alone: a pod that a sidecar redirects already. It may come
    /// later. May be given more than once; in the environment separated by ':'.
    #[arg(long, env = "TOMBOLO_SKIP_CGROUP", value_delimiter = ':', global = true)]
    pub skip_cgroup: Vec<PathBuf>,
    /// Attaches also where programs of others would see an address first, as the kernel is older than 6.17: only if they
    /// translate no global service.
    #[arg(long, env = "TOMBOLO_ATTACH_AFTER_OTHERS", global = true)]
    pub attach_after_others: bool,
    /// Ends TCP connections to a backend this long after it left, if it did not come back, as 90s or 5m. Otherwise they
    /// go on; UDP sockets are always ended at once.
    #[arg(long, env = "TOMBOLO_CLOSE_TCP_AFTER", value_parser = humantime::parse_duration)]
    pub close_tcp_after: Option<Duration>,
    /// The Unix socket that answers `tombolo status`, `services`, `explain` and `flows` (mode 0600).
    #[arg(long, env = "TOMBOLO_ADMIN_SOCKET", default_value = "/run/tombolo/agent.sock", global = true)]
    pub admin_socket: PathBuf,
    /// Where /livez, /readyz and /metrics are answered; nowhere when absent.
    #[arg(long, env = "TOMBOLO_HEALTH_LISTEN")]
    pub health_listen: Option<SocketAddr>,
    /// `none` does all but touch the kernel.
    #[arg(long, env = "TOMBOLO_DATAPATH", default_value = "ebpf")]
    pub datapath: DatapathKind,
    /// How many backends the maps take.
    #[arg(long, env = "TOMBOLO_MAX_BACKENDS", default_value_t = 131_072)]
    pub max_backends: u32,
    /// How many flows a second are told, about; 0 is none. While `tombolo flows --follow` runs, up to 5,000.
    #[arg(long, env = "TOMBOLO_FLOW_RATE", default_value_t = 100)]
    pub flow_rate: u32,
    /// How many services /metrics counts by name; the others are summed as `_other`.
    #[arg(long, env = "TOMBOLO_METRICS_SERVICES", default_value_t = 1_000)]
    pub metrics_services: usize,
    /// What is logged: a tracing filter.
    #[arg(long, env = "TOMBOLO_LOG", default_value = "info", global = true)]
    pub log: String,
}

/// Which datapath executes the plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DatapathKind {
    /// The kernel's.
    Ebpf,
    /// Tables in memory only.
    None,
}

impl DatapathKind {
    /// Its name, as the flag has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::None => "none",
        }
    }
}

/// A validated configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// This cluster.
    pub cluster: ClusterName,
    /// Its id.
    pub id: ClusterId,
    /// This node.
    pub node: SmolStr,
    /// The own store.
    pub store: EtcdConfig,
    /// The kernel's datapath; absent without one.
    pub kernel: Option<DatapathConfig>,
    /// Where the snapshot is.
    pub state_dir: PathBuf,
    /// How long TCP connections to a backend that left go on; for ever when absent.
    pub close_tcp_after: Option<Duration>,
    /// The admin socket.
    pub admin_socket: PathBuf,
    /// Where health is answered.
    pub health_listen: Option<SocketAddr>,
    /// How many flows a second are told while nobody follows.
    pub flow_rate: u32,
    /// How many services are counted by name.
    pub metrics_services: usize,
    /// Sizes of the maps.
    pub limits: tombolo_core::tables::Limits,
}

/// All mistakes of a configuration, one a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration has {} mistake(s):\n  {}", .0.len(), .0.join("\n  "))]
pub struct Mistakes(pub Vec<String>);

impl Flags {
    /// Checks everything and reports all mistakes together.
    pub fn validate(&self) -> Result<Config, Mistakes> {
        let mut mistakes = Vec::new();
        let cluster = given(&mut mistakes, "--cluster-name", self.cluster_name.as_ref(), |name| ClusterName::new(name));
        // The apiserver knows the size of the mesh and refuses what does not fit; here any id of the larger mesh does.
        let id = |id: &u32| ClusterId::new(*id, MaxClusters::C511);
        let id = given(&mut mistakes, "--cluster-id", self.cluster_id.as_ref(), id);
        let node = given(&mut mistakes, "--node-name", self.node_name.as_ref(), |name| node_name(name));
        let store = given(&mut mistakes, "--store-config", self.store_config.as_ref(), |path| read_store(path));
        let kernel = (self.datapath == DatapathKind::Ebpf).then(|| self.datapath());
        let kernel = kernel.transpose().map_err(|e| mistakes.push(format!("--cgroup: {e}")));
        if self.max_backends == 0 {
            mistakes.push("--max-backends: at least 1".to_owned());
        }
        match (cluster, id, node, store, kernel) {
            (Some(cluster), Some(id), Some(node), Some(store), Ok(kernel)) if mistakes.is_empty() => Ok(Config {
                cluster,
                id,
                node,
                store,
                kernel,
                state_dir: self.state_dir.clone(),
                close_tcp_after: self.close_tcp_after,
                admin_socket: self.admin_socket.clone(),
                health_listen: self.health_listen,
                flow_rate: self.flow_rate,
                metrics_services: self.metrics_services,
                limits: limits(self.max_backends),
            }),
            _ => Err(Mistakes(mistakes)),
        }
    }

    /// The kernel's datapath, as far as the flags say it.
    pub fn datapath(&self) -> Result<DatapathConfig, &'static str> {
        let cgroup = self.cgroup.clone().ok_or("the ebpf datapath needs the cgroup v2 folder to attach to")?;
        let others = if self.attach_after_others { AfterOthers::Allowed } else { AfterOthers::Refused };
        Ok(DatapathConfig {
            allow_root: self.allow_root_cgroup,
            limits: limits(self.max_backends),
            skip_cgroups: self.skip_cgroup.clone(),
            after_others: others,
            ..DatapathConfig::new(cgroup, self.bpffs.clone())
        })
    }
}

/// What a flag means, if it was given and is right.
fn given<T, V, E: std::fmt::Display>(
    mistakes: &mut Vec<String>,
    flag: &str,
    value: Option<&T>,
    parse: impl FnOnce(&T) -> Result<V, E>,
) -> Option<V> {
    let Some(value) = value else {
        mistakes.push(format!("{flag}: must be given"));
        return None;
    };
    parse(value).map_err(|error| mistakes.push(format!("{flag}: {error}"))).ok()
}

fn node_name(name: &str) -> Result<SmolStr, &'static str> {
    if name.is_empty() || name.contains('/') {
        Err("a node's name is not empty and has no '/'")
    } else {
        Ok(name.into())
    }
}

fn read_store(path: &Path) -> Result<EtcdConfig, String> {
    let place = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| format!("{place}: {e}"))?;
    match etcd_config::parse(&text) {
        Ok(Some(config)) => Ok(config),
        Ok(None) => Err(format!("{place}: no `endpoints:` in it")),
        Err(error) => Err(format!("{place}: {error}")),
    }
}

/// Map sizes for a number of backends: twice the slots and members, since old ranges live until a grace period is over.
fn limits(backends: u32) -> tombolo_core::tables::Limits {
    tombolo_core::tables::Limits { services: 65_536, backends, slots: backends * 2, members: backends * 2 }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};
    use expect_test::expect;

    use super::*;

    fn flags(args: &[&str]) -> Cli {
        Cli::try_parse_from([&["tombolo-agent"], args].concat()).unwrap()
    }

    #[test]
    fn the_flags_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn all_mistakes_are_reported_together() {
        let args = ["--cluster-name", "NE", "--node-name", "a/b", "--store-config", "/nowhere", "--max-backends", "0"];
        let mistakes = flags(&args).flags.validate().unwrap_err();
        expect![[r#"
            the configuration has 6 mistake(s):
              --cluster-name: "NE" is no cluster name: 1 to 32 of a-z, 0-9 and '-', with a letter or digit at both ends
              --cluster-id: must be given
              --node-name: a node's name is not empty and has no '/'
              --store-config: /nowhere: No such file or directory (os error 2)
              --cgroup: the ebpf datapath needs the cgroup v2 folder to attach to
              --max-backends: at least 1"#]]
        .assert_eq(&mistakes.to_string());
    }

    #[test]
    fn a_command_takes_its_flags_after_its_name() {
        let cli = flags(&["uninstall", "--bpffs", "/sys/fs/bpf/a", "--state-dir", "/var/a"]);
        assert!(matches!(cli.command, Some(Command::Uninstall)));
        assert_eq!((cli.flags.bpffs, cli.flags.state_dir), ("/sys/fs/bpf/a".into(), "/var/a".into()));
        let cli = flags(&["probe", "-o", "json", "--cgroup", "/sys/fs/cgroup"]);
        assert!(matches!(cli.command, Some(Command::Probe { output: Output::Json })));
    }

    #[test]
    fn the_kernels_datapath_is_as_the_flags_say() {
        let args = ["--cgroup", "/c", "--skip-cgroup", "/c/a", "--skip-cgroup", "/c/b", "--attach-after-others"];
        let config = flags(&args).flags.datapath().unwrap();
        assert_eq!(config.skip_cgroups, [PathBuf::from("/c/a"), "/c/b".into()]);
        assert_eq!(config.after_others, AfterOthers::Allowed);
        assert_eq!(flags(&["--close-tcp-after", "5m"]).flags.close_tcp_after, Some(Duration::from_secs(300)));
    }
}
