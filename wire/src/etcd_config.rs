//! Cilium's etcd client YAML: one file per peer, and a cluster's own `store.yaml`.
//!
//! Fields of the etcd client that say nothing here are ignored. Source: Cilium `pkg/kvstore/etcd.go`,
//! `pkg/clustermesh/common/config.go`; `cilium-host-aliases` since 1.20.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

/// What the name of a tombstone in a peers directory begins with; the peer's name follows.
///
/// With this empty file beside it, a peer whose file is removed leaves at once; without it the removal is taken for an
/// accident at first. Ours: Cilium removes at once.
pub const TOMBSTONE: &str = ".disconnected-";

/// How to reach one store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EtcdConfig {
    /// URLs, at least one.
    pub endpoints: Vec<String>,
    /// The bundle that the server's certificate is verified with.
    pub ca: PathBuf,
    /// The client certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Addresses of host names that no DNS server knows; never an empty name or an empty list.
    pub host_aliases: BTreeMap<String, Vec<IpAddr>>,
}

/// What is wrong with an etcd client file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {field}: {problem}")]
pub struct EtcdConfigError {
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// The field, or `file` where the text is no YAML at all.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    endpoints: Option<Spanned<Vec<Spanned<String>>>>,
    #[serde(default, rename = "trusted-ca-file")]
    ca: Option<PathBuf>,
    #[serde(default, rename = "cert-file")]
    cert: Option<PathBuf>,
    #[serde(default, rename = "key-file")]
    key: Option<PathBuf>,
    #[serde(default, rename = "cilium-host-aliases")]
    host_aliases: Option<Vec<Spanned<Alias>>>,
}

#[derive(Deserialize)]
struct Alias {
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    ips: Vec<Spanned<String>>,
}

/// Parses a file. `None` when the text does not contain `endpoints:`, Cilium's test of what is a peer's file at all.
///
/// Endpoints are needed. The three files may be absent here, as they may for Cilium; whether a connection without them
/// makes sense is its user's to say.
pub fn parse(text: &str) -> Result<Option<EtcdConfig>, EtcdConfigError> {
    if !text.contains("endpoints:") {
        return Ok(None);
    }
    let file: File = serde_saphyr::from_str(text).map_err(|e| yaml(text, &e))?;
    Ok(Some(EtcdConfig {
        endpoints: endpoints(file.endpoints)?,
        ca: file.ca.unwrap_or_default(),
        cert: file.cert.unwrap_or_default(),
        key: file.key.unwrap_or_default(),
        host_aliases: aliases(file.host_aliases.unwrap_or_default())?,
    }))
}

/// Renders a file that [`parse`] and Cilium read back equal. Paths are UTF-8.
pub fn render(config: &EtcdConfig) -> String {
    let mut out = "endpoints:\n".to_owned();
    for endpoint in &config.endpoints {
        line(&mut out, "- ", endpoint);
    }
    for (field, path) in [("trusted-ca-file", &config.ca), ("key-file", &config.key), ("cert-file", &config.cert)] {
        if path.as_path() != Path::new("") {
            line(&mut out, &format!("{field}: "), &path.to_string_lossy());
        }
    }
    if !config.host_aliases.is_empty() {
        out.push_str("cilium-host-aliases:\n");
    }
    for (hostname, ips) in &config.host_aliases {
        line(&mut out, "- hostname: ", hostname);
        out.push_str("  ips:\n");
        for ip in ips {
            line(&mut out, "  - ", &ip.to_string());
        }
    }
    out
}

fn endpoints(field: Option<Spanned<Vec<Spanned<String>>>>) -> Result<Vec<String>, EtcdConfigError> {
    let place = field.as_ref().map(|list| list.referenced);
    let Some(list) = field.filter(|list| !list.value.is_empty()) else {
        return Err(error(place, "endpoints", "at least one URL is needed"));
    };
    list.value.into_iter().map(|url| filled(url, "endpoints", "an empty URL")).collect()
}

