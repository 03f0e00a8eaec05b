//! One container as a process: a root file system of its own, the image's programs in it, its volumes and environment.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tombolo_kube::objects::{Kind, Selection};

use super::{Host, text_of, volumes};
use crate::process::{Process, Spec};
use crate::topology::{Dual, Place};
use crate::{etcd, netns, programs};

/// The programs of this build that images have at their root.
const PROGRAMS: [&str; 5] = ["tombolo", "tombolo-apiserver", "tombolo-agent", "rebel-base", "x-wing"];

/// Folders of this machine that programs are linked against, as they are.
const SYSTEM: [&str; 6] = ["usr", "bin", "sbin", "lib", "lib64", "dev"];

/// How long a readiness probe waits, as Kubernetes does by default.
const PROBE: Duration = Duration::from_secs(1);

/// What a container's process is made from.
pub(super) struct Facts<'a> {
    pub(super) host: &'a Host,
    pub(super) place: &'a Place,
    pub(super) node: &'a str,
    pub(super) pod: &'a Value,
    pub(super) dir: &'a Path,
}

impl Facts<'_> {
    /// Starts it.
    pub(super) async fn start(&self, spec: &Value, volumes: &BTreeMap<String, PathBuf>) -> Result<Process> {
        let name = text_of(spec, "name")?;
        let root = self.dir.join(format!("{name}.root"));
        fs::create_dir_all(&root)?;
        let environment = self.environment(spec).await?;
        fs::write(self.dir.join("hosts"), self.hosts().await?)?;
        let script = self.script(spec, volumes, &root, &environment)?;
        let file = self.dir.join(format!("{name}.sh"));
        fs::write(&file, script)?;
        let meta = &self.pod["metadata"];
        let log = format!("pod-{}-{}-{name}", text_of(meta, "namespace")?, text_of(meta, "name")?);
        // A mount namespace of its own, which goes with the process.
        let process =
            Spec::new(log, "unshare", self.place).arg("-m").flag("--propagation", "private").arg("sh").arg(file);
        process.start(&self.host.logs)
    }

    /// Builds the root and becomes the program in it.
    fn script(
        &self,
        spec: &Value,
        volumes: &BTreeMap<String, PathBuf>,
        root: &Path,
        environment: &BTreeMap<String, String>,
    ) -> Result<String> {
        let at = |path: &str| quote(&root.join(path.trim_start_matches('/')).display().to_string());
        let mut script = format!("set -e\nmount -t tmpfs -o mode=755 tmpfs {}\n", at(""));
        for folder in SYSTEM {
            let (real, inside) = (Path::new("/").join(folder), at(folder));
            match fs::read_link(&real) {
                Ok(target) => writeln!(script, "ln -s {} {inside}", quote(&target.display().to_string()))?,
                Err(_) if real.is_dir() => writeln!(script, "mkdir {inside}; mount --rbind /{folder} {inside}")?,
                Err(_) => {}
            }
        }
        for folder in ["proc", "sys"] {
            writeln!(script, "mkdir {0}; mount --rbind /{folder} {0}", at(folder))?;
        }
        writeln!(script, "mkdir -m 1777 {}; mkdir {}", at("tmp"), at("etc"))?;
        writeln!(script, "cp {} {}", quote(&self.dir.join("hosts").display().to_string()), at("etc/hosts"))?;
        // Nobody is there: what hosts does not name has no address.
        writeln!(script, "echo 'nameserver 127.0.0.1' > {}", at("etc/resolv.conf"))?;
        let etcd = etcd::locate()?.program;
        let ours = PROGRAMS.iter().filter_map(|name| Some((*name, programs::program(name).ok()?)));
        for (name, program) in ours.chain([("etcd", etcd)]) {
            let program = quote(&program.display().to_string());
            writeln!(script, "touch {0}; mount --bind {program} {0}", at(name))?;
        }
        for mount in spec["volumeMounts"].as_array().into_iter().flatten() {
            let (name, path) = (text_of(mount, "name")?, text_of(mount, "mountPath")?);
            let folder = volumes.get(name).with_context(|| format!("there is no volume {name}"))?;
            let folder = folder.join(mount["subPath"].as_str().unwrap_or_default());
            writeln!(script, "mkdir -p {0}; mount --rbind {1} {0}", at(path), quote(&folder.display().to_string()))?;
        }
        let user = user_of(self.pod, spec);
        if let Some(user) = user {
            // Their group may read and write volumes; here the user owns them, which comes to the same.
            for folder in volumes.values().filter(|folder| folder.starts_with(self.dir)) {
                writeln!(script, "chown -R {user}:{user} {}", quote(&folder.display().to_string()))?;
            }
        }
        script.push_str("exec env -i");
        for (key, value) in environment {
            write!(script, " {}", quote(&format!("{key}={value}")))?;
        }
        script.push_str(" chroot");
        if let Some(user) = user {
            write!(script, " --userspec={user}:{user}")?;
        }
        write!(script, " {}", at(""))?;
        let words = ["command", "args"].into_iter().flat_map(|field| spec[field].as_array().into_iter().flatten());
        for word in words {
            write!(script, " {}", quote(&expand(word.as_str().unwrap_or_default(), environment)))?;
        }
        script.push('\n');
        Ok(script)
    }

    /// The names of all Services as of now, in place of a DNS server.
    async fn hosts(&self) -> Result<String> {
        let (services, _) = self.host.objects.list(&Kind::new("v1", "Service"), &Selection::default()).await?;
        let mut hosts = String::from("127.0.0.1 localhost\n");
        for service in &services {
            let (name, namespace) =
                (text_of(&service["metadata"], "name")?, text_of(&service["metadata"], "namespace")?);
            let addresses = service["spec"]["clusterIPs"].as_array().into_iter().flatten().filter_map(Value::as_str);
            for address in addresses.filter(|address| address.parse::<IpAddr>().is_ok()) {
                writeln!(hosts, "{address} {name}.{namespace}.svc {name}.{namespace}.svc.cluster.local")?;
            }
        }
        Ok(hosts)
    }

    async fn environment(&self, spec: &Value) -> Result<BTreeMap<String, String>> {
        let mut all = BTreeMap::from([
            ("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("KUBERNETES_SERVICE_HOST".to_owned(), self.host.server.0.clone()),
            ("KUBERNETES_SERVICE_PORT".to_owned(), self.host.server.1.to_string()),
            // Logs are read as files.
            ("NO_COLOR".to_owned(), "1".to_owned()),
        ]);
        for source in spec["envFrom"].as_array().into_iter().flatten() {
            for (field, kind) in [("configMapRef", "ConfigMap"), ("secretRef", "Secret")] {
                if let Some(reference) = source.get(field) {
                    let data = self.referred(kind, reference).await?.unwrap_or_default();
                    all.extend(data.into_iter().map(|(k, v)| (k, String::from_utf8_lossy(&v).into_owned())));
                }
            }
        }
        for variable in spec["env"].as_array().into_iter().flatten() {
            if let Some(value) = self.value(variable, &all).await? {
                all.insert(text_of(variable, "name")?.to_owned(), value);
            }
        }
        Ok(all)
    }

    async fn value(&self, variable: &Value, all: &BTreeMap<String, String>) -> Result<Option<String>> {
        let from = &variable["valueFrom"];
        if from.is_null() {
            return Ok(Some(expand(variable["value"].as_str().unwrap_or_default(), all)));
        }
        if let Some(reference) = from.get("fieldRef") {
            let path = text_of(reference, "fieldPath")?;
            return self.own_field(path).map(Some);
        }
        for (field, kind) in [("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")] {
            if let Some(reference) = from.get(field) {
                let key = text_of(reference, "key")?;
                let data = self.referred(kind, reference).await?.unwrap_or_default();
                return match data.get(key) {
                    Some(bytes) => Ok(Some(String::from_utf8_lossy(bytes).into_owned())),
                    None if reference["optional"] == true => Ok(None),
                    None => bail!("{kind} {} has no key {key}", text_of(reference, "name")?),
                };
            }
        }
        bail!("the harness's kubelet does not know this source of a variable: {from}")
    }

    /// What only the kubelet knows yet, and what the object says.
    fn own_field(&self, path: &str) -> Result<String> {
        let ips = |dual: Dual| dual.both().map(|ip| ip.to_string()).join(",");
        let node = self.host.site.nodes.iter().find(|n| n.name == self.node).context("a pod has a node")?;
        Ok(match path {
            "status.podIP" => self.place.address.v4.to_string(),
            "status.podIPs" => ips(self.place.address),
            "status.hostIP" => node.place.address.v4.to_string(),
            "status.hostIPs" => ips(node.place.address),
            other => field(self.pod, other)?,
        })
    }

    async fn referred(&self, kind: &str, reference: &Value) -> Result<Option<BTreeMap<String, Vec<u8>>>> {
        let (namespace, name) = (text_of(&self.pod["metadata"], "namespace")?, text_of(reference, "name")?);
        match self.host.objects.get(&Kind::new("v1", kind).named(namespace, name)).await? {
            Some(object) => volumes::data(&object).map(Some),
            None if reference["optional"] == true => Ok(None),
            None => bail!("there is no {kind} {namespace}/{name}"),
        }
    }
}

