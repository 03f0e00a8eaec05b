//! Host names to addresses: aliases first, then the system's name servers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hickory_resolver::Resolver;
use hickory_resolver::net::NetError;

use super::error::DialCause;

/// The addresses of a host, in the order to try them; never empty.
pub(super) async fn resolve(host: &str, aliases: &BTreeMap<String, Vec<IpAddr>>) -> Result<Vec<IpAddr>, DialCause> {
    if let Ok(ip) = host.parse() {
        return Ok(vec![ip]);
    }
    if let Some(ips) = aliases.get(host).filter(|ips| !ips.is_empty()) {
        return Ok(ips.clone());
    }
    let unresolved = |detail: String| DialCause::Unresolved { host: host.into(), detail };
    let ips = look_up(host).await.map_err(|e| unresolved(e.to_string()))?;
    if ips.is_empty() { Err(unresolved("the name has no addresses".into())) } else { Ok(ips) }
}

/// The system's configuration is read each time: a dial is rare, and a changed resolv.conf should count.
async fn look_up(host: &str) -> Result<Vec<IpAddr>, NetError> {
    let resolver = Resolver::builder_tokio()?.build()?;
    Ok(resolver.lookup_ip(host).await?.iter().collect())
}