fn aliases(list: Vec<Spanned<Alias>>) -> Result<BTreeMap<String, Vec<IpAddr>>, EtcdConfigError> {
    let mut aliases = BTreeMap::new();
    for (n, Spanned { value: alias, referenced: place, .. }) in list.into_iter().enumerate() {
        let field = |name: &str| format!("cilium-host-aliases[{n}].{name}");
        if alias.hostname.is_empty() {
            return Err(error(Some(place), &field("hostname"), "is empty"));
        }
        if alias.ips.is_empty() {
            return Err(error(Some(place), &field("ips"), &format!("host {:?} has no addresses", alias.hostname)));
        }
        let mut ips = Vec::new();
        for ip in alias.ips {
            let bad = |_| error(Some(ip.referenced), &field("ips"), &format!("{:?} is no IP address", ip.value));
            ips.push(ip.value.parse().map_err(bad)?);
        }
        if aliases.contains_key(&alias.hostname) {
            let problem = format!("host {:?} is there twice", alias.hostname);
            return Err(error(Some(place), &field("hostname"), &problem));
        }
        aliases.insert(alias.hostname, ips);
    }
    Ok(aliases)
}

fn filled(text: Spanned<String>, field: &str, problem: &str) -> Result<String, EtcdConfigError> {
    if text.value.is_empty() { Err(error(Some(text.referenced), field, problem)) } else { Ok(text.value) }
}

fn error(place: Option<Location>, field: &str, problem: &str) -> EtcdConfigError {
    let (line, column) = place.map_or((1, 1), |place| (place.line().max(1), place.column().max(1)));
    EtcdConfigError { line, column, field: field.to_owned(), problem: problem.to_owned() }
}

/// An error of the YAML reader, which knows the place; the field is that of the last outermost key up to there.
///
/// The reader's text ends in the place, and after a comma may speak to programmers: both are left out.
fn yaml(text: &str, error_of_reader: &serde_saphyr::Error) -> EtcdConfigError {
    let place = error_of_reader.location();
    let lines = usize::try_from(place.map_or(0, |place| place.line())).unwrap_or(usize::MAX);
    let outermost = |line: &&str| line.starts_with(|c: char| c.is_ascii_alphabetic()) && line.contains(':');
    let key = text.lines().take(lines).filter(outermost).last().and_then(|line| line.split(':').next());
    let told = error_of_reader.without_snippet().to_string();
    let problem = told.split(" at line ").next().and_then(|told| told.split(", set ").next()).unwrap_or(&told);
    error(place, key.unwrap_or("file"), problem)
}

