use expect_test::expect;

use super::*;

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

fn authority() -> Authority {
    Authority::create("Cilium CA", Validity::days(NOW, 3650)).unwrap()
}

fn ne() -> ClusterName {
    ClusterName::new("ne").unwrap()
}

fn wanted(cluster: &ClusterName) -> Wanted<'_> {
    Wanted { cluster, dns: &[], ips: &[], auth_mode: None, days: 365 }
}

/// What is in a cluster after this was put there.
fn kept(made: &[(LeafDone, Document)]) -> BTreeMap<String, TlsSecret> {
    made.iter().map(|(done, document)| (done.secret.clone(), TlsSecret::read(&document.object).unwrap())).collect()
}

fn told(made: &[(LeafDone, Document)]) -> String {
    made.iter().map(|(done, _)| format!("{}: {}\n", done.secret, done.issued.as_deref().unwrap_or("kept"))).collect()
}

#[test]
fn leaves_are_issued_once() {
    let (ca, ne) = (authority(), ne());
    let first = leaves(&ca, &wanted(&ne), &BTreeMap::new(), NOW).unwrap();
    expect![[r"
        tombolo-server: there was none
        tombolo-admin: there was none
        tombolo-local: there was none
        tombolo-remote: there was none
    "]]
    .assert_eq(&told(&first));
    let again = leaves(&ca, &wanted(&ne), &kept(&first), NOW + 300 * DAY).unwrap();
    assert!(again.iter().all(|(done, _)| done.issued.is_none()), "{}", told(&again));
    for ((_, first), (_, again)) in first.iter().zip(&again) {
        assert_eq!(first, again);
    }
}

#[test]
fn a_leaf_is_issued_again_for_a_reason() {
    let (ca, ne, we) = (authority(), ne(), ClusterName::new("we").unwrap());
    let present = kept(&leaves(&ca, &wanted(&ne), &BTreeMap::new(), NOW).unwrap());
    let again = |ca: &Authority, wanted: &Wanted<'_>, present: &BTreeMap<String, TlsSecret>, now| {
        told(&leaves(ca, wanted, present, now).unwrap())
    };
    let soon = again(&ca, &wanted(&ne), &present, NOW + 340 * DAY);
    let over = again(&ca, &wanted(&ne), &present, NOW + 400 * DAY);
    let names = Wanted { dns: &["lb.example".to_owned()], ips: &["192.0.2.1".parse().unwrap()], ..wanted(&ne) };
    let names = again(&ca, &names, &present, NOW);
    let mode = again(&ca, &Wanted { auth_mode: Some(AuthMode::Cluster), ..wanted(&ne) }, &present, NOW);
    let renamed = again(&ca, &wanted(&we), &present, NOW);
    let mut broken = present.clone();
    broken.get_mut("tombolo-local").unwrap().key = present["tombolo-admin"].key.clone();
    broken.get_mut("tombolo-admin").unwrap().cert = b"x".to_vec();
    let broken = again(&ca, &wanted(&ne), &broken, NOW);
    expect![[r#"
        soon
        tombolo-server: it would have expired at 2028-01-15T08:00:00Z
        tombolo-admin: it would have expired at 2028-01-15T08:00:00Z
        tombolo-local: it would have expired at 2028-01-15T08:00:00Z
        tombolo-remote: it would have expired at 2028-01-15T08:00:00Z
        over
        tombolo-server: it expired at 2028-01-15T08:00:00Z
        tombolo-admin: it expired at 2028-01-15T08:00:00Z
        tombolo-local: it expired at 2028-01-15T08:00:00Z
        tombolo-remote: it expired at 2028-01-15T08:00:00Z
        names
        tombolo-server: it did not cover lb.example
        tombolo-admin: kept
        tombolo-local: kept
        tombolo-remote: kept
        mode
        tombolo-server: kept
        tombolo-admin: kept
        tombolo-local: kept
        tombolo-remote: ne's Secret tombolo-remote tls.crt: the common name is "remote", expected remote-ne
        renamed
        tombolo-server: kept
        tombolo-admin: we's Secret tombolo-admin tls.crt: the common name is "admin-ne", expected admin-we
        tombolo-local: we's Secret tombolo-local tls.crt: the common name is "local-ne", expected local-we
        tombolo-remote: kept
        broken
        tombolo-server: kept
        tombolo-admin: there was none
        tombolo-local: ne's Secret tombolo-local tls.key: is not the key of ne's Secret tombolo-local tls.crt
        tombolo-remote: kept
    "#]]
    .assert_eq(&format!("soon\n{soon}over\n{over}names\n{names}mode\n{mode}renamed\n{renamed}broken\n{broken}"));
}

#[test]
fn another_authority_issues_all_and_the_one_before_stays_trusted() {
    let (one, two, ne) = (authority(), authority(), ne());
    let present = kept(&leaves(&one, &wanted(&ne), &BTreeMap::new(), NOW).unwrap());
    let made = leaves(&two, &wanted(&ne), &present, NOW).unwrap();
    assert!(made.iter().all(|(done, _)| done.issued.as_deref().is_some_and(|why| why.contains("another authority"))));
    let ca = String::from_utf8(kept(&made)["tombolo-server"].ca.clone()).unwrap();
    assert_eq!(ca, bundle(two.certificate_pem(), one.certificate_pem()));
}

/// A server keeps the names that it has, and a remote its user.
#[test]
fn what_was_said_before_stays() {
    let (ca, ne) = (authority(), ne());
    let said = Wanted { dns: &["lb.example".to_owned()], auth_mode: Some(AuthMode::Cluster), ..wanted(&ne) };
    let present = kept(&leaves(&ca, &said, &BTreeMap::new(), NOW).unwrap());
    let again = leaves(&ca, &wanted(&ne), &present, NOW + 350 * DAY).unwrap();
    let again = kept(&again);
    let info =
        |name: &str| inspect(Path::new(name), &certificates(Path::new(name), &again[name].cert).unwrap()[0]).unwrap();
    let server = info("tombolo-server");
    assert_eq!(server.common_name.as_deref(), Some("clustermesh-apiserver.tombolo-system.svc"));
    assert!(server.dns.contains(&"lb.example".to_owned()) && server.dns.contains(&"*.mesh.cilium.io".to_owned()));
    assert_eq!(info("tombolo-remote").common_name.as_deref(), Some("remote-ne"));
}

#[test]
fn an_authority_comes_back_from_its_secret() {
    let ca = authority();
    let document = authority_secret(&ca);
    let secret = &kept(&[(LeafDone { secret: CA_SECRET.into(), issued: None, not_after: 0 }, document)])[CA_SECRET];
    let read = authority_of(secret, "kind-ne").unwrap();
    assert_eq!(read.info(), ca.info());
    let wrong = TlsSecret { key: Vec::new(), ..secret.clone() };
    let error = authority_of(&wrong, "kind-ne").err().unwrap().to_string();
    assert!(error.contains("Secret tombolo-ca of context kind-ne, tls.key"), "{error}");
}
