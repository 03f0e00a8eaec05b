//! Every thing that can be wrong with certificates is found, named with its file, and has a remedy.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use expect_test::{Expect, expect};
use tempfile::TempDir;
use tombolo_certs::{
    AuthMode, Authority, CA_FILE, Expected, Leaf, LeafRequest, Role, TlsFiles, TlsText, Usage, Validity, accepted_by,
    bundle, text_accepted_by, verify, verify_cluster, verify_text, write_private, write_public,
};

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

fn authority(name: &str) -> Authority {
    Authority::create(name, Validity::days(NOW, 3650)).unwrap()
}

fn issue(dir: &Path, authority: &Authority, leaf: Leaf, days: u32) {
    let role = leaf.role();
    let request = LeafRequest { cluster: "we".into(), leaf, validity: Validity::days(NOW, days) };
    let made = authority.issue(&request).unwrap();
    let files = TlsFiles::of(dir, role);
    write_public(&files.cert, made.cert_pem.as_bytes()).unwrap();
    write_private(&files.key, made.key_pem.as_bytes()).unwrap();
}

fn server() -> Leaf {
    Leaf::Server { namespace: "kube-system".into(), dns: vec![], ips: vec![] }
}

fn cluster() -> (TempDir, Authority) {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority("Cilium CA");
    write_public(&dir.path().join(CA_FILE), ca.certificate_pem().as_bytes()).unwrap();
    for leaf in [server(), Leaf::Admin, Leaf::Local, Leaf::Remote(AuthMode::Migration)] {
        issue(dir.path(), &ca, leaf, 365);
    }
    (dir, ca)
}

/// What is found in a cluster after something happened to its directory.
fn check(now: u64, break_it: impl FnOnce(&Path, &Authority), expected: &Expect) {
    let (dir, ca) = cluster();
    break_it(dir.path(), &ca);
    let found: String = verify_cluster(dir.path(), "we", now)
        .iter()
        .map(|f| format!("{:?} {:?} {}: {}\n", f.role, f.severity, f.problem, f.problem.remedy()))
        .collect();
    let mut text = found.replace(&dir.path().display().to_string(), "tls");
    // Fingerprints differ from run to run.
    while let Some(at) = text.find(" [").filter(|at| text[at + 4..].starts_with(':')) {
        text.replace_range(at..at + 14, "");
    }
    expected.assert_eq(&text);
}

#[test]
fn good_certificates_have_no_problems() {
    check(NOW, |_, _| {}, &expect![""]);
    check(NOW, |dir, ca| issue(dir, ca, Leaf::Remote(AuthMode::Cluster), 365), &expect![""]);
}

