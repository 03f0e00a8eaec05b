//! Whole TLS handshakes in memory, with configurations read from files: the good one, and each way to be refused.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use expect_test::{Expect, expect};
use rustls::{ClientConnection, ServerConnection};
use rustls_pki_types::ServerName;
use tombolo_certs::{
    AuthMode, Authority, CA_FILE, Leaf, LeafRequest, Role, TlsFiles, Validity, client_config, common_name,
    server_config, write_private, write_public,
};

#[path = "support/clock.rs"]
mod clock;
use clock::now;

fn authority() -> Authority {
    Authority::create("Cilium CA", Validity::days(now(), 3650)).unwrap()
}

fn lay_out(dir: &Path, trusted: &Authority, issuer: &Authority, leaf: Leaf, validity: Validity) -> TlsFiles {
    fs::create_dir_all(dir).unwrap();
    let files = TlsFiles::of(dir, leaf.role());
    let made = issuer.issue(&LeafRequest { cluster: "we".into(), leaf, validity }).unwrap();
    write_public(&dir.join(CA_FILE), trusted.certificate_pem().as_bytes()).unwrap();
    write_public(&files.cert, made.cert_pem.as_bytes()).unwrap();
    write_private(&files.key, made.key_pem.as_bytes()).unwrap();
    files
}

/// Runs a handshake and one byte each way; the server's view of the client's common name, or who refused and why.
fn shake(client: &TlsFiles, server: &TlsFiles, name: &str) -> Result<String, String> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client_config(client).unwrap()), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server_config(server).unwrap())).unwrap();
    let (mut up, mut down) = (Vec::new(), Vec::new());
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() || server.wants_write() {
        while client.wants_write() {
            client.write_tls(&mut up).unwrap();
        }
        let mut read = up.as_slice();
        while !read.is_empty() {
            server.read_tls(&mut read).unwrap();
        }
        up.clear();
        server.process_new_packets().map_err(|e| format!("server: {e}"))?;
        while server.wants_write() {
            server.write_tls(&mut down).unwrap();
        }
        let mut read = down.as_slice();
        while !read.is_empty() {
            client.read_tls(&mut read).unwrap();
        }
        down.clear();
        client.process_new_packets().map_err(|e| format!("client: {e}"))?;
    }
    assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]));
    client.writer().write_all(b"x").unwrap();
    client.write_tls(&mut up).unwrap();
    server.read_tls(&mut up.as_slice()).unwrap();
    server.process_new_packets().unwrap();
    let mut byte = [0];
    server.reader().read_exact(&mut byte).unwrap();
    Ok(common_name(&server.peer_certificates().unwrap()[0]).unwrap())
}

struct Case {
    name: &'static str,
    client_issuer: Option<Authority>,
    client_validity: Validity,
    server_validity: Validity,
    server_leaf: Leaf,
}

impl Case {
    fn good() -> Self {
        let validity = Validity::days(now(), 1);
        let server_leaf = Leaf::Server { namespace: "kube-system".into(), dns: vec![], ips: vec![] };
        Self {
            name: "we.mesh.cilium.io",
            client_issuer: None,
            client_validity: validity,
            server_validity: validity,
            server_leaf,
        }
    }
}

fn check(case: Case, expected: &Expect) {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority();
    let server = lay_out(&dir.path().join("server"), &ca, &ca, case.server_leaf, case.server_validity);
    let issuer = case.client_issuer.as_ref().unwrap_or(&ca);
    let remote = Leaf::Remote(AuthMode::Cluster);
    let client = lay_out(&dir.path().join("client"), &ca, issuer, remote, case.client_validity);
    let text = match shake(&client, &server, case.name) {
        Ok(user) => format!("user {user}"),
        Err(refusal) => refusal.split(": verification time").next().unwrap().to_owned(),
    };
    expected.assert_eq(&text);
}

fn over() -> Validity {
    Validity { not_before: now() - 7200, not_after: now() - 3600 }
}

#[test]
fn a_good_pair_meets_and_the_user_is_known() {
    check(Case::good(), &expect!["user remote-we"]);
    check(Case { name: "127.0.0.1", ..Case::good() }, &expect!["user remote-we"]);
}

#[test]
fn a_client_of_another_authority_is_refused() {
    check(
        Case { client_issuer: Some(authority()), ..Case::good() },
        &expect!["server: invalid peer certificate: BadSignature"],
    );
}

#[test]
fn expired_leaves_are_refused() {
    check(
        Case { client_validity: over(), ..Case::good() },
        &expect!["server: invalid peer certificate: certificate expired"],
    );
    check(
        Case { server_validity: over(), ..Case::good() },
        &expect!["client: invalid peer certificate: certificate expired"],
    );
}

#[test]
fn a_server_of_another_name_is_refused() {
    check(
        Case { name: "we.example", ..Case::good() },
        &expect![[
            r#"client: invalid peer certificate: certificate not valid for name "we.example"; certificate is only valid for DnsName("clustermesh-apiserver.kube-system.svc"), DnsName("*.mesh.cilium.io"), IpAddress(127.0.0.1) or IpAddress(0::1)"#
        ]],
    );
}

#[test]
fn a_client_leaf_does_not_serve() {
    check(
        Case { server_leaf: Leaf::Admin, ..Case::good() },
        &expect![
            "client: invalid peer certificate: certificate does not allow extended key usage for server authentication, allows client authentication"
        ],
    );
}

#[test]
fn a_server_of_another_authority_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (authority(), authority());
    let validity = Validity::days(now(), 1);
    let server = lay_out(&dir.path().join("s"), &ours, &theirs, Case::good().server_leaf, validity);
    let client = lay_out(&dir.path().join("c"), &ours, &ours, Leaf::Local, validity);
    let refusal = shake(&client, &server, "we.mesh.cilium.io").unwrap_err();
    expect!["client: invalid peer certificate: BadSignature"].assert_eq(&refusal);
}

#[test]
fn broken_material_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority();
    let files = lay_out(dir.path(), &ca, &ca, Leaf::Local, Validity::days(now(), 1));
    let other = lay_out(&dir.path().join("other"), &ca, &ca, Leaf::Admin, Validity::days(now(), 1));
    let shown = |files: &TlsFiles| {
        client_config(files).unwrap_err().to_string().replace(&dir.path().display().to_string(), "tls")
    };
    let mixed = TlsFiles { key: other.key.clone(), ..files.clone() };
    expect!["tls/other/admin.key is not the key of tls/local.crt: issue the pair again"].assert_eq(&shown(&mixed));
    let missing = TlsFiles { ca: dir.path().join("none.crt"), ..files.clone() };
    expect!["cannot read tls/none.crt: entity not found"].assert_eq(&shown(&missing));
    let swapped = TlsFiles { cert: files.key.clone(), ..files };
    expect!["tls/local.key holds no certificate: it must have a PEM block CERTIFICATE"].assert_eq(&shown(&swapped));
    assert_eq!(TlsFiles::of(dir.path(), Role::Remote).key, dir.path().join("remote.key"));
}
