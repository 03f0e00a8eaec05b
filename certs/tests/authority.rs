//! Authorities are made, saved, imported in every form of key, and issue Cilium's leaves.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use expect_test::{Expect, expect};
use tombolo_certs::{
    AuthMode, Authority, CA_FILE, CA_KEY_FILE, CertInfo, DEFAULT_CA_NAME, Leaf, LeafRequest, Validity, inspect,
    read_bundle, read_key, rfc3339,
};

const NOW: u64 = 1_800_000_000;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn describe(info: &CertInfo) -> String {
    format!(
        "{} by {}\n{} {:?} ca={}\ndns {:?}\nips {:?}\n{} to {}\n",
        info.subject,
        info.issuer,
        info.key,
        info.usages,
        info.is_ca,
        info.dns,
        info.ips,
        rfc3339(info.not_before),
        rfc3339(info.not_after)
    )
}

fn issued(authority: &Authority, leaf: Leaf) -> CertInfo {
    let request = LeafRequest { cluster: "we".into(), leaf, validity: Validity::days(NOW, 365) };
    let made = authority.issue(&request).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("leaf.crt");
    fs::write(&path, made.cert_pem).unwrap();
    assert!(made.key_pem.starts_with("-----BEGIN PRIVATE KEY-----"), "PKCS#8");
    inspect(&path, &read_bundle(&path).unwrap()[0]).unwrap()
}

fn check(leaf: Leaf, expected: &Expect) {
    let authority = Authority::create(DEFAULT_CA_NAME, Validity::days(NOW, 3650)).unwrap();
    expected.assert_eq(&describe(&issued(&authority, leaf)));
}

fn server(dns: &[&str]) -> Leaf {
    Leaf::Server {
        namespace: "kube-system".into(),
        dns: dns.iter().map(ToString::to_string).collect(),
        ips: vec!["192.0.2.7".parse().unwrap(), "127.0.0.1".parse().unwrap()],
    }
}

