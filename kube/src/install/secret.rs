//! Certificates as Secrets: `kubernetes.io/tls` with `ca.crt` beside, as cert-manager writes them.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::PART_OF;
use crate::apply::Document;
use crate::objects::Kind;

/// A Secret's certificates, each PEM; what it lacks is empty.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TlsSecret {
    /// `ca.crt`: trusted authorities.
    pub ca: Vec<u8>,
    /// `tls.crt`: the certificate, leaf first.
    pub cert: Vec<u8>,
    /// `tls.key`: its key.
    pub key: Vec<u8>,
}

/// Without the key.
impl std::fmt::Debug for TlsSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |pem: &[u8]| String::from_utf8_lossy(pem).into_owned();
        f.debug_struct("TlsSecret")
            .field("ca", &text(&self.ca))
            .field("cert", &text(&self.cert))
            .finish_non_exhaustive()
    }
}

impl TlsSecret {
    /// Reads a Secret as the API has it.
    pub fn read(object: &Value) -> Result<Self, serde_json::Error> {
        serde_json::from_value(object.clone()).map(Self::of)
    }

    pub(super) fn of(secret: Secret) -> Self {
        let mut data = secret.data.unwrap_or_default();
        // An authority made for Cilium has its key as ca.key, and its certificate as ca.crt alone.
        let authority = data.contains_key("ca.key").then(|| data.get("ca.crt").map(|c| c.0.clone())).flatten();
        let mut take = |key: &str| data.remove(key).map(|bytes| bytes.0).unwrap_or_default();
        match authority {
            Some(cert) => Self { ca: take("ca.crt"), cert, key: take("ca.key") },
            None => Self { ca: take("ca.crt"), cert: take("tls.crt"), key: take("tls.key") },
        }
    }
}

/// A Secret to be put somewhere, with further labels.
pub fn tls_secret(namespace: &str, name: &str, labels: &[(&str, &str)], content: &TlsSecret) -> Document {
    let labels: BTreeMap<&str, &str> = labels.iter().copied().chain([PART_OF]).collect();
    let value = |bytes: &[u8]| ByteString(bytes.to_vec());
    let object = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": name, "namespace": namespace, "labels": labels },
        "type": "kubernetes.io/tls",
        "data": {
            "ca.crt": value(&content.ca), "tls.crt": value(&content.cert), "tls.key": value(&content.key)
        },
    });
    Document { line: 1, name: Kind::new("v1", "Secret").named(namespace, name), object }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let content = TlsSecret { ca: b"ca".to_vec(), cert: b"cert".to_vec(), key: b"key".to_vec() };
        let written = tls_secret("tombolo-peers", "tombolo-peer-we", &[("tombolo.io/peer", "we")], &content);
        assert_eq!(written.name.to_string(), "Secret tombolo-peers/tombolo-peer-we");
        assert_eq!(written.object["metadata"]["labels"]["tombolo.io/peer"], "we");
        assert_eq!(written.object["data"]["tls.key"], "a2V5");
        assert!(TlsSecret::read(&written.object).unwrap() == content);
    }

    #[test]
    fn an_authority_of_cilium_is_read_too() {
        let read = TlsSecret::read(&json!({ "data": { "ca.crt": "Y2E=", "ca.key": "a2V5" } })).unwrap();
        let expected = TlsSecret { ca: b"ca".to_vec(), cert: b"ca".to_vec(), key: b"key".to_vec() };
        assert!(read == expected);
    }
}