#[test]
fn dates() {
    check(
        NOW,
        |dir, ca| issue(dir, ca, Leaf::Admin, 10),
        &expect![[r#"
        Admin Warning tls/admin.crt: expires at 2027-01-25T08:00:00Z: issue the leaves again: tombolo certs issue --force
    "#]],
    );
    check(
        NOW + 400 * DAY,
        |dir, ca| issue(dir, ca, Leaf::Admin, 500),
        &expect![[r#"
        Server Error tls/server.crt: expired at 2028-01-15T08:00:00Z: issue the leaves again: tombolo certs issue --force
        Local Error tls/local.crt: expired at 2028-01-15T08:00:00Z: issue the leaves again: tombolo certs issue --force
        Remote Error tls/remote.crt: expired at 2028-01-15T08:00:00Z: issue the leaves again: tombolo certs issue --force
    "#]],
    );
    check(
        NOW - DAY,
        |_, _| {},
        &expect![[r#"
        Server Error tls/server.crt: not valid before 2027-01-15T07:55:00Z: set the clock of this machine, or of the one that issued the certificate
        Admin Error tls/admin.crt: not valid before 2027-01-15T07:55:00Z: set the clock of this machine, or of the one that issued the certificate
        Local Error tls/local.crt: not valid before 2027-01-15T07:55:00Z: set the clock of this machine, or of the one that issued the certificate
        Remote Error tls/remote.crt: not valid before 2027-01-15T07:55:00Z: set the clock of this machine, or of the one that issued the certificate
    "#]],
    );
}

#[test]
fn another_authority() {
    check(
        NOW,
        |dir, _| issue(dir, &authority("Cilium CA"), Leaf::Local, 365),
        &expect![[r#"
        Local Error tls/local.crt: issued by "CN=Cilium CA", which tls/ca.crt does not trust (it has CN=Cilium CA): issue the leaves from the authority that the other side trusts, or add the issuer to its ca.crt
    "#]],
    );
    check(
        NOW,
        |dir, _| issue(dir, &authority("Other CA"), server(), 365),
        &expect![[r#"
        Server Error tls/server.crt: issued by "CN=Other CA", which tls/ca.crt does not trust (it has CN=Cilium CA): issue the leaves from the authority that the other side trusts, or add the issuer to its ca.crt
    "#]],
    );
}

#[test]
fn names_uses_and_keys() {
    let swap = |a: Role, b: Role| {
        move |dir: &Path, _: &Authority| {
            let [a, b] = [a, b].map(|role| TlsFiles::of(dir, role));
            fs::copy(&a.cert, &b.cert).unwrap();
            fs::copy(&a.key, &b.key).unwrap();
        }
    };
    check(
        NOW,
        swap(Role::Admin, Role::Local),
        &expect![[r#"
        Local Error tls/local.crt: the common name is "admin-we", expected local-we: issue the leaves again with this cluster's name, or use the right directory
    "#]],
    );
    check(
        NOW,
        swap(Role::Admin, Role::Server),
        &expect![[r#"
        Server Error tls/server.crt: may not be used as a server certificate: issue the leaf again; a server certificate must allow serverAuth and clientAuth
        Server Error tls/server.crt: does not cover the name we.mesh.cilium.io: issue the server leaf again with --dns or --ip for that name
    "#]],
    );
    check(
        NOW,
        |dir, _| {
            fs::copy(TlsFiles::of(dir, Role::Admin).key, TlsFiles::of(dir, Role::Local).key).unwrap();
        },
        &expect![[r#"
            Local Error tls/local.key: is not the key of tls/local.crt: copy certificate and key as a pair, or issue the leaf again
        "#]],
    );
}

#[test]
fn files() {
    check(
        NOW,
        |dir, _| {
            let key = TlsFiles::of(dir, Role::Local).key;
            fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
            let key = TlsFiles::of(dir, Role::Remote).key;
            fs::set_permissions(&key, Permissions::from_mode(0o640)).unwrap();
        },
        &expect![[r#"
            Local Error tls/local.key: mode 0644, others than its owner can read the key: chmod 600 the key; if others could read it, issue the leaf again
            Remote Warning tls/remote.key: mode 0640, others than its owner can read the key: chmod 600 the key; if others could read it, issue the leaf again
        "#]],
    );
    check(
        NOW,
        |dir, _| {
            fs::remove_file(TlsFiles::of(dir, Role::Local).cert).unwrap();
            fs::write(TlsFiles::of(dir, Role::Admin).cert, "no PEM").unwrap();
            fs::write(TlsFiles::of(dir, Role::Server).key, "no PEM").unwrap();
        },
        &expect![[r#"
            Server Error tls/server.key holds no private key: PKCS#8, PKCS#1 and SEC1 in PEM are read, encrypted keys are not: put the file in place, or issue the leaves again: tombolo certs issue
            Admin Error tls/admin.crt holds no certificate: it must have a PEM block CERTIFICATE: put the file in place, or issue the leaves again: tombolo certs issue
            Local Error cannot read tls/local.crt: entity not found: put the file in place, or issue the leaves again: tombolo certs issue
        "#]],
    );
}

#[test]
fn a_bundle_of_several_authorities_accepts_leaves_of_each() {
    let (dir, ca) = cluster();
    let next = authority("Cilium CA");
    let bundle = [ca.certificate_pem(), next.certificate_pem()].concat();
    write_public(&dir.path().join(CA_FILE), bundle.as_bytes()).unwrap();
    issue(dir.path(), &next, Leaf::Admin, 365);
    assert_eq!(verify_cluster(dir.path(), "we", NOW), []);
}

#[test]
fn an_expired_authority_counts_only_when_no_living_one_signed() {
    let (dir, ca) = cluster();
    let cert = TlsFiles::of(dir.path(), Role::Local).cert;
    let late = NOW + 4000 * DAY;
    let found: Vec<String> =
        accepted_by(&cert, &dir.path().join(CA_FILE), late).iter().map(ToString::to_string).collect();
    let found = found.join("\n").replace(&dir.path().display().to_string(), "tls");
    expect![[r#"tls/ca.crt: the authority "CN=Cilium CA" expired at 2037-01-12T08:00:00Z"#]].assert_eq(&found);
    assert_eq!(ca.info().common_name.as_deref(), Some("Cilium CA"));
}

#[test]
fn an_address_that_the_server_leaf_lacks_is_named() {
    let (dir, _) = cluster();
    let names = ["::1", "127.0.0.1", "ne.mesh.cilium.io", "a.ne.mesh.cilium.io", "192.0.2.1"].map(String::from);
    let expected = Expected { usages: vec![Usage::Server], names: names.into(), ..Expected::default() };
    let found = verify(&TlsFiles::of(dir.path(), Role::Server), &expected, NOW);
    let found: String = found.iter().map(|p| format!("{p}\n")).collect();
    expect![[r#"
        tls/server.crt: does not cover the name a.ne.mesh.cilium.io
        tls/server.crt: does not cover the name 192.0.2.1
    "#]]
    .assert_eq(&found.replace(&dir.path().display().to_string(), "tls"));
}

/// What is found in files is found in the same content without files, but for the mode of a key.
#[test]
fn text_is_judged_as_files_are() {
    let (dir, ca) = cluster();
    let other = authority("Cilium CA");
    issue(dir.path(), &other, Leaf::Admin, 10);
    for role in Role::ALL {
        let files = TlsFiles::of(dir.path(), role);
        let read = |path: &Path| fs::read(path).unwrap();
        let text = TlsText { ca: read(&files.ca), cert: read(&files.cert), key: read(&files.key) };
        let expected = Expected::of(role, "we");
        assert_eq!(verify_text(&files, &text, &expected, NOW), verify(&files, &expected, NOW), "{role:?}");
        let both = bundle(other.certificate_pem(), ca.certificate_pem());
        let names = (files.cert.as_path(), files.ca.as_path());
        assert_eq!(text_accepted_by((names.0, &text.cert), (names.1, both.as_bytes()), NOW), vec![]);
        assert_eq!(
            text_accepted_by((names.0, &text.cert), (names.1, &text.ca), NOW),
            accepted_by(names.0, names.1, NOW)
        );
    }
}

#[test]
fn a_bundle_has_each_authority_once_and_the_first_in_front() {
    let [one, two] = ["one", "two"].map(authority);
    let (one, two) = (one.certificate_pem(), two.certificate_pem());
    assert_eq!(bundle(one, ""), one);
    let both = bundle(two, &bundle(one, two));
    assert_eq!(both, format!("{two}{one}").replace("\r\n", "\n"));
    assert_eq!(bundle(two, &both), both);
}
