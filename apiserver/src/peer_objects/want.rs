//! What one MeshPeer and its Secret come to: a client file and three PEM files, or what is wrong with them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use tombolo_core::id::ClusterName;
use tombolo_kube::Secret;
use tombolo_kube::resources::MeshPeerSpec;
use tombolo_kube::status::Problem;
use tombolo_wire::etcd_config::EtcdConfig;

/// The PEM files of a peer, as its Secret and its folder call them: authority, certificate, key.
pub const PEMS: [&str; 3] = ["ca.crt", "tls.crt", "tls.key"];
/// The folder of the peers directory that has a folder of PEM files per peer. No cluster is called so.
pub const FOLDER: &str = ".tls";

/// What is known of a peer's Secret.
#[derive(Clone, Copy, Debug)]
pub enum Lookup<'a> {
    /// Here it is.
    Found(&'a Secret),
    /// There is none.
    Missing,
    /// The Secrets could not be read yet; why, if that is known.
    Unknown(Option<&'a str>),
}

/// The files that a peer should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The peer.
    pub peer: ClusterName,
    /// Its client file; paths count from the peers directory.
    pub config: EtcdConfig,
    /// The content of [`PEMS`].
    pub pems: [Vec<u8>; 3],
}

/// What the objects come to; nothing while the Secrets are not read.
pub fn want(
    name: &str,
    spec: &MeshPeerSpec,
    secret: Lookup<'_>,
    (own, namespace): (&ClusterName, &str),
) -> Result<Option<Wanted>, Problem> {
    let peer = ClusterName::new(name).map_err(|e| problem("InvalidName", e.to_string()))?;
    if peer == *own {
        return Err(problem("OwnName", format!("{name} is this cluster: a MeshPeer is another one")));
    }
    let (endpoints, host_aliases) = reached(spec)?;
    let place = format!("{namespace}/{}", spec.secret_name);
    let secret = match secret {
        Lookup::Found(secret) => secret,
        Lookup::Missing => {
            let text =
                format!("there is no Secret {place}: run tombolo connect again, or make it with {}", PEMS.join(", "));
            return Err(problem("SecretMissing", text));
        }
        Lookup::Unknown(None) => return Ok(None),
        Lookup::Unknown(Some(why)) => {
            return Err(problem("SecretsUnreadable", format!("the Secrets of {namespace} cannot be read: {why}")));
        }
    };
    let pem = |key: &str| {
        let content = secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.clone());
        let text = || format!("Secret {place} has no {key}: it needs {}", PEMS.join(", "));
        content.filter(|bytes| !bytes.is_empty()).ok_or_else(|| problem("SecretIncomplete", text()))
    };
    let pems = [pem(PEMS[0])?, pem(PEMS[1])?, pem(PEMS[2])?];
    let [ca, cert, key] = PEMS.map(|file| Path::new(FOLDER).join(name).join(file));
    Ok(Some(Wanted { peer, config: EtcdConfig { endpoints, ca, cert, key, host_aliases }, pems }))
}

pub(super) fn problem(reason: &'static str, message: String) -> Problem {
    Problem { reason, message }
}

type Reached = (Vec<String>, BTreeMap<String, Vec<IpAddr>>);

/// Endpoints and host aliases. A server name stands for addresses: the file has it as a host with these addresses, as
/// Cilium's files do.
fn reached(spec: &MeshPeerSpec) -> Result<Reached, Problem> {
    let mut aliases = aliases(&spec.host_aliases)?;
    let mut endpoints = Vec::new();
    for text in &spec.endpoints {
        let wrong = || problem("InvalidEndpoint", format!("spec.endpoints: {text:?} is not https://HOST:PORT"));
        let (host, port) = host_and_port(text).ok_or_else(wrong)?;
        let endpoint = match (&spec.server_name, host.parse::<IpAddr>()) {
            (Some(name), Ok(ip)) => {
                let ips: &mut Vec<IpAddr> = aliases.entry(name.clone()).or_default();
                if !ips.contains(&ip) {
                    ips.push(ip);
                }
                format!("https://{name}:{port}")
            }
            (Some(name), Err(_)) if name != host => {
                let text = format!("spec.serverName is for endpoints that are IP addresses, and {host} is a name");
                return Err(problem("InvalidServerName", text));
            }
            _ => text.clone(),
        };
        if !endpoints.contains(&endpoint) {
            endpoints.push(endpoint);
        }
    }
    if endpoints.is_empty() {
        return Err(problem("InvalidEndpoint", "spec.endpoints is empty: name at least one https://HOST:PORT".into()));
    }
    Ok((endpoints, aliases))
}

fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.strip_prefix("https://")?.trim_end_matches('/').rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok().filter(|port| *port > 0)?;
    (!host.is_empty() && !host.contains('/')).then_some((host, port))
}

fn aliases(by_ip: &BTreeMap<String, Vec<String>>) -> Result<BTreeMap<String, Vec<IpAddr>>, Problem> {
    let mut aliases: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for (text, names) in by_ip {
        let wrong = |_| problem("InvalidHostAlias", format!("spec.hostAliases: {text:?} is no IP address"));
        let ip: IpAddr = text.parse().map_err(wrong)?;
        for name in names {
            if name.is_empty() {
                return Err(problem("InvalidHostAlias", format!("spec.hostAliases: {text} has an empty name")));
            }
            aliases.entry(name.clone()).or_default().push(ip);
        }
    }
    Ok(aliases)
}