/// A field of the downward API: `metadata.name`, `spec.nodeName`, `metadata.labels['app']`.
pub(super) fn field(pod: &Value, path: &str) -> Result<String> {
    let (path, key) = match path.split_once("['") {
        Some((path, key)) => (path, key.strip_suffix("']")),
        None => (path, None),
    };
    let found = path.split('.').chain(key).fold(pod, |value, part| &value[part]);
    found.as_str().map(str::to_owned).with_context(|| format!("a pod has no {path}"))
}

/// Whether a container that runs is ready: by its probe, or without one at once.
pub(super) fn is_ready(node: &str, address: Dual, spec: &Value) -> bool {
    let probe = &spec["readinessProbe"]["httpGet"];
    if probe.is_null() {
        return true;
    }
    let ask = || -> Result<bool> {
        let port = port_of(spec, &probe["port"]).context("the probe's port")?;
        let host: IpAddr = probe["host"].as_str().map_or(Ok(address.v4.into()), str::parse)?;
        let path = probe["path"].as_str().unwrap_or("/");
        netns::inside(node, || get(SocketAddr::from((host, port)), path))
    };
    ask().unwrap_or(false)
}

fn port_of(spec: &Value, port: &Value) -> Option<u16> {
    let named = |name: &str| {
        let ports = spec["ports"].as_array()?;
        ports.iter().find(|port| port["name"] == name)?["containerPort"].as_u64()
    };
    let number = port.as_u64().or_else(|| port.as_str().and_then(named))?;
    u16::try_from(number).ok()
}