/// Writes a scalar, quoted unless it plainly is a path, a URL, a host name or an IPv4 address.
fn line(out: &mut String, before: &str, text: &str) {
    let safe = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._:-".contains(c)) && !text.ends_with(':');
    let host = text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.contains('.');
    let ipv4 = text.parse::<Ipv4Addr>().is_ok();
    out.push_str(before);
    if safe && (text.starts_with('/') || host || ipv4) {
        out.push_str(text);
    } else {
        quote(out, text);
    }
    out.push('\n');
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') => {
                write!(out, "\\U{:08x}", u32::from(c)).expect("writing to a string");
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use expect_test::expect;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::{EtcdConfig, parse, render};

    #[test]
    fn as_cilium_writes_it() {
        let text = "endpoints:
- https://cluster2.mesh.cilium.io:2379
trusted-ca-file: /var/lib/cilium/clustermesh/common-etcd-client-ca.crt
key-file: /var/lib/cilium/clustermesh/common-etcd-client.key
cert-file: /var/lib/cilium/clustermesh/common-etcd-client.crt
cilium-host-aliases:
- hostname: cluster2.mesh.cilium.io
  ips: [192.0.2.10, 192.0.2.11]
";
        let config = parse(text).unwrap().unwrap();
        assert_eq!(parse(&render(&config)).unwrap().unwrap(), config);
        expect![[r#"
            endpoints:
            - https://cluster2.mesh.cilium.io:2379
            trusted-ca-file: /var/lib/cilium/clustermesh/common-etcd-client-ca.crt
            key-file: /var/lib/cilium/clustermesh/common-etcd-client.key
            cert-file: /var/lib/cilium/clustermesh/common-etcd-client.crt
            cilium-host-aliases:
            - hostname: cluster2.mesh.cilium.io
              ips:
              - 192.0.2.10
              - 192.0.2.11
        "#]]
        .assert_eq(&render(&config));
    }

    #[test]
    fn what_is_a_file_at_all() {
        let tables: serde_json::Value = serde_json::from_str(include_str!("../tests/data/derived-255.json")).unwrap();
        for row in tables["config_files"].as_array().unwrap() {
            let text = row["content"].as_str().unwrap();
            let result = parse(text);
            assert_eq!(!matches!(result, Ok(None)), row["is_config"].as_bool().unwrap(), "{row}: {result:?}");
            if let Some(error) = row["host_alias_error"].as_str() {
                assert_eq!(result.is_ok(), error.is_empty(), "{row}: {result:?}");
            }
        }
    }

    #[test]
    fn mistakes_have_a_place() {
        let errors = [
            "# endpoints: none\n",
            "endpoints: []\n",
            "endpoints:\n- \"\"\n",
            "endpoints:\n- a\ncilium-host-aliases:\n- hostname: \"\"\n  ips: [192.0.2.1]\n",
            "endpoints:\n- a\ncilium-host-aliases:\n- hostname: h\n  ips: []\n",
            "endpoints:\n- a\ncilium-host-aliases:\n- hostname: h\n  ips:\n  - 192.0.2.1\n  - nope\n",
            "endpoints:\n- a\ncilium-host-aliases:\n- {hostname: h, ips: [::1]}\n- {hostname: h, ips: [::2]}\n",
            "endpoints:\n- a\ncert-file: [1, 2]\n",
            "endpoints: {a: b}\n",
            "endpoints:\n- a\n- 'b\n",
            "endpoints:\n- a\nendpoints:\n- b\n",
        ];
        let errors: Vec<String> = errors.iter().map(|text| parse(text).unwrap_err().to_string()).collect();
        expect![[r#"
            line 1, column 1: endpoints: at least one URL is needed
            line 1, column 12: endpoints: at least one URL is needed
            line 2, column 3: endpoints: an empty URL
            line 4, column 3: cilium-host-aliases[0].hostname: is empty
            line 4, column 3: cilium-host-aliases[0].ips: host "h" has no addresses
            line 7, column 5: cilium-host-aliases[0].ips: "nope" is no IP address
            line 5, column 3: cilium-host-aliases[1].hostname: host "h" is there twice
            line 3, column 12: cert-file: expected string scalar
            line 1, column 12: endpoints: expected sequence start
            line 4, column 1: endpoints: invalid indentation in multiline quoted scalar
            line 3, column 1: endpoints: duplicate mapping key: endpoints"#]]
        .assert_eq(&errors.join("\n"));
    }

    fn config() -> impl Strategy<Value = EtcdConfig> {
        let text = "[ -~é\u{1}\u{85}\u{2028}]{1,20}";
        let path = prop_oneof![Just(String::new()), "/[ -~]{0,20}"];
        let aliases = btree_map(text, vec(any::<IpAddr>(), 1..3), 0..3);
        (vec(text, 1..3), path.clone(), path.clone(), path, aliases).prop_map(
            |(endpoints, ca, cert, key, host_aliases)| EtcdConfig {
                endpoints,
                ca: ca.into(),
                cert: cert.into(),
                key: key.into(),
                host_aliases,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_rendered_parses_equal(config in config()) {
            prop_assert_eq!(parse(&render(&config)).unwrap().unwrap(), config);
        }

        #[test]
        fn any_text_is_a_file_or_an_error(text in ".{0,80}") {
            let _either = parse(&format!("endpoints:{text}"));
        }
    }
}