#[test]
fn the_server_leaf_has_ciliums_names_and_both_uses() {
    check(
        server(&["store.we.example"]),
        &expect![[r#"
            CN=clustermesh-apiserver.kube-system.svc by CN=Cilium CA
            ECDSA P-256 [Server, Client] ca=false
            dns ["clustermesh-apiserver.kube-system.svc", "*.mesh.cilium.io", "store.we.example"]
            ips [127.0.0.1, ::1, 192.0.2.7]
            2027-01-15T07:55:00Z to 2028-01-15T08:00:00Z
        "#]],
    );
}

#[test]
fn client_leaves_have_ciliums_users_as_names() {
    check(
        Leaf::Admin,
        &expect![[r#"
            CN=admin-we by CN=Cilium CA
            ECDSA P-256 [Client] ca=false
            dns []
            ips []
            2027-01-15T07:55:00Z to 2028-01-15T08:00:00Z
        "#]],
    );
    let leaves = [Leaf::Local, Leaf::Remote(AuthMode::Legacy), Leaf::Remote(AuthMode::Migration)];
    let names = leaves.map(|l| l.common_name("we"));
    assert_eq!(names, ["local-we", "remote", "remote"]);
    assert_eq!(Leaf::Remote(AuthMode::Cluster).common_name("we"), "remote-we");
}

#[test]
fn a_leaf_never_outlives_its_authority() {
    let authority = Authority::create(DEFAULT_CA_NAME, Validity::days(NOW, 10)).unwrap();
    assert_eq!(issued(&authority, Leaf::Local).not_after, authority.info().not_after);
    let late = Validity::days(NOW + 11 * 86_400, 1);
    let error =
        authority.issue(&LeafRequest { cluster: "we".into(), leaf: Leaf::Local, validity: late }).err().unwrap();
    expect![[r#"the authority "CN=Cilium CA" is valid until 2027-01-25T08:00:00Z only: make a new one"#]]
        .assert_eq(&error.to_string());
}

#[test]
fn a_name_that_is_none_is_refused() {
    let authority = Authority::create(DEFAULT_CA_NAME, Validity::days(NOW, 10)).unwrap();
    let request = LeafRequest { cluster: "we".into(), leaf: server(&["not a host"]), validity: Validity::days(NOW, 1) };
    let error = authority.issue(&request).err().unwrap();
    expect![[r#""not a host" cannot stand in a certificate: it must be a host name or an IP address"#]]
        .assert_eq(&error.to_string());
}

#[test]
fn saved_is_loaded_and_the_key_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let made = Authority::create("Tombolo CA", Validity::days(NOW, 10)).unwrap();
    made.save(dir.path()).unwrap();
    let mode = fs::metadata(dir.path().join(CA_KEY_FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(Authority::load(dir.path()).unwrap().info(), made.info());
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "no temporary file is left: {names:?}");
}

#[test]
fn older_keys_are_imported_and_written_as_pkcs8() {
    for (name, kind) in [("rsa-pkcs1", "RSA 2048"), ("ec-sec1", "ECDSA P-384")] {
        let [cert, key] = ["crt", "key"].map(|end| fixture(&format!("{name}.{end}")));
        let imported = Authority::load_files(&cert, &key).unwrap();
        assert_eq!(imported.info().key, kind);
        let leaf = issued(&imported, Leaf::Admin);
        assert_eq!(leaf.issuer, imported.info().subject);

        let dir = tempfile::tempdir().unwrap();
        imported.save(dir.path()).unwrap();
        assert!(fs::read_to_string(dir.path().join(CA_KEY_FILE)).unwrap().starts_with("-----BEGIN PRIVATE KEY-----"));
        assert_eq!(fs::read(dir.path().join(CA_FILE)).unwrap(), fs::read(&cert).unwrap());
        let again = Authority::load(dir.path()).unwrap();
        assert_eq!(again.info(), imported.info());
        assert_eq!(issued(&again, Leaf::Admin).issuer, leaf.issuer);
    }
}

#[test]
fn the_certificate_of_the_key_is_found_in_a_bundle() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("ca.crt");
    let both = ["ec-sec1.crt", "rsa-pkcs1.crt"].map(|f| fs::read_to_string(fixture(f)).unwrap()).concat();
    fs::write(&bundle, both).unwrap();
    assert_eq!(Authority::load_files(&bundle, &fixture("rsa-pkcs1.key")).unwrap().info().subject, "CN=Cilium CA");
    let other = Authority::load_files(&fixture("ec-sec1.crt"), &fixture("rsa-pkcs1.key")).err().unwrap();
    assert!(other.to_string().contains("rsa-pkcs1.key is not the key of"), "{other}");
}

#[test]
fn the_secrets_of_cilium_and_of_cert_manager_are_read() {
    let [cert, key] = ["rsa-pkcs1.crt", "rsa-pkcs1.key"].map(|f| base64(&fs::read(fixture(f)).unwrap()));
    for (cert_name, key_name) in [("ca.crt", "ca.key"), ("tls.crt", "tls.key")] {
        let data = BTreeMap::from([(cert_name.into(), cert.clone()), (key_name.into(), key.clone())]);
        let read = Authority::from_secret(Path::new("cilium-ca.yaml"), &data).unwrap();
        assert_eq!(read.info().subject, "CN=Cilium CA");
    }
    let empty = Authority::from_secret(Path::new("cilium-ca.yaml"), &BTreeMap::new()).err().unwrap();
    expect!["cilium-ca.yaml is no Secret with an authority: data.tls.crt is missing"].assert_eq(&empty.to_string());
    let odd = BTreeMap::from([("ca.crt".into(), "&&".into()), ("ca.key".into(), key)]);
    let odd = Authority::from_secret(Path::new("cilium-ca.yaml"), &odd).err().unwrap();
    expect!["cilium-ca.yaml is no Secret with an authority: data.ca.crt is not base64"].assert_eq(&odd.to_string());
}

#[test]
fn a_leaf_is_no_authority() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create(DEFAULT_CA_NAME, Validity::days(NOW, 10)).unwrap();
    let request = LeafRequest { cluster: "we".into(), leaf: Leaf::Admin, validity: Validity::days(NOW, 1) };
    let leaf = authority.issue(&request).unwrap();
    let [cert, key] = ["a.crt", "a.key"].map(|f| dir.path().join(f));
    fs::write(&cert, leaf.cert_pem).unwrap();
    fs::write(&key, leaf.key_pem).unwrap();
    assert!(read_key(&key).is_ok());
    let error = Authority::load_files(&cert, &key).err().unwrap();
    expect![[r#""CN=admin-we" is no certificate authority: it lacks CA:TRUE or may not sign certificates"#]]
        .assert_eq(&error.to_string());
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let n = chunk.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = ALPHABET[(n >> (18 - 6 * i) & 63) as usize] as char;
            out.push(if i > chunk.len() { '=' } else { digit });
        }
    }
    out
}