/// Whether a page is there: any status from 200 to 399.
pub(super) fn get(address: SocketAddr, path: &str) -> Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, PROBE)?;
    stream.set_read_timeout(Some(PROBE))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    Ok(matches!(head[9], b'2' | b'3'))
}

/// The user a container runs as; none for root.
fn user_of(pod: &Value, spec: &Value) -> Option<u64> {
    let of = |value: &Value| value["securityContext"]["runAsUser"].as_u64();
    of(spec).or_else(|| of(pod.get("spec")?)).filter(|user| *user != 0)
}

/// Replaces `$(NAME)` by the variable; one that is unknown stays as it is, and `$$` is a dollar sign.
fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let name = after.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        match name {
            Some((name, behind)) if variables.contains_key(name) => {
                out.push_str(&variables[name]);
                rest = behind;
            }
            _ if after.starts_with('$') => {
                out.push('$');
                rest = &after[1..];
            }
            _ => {
                out.push('$');
                rest = after;
            }
        }
    }
    out + rest
}

/// One word for a shell.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_expanded_as_kubernetes_does() {
        let variables = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        for (text, wanted) in [("x$(A)y", "x1y"), ("$(B)", "$(B)"), ("$$(A)", "$(A)"), ("5$", "5$"), ("$(A", "$(A")] {
            assert_eq!(expand(text, &variables), wanted, "{text}");
        }
    }

    #[test]
    fn fields_are_found_by_their_paths() {
        let pod = json!({"metadata": {"name": "x", "labels": {"a.b/c": "d"}}, "spec": {"nodeName": "ne-1"}});
        assert_eq!(field(&pod, "metadata.name").unwrap(), "x");
        assert_eq!(field(&pod, "spec.nodeName").unwrap(), "ne-1");
        assert_eq!(field(&pod, "metadata.labels['a.b/c']").unwrap(), "d");
        assert!(field(&pod, "metadata.uid").is_err());
    }

    #[test]
    fn a_word_stays_one_word() {
        assert_eq!(quote("it's"), r"'it'\''s'");
    }

    #[test]
    fn a_containers_own_user_counts_before_its_pods() {
        let pod = json!({"spec": {"securityContext": {"runAsUser": 65532}}});
        assert_eq!(user_of(&pod, &json!({})), Some(65532));
        assert_eq!(user_of(&pod, &json!({"securityContext": {"runAsUser": 0}})), None);
    }

    #[test]
    fn a_port_is_a_number_or_a_name() {
        let spec = json!({"ports": [{"name": "metrics", "containerPort": 9880}]});
        assert_eq!(port_of(&spec, &json!("metrics")), Some(9880));
        assert_eq!(port_of(&spec, &json!(80)), Some(80));
        assert_eq!(port_of(&spec, &json!("other")), None);
    }
}
