//! Whose certificate is wrong, and rotation.

use tombolo_store::dial::{CertificateFault, DialCause, Dialer};
use tombolo_store::{SessionError, SessionEvent, SessionSpec, StoreConfig, Watch};

use crate::support::{Etcd, Mirror, Pki, until_event};

async fn cause(store: &StoreConfig) -> DialCause {
    match Dialer::new(store).unwrap().dial().await {
        Ok(_) => panic!("this should not connect"),
        Err(error) => error.cause,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_failing_side_is_named() {
    let Some(etcd) = Etcd::start().await else { return };
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Pki::new(elsewhere.path());
    let right = etcd.store("remote");

    let mut theirs = right.clone();
    theirs.tls.ca = other.files("remote").ca;
    assert_eq!(cause(&theirs).await, DialCause::TheirCertificate(CertificateFault::OtherCa));

    let mut ours = right.clone();
    (ours.tls.cert, ours.tls.key) = (other.files("remote").cert, other.files("remote").key);
    assert!(matches!(cause(&ours).await, DialCause::OurCertificate(_)), "{:?}", cause(&ours).await);

    let mut name = right.clone();
    name.endpoints = vec![right.endpoints[0].replace("we.mesh.cilium.io", "store.elsewhere")];
    name.host_aliases.insert("store.elsewhere".into(), vec!["127.0.0.1".parse().unwrap()]);
    let expected = CertificateFault::OtherName { expected: "store.elsewhere".into() };
    assert_eq!(cause(&name).await, DialCause::TheirCertificate(expected));

    let mut missing = right.clone();
    missing.tls.key = elsewhere.path().join("none.key");
    assert!(matches!(cause(&missing).await, DialCause::OurFiles(_)));

    let mut one_of_two = right.clone();
    one_of_two.endpoints.push("https://127.0.0.1:1".into());
    assert!(Dialer::new(&one_of_two).unwrap().dial().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_certificate_counts_at_the_next_handshake() {
    let Some(etcd) = Etcd::start().await else { return };
    let elsewhere = tempfile::tempdir().unwrap();
    let (good, wrong) = (etcd.pki.files("remote"), Pki::new(elsewhere.path()).files("remote"));
    let mut store = etcd.store("remote");
    store.tls = tombolo_certs::TlsFiles {
        ca: good.ca.clone(),
        cert: elsewhere.path().join("used.crt"),
        key: elsewhere.path().join("used.key"),
    };
    let used = store.tls.clone();
    let install = |files: &tombolo_certs::TlsFiles| {
        std::fs::copy(&files.cert, &used.cert).unwrap();
        std::fs::copy(&files.key, &used.key).unwrap();
    };
    install(&wrong);
    let watches = vec![Watch { prefix: "cilium/state/".into(), canary: None }];
    let mut mirror = Mirror::start(SessionSpec { store, heartbeat: None, first: None, watches });
    let reason = until_event(&mut mirror.rx, |event| match event {
        SessionEvent::Lost { reason } => Some(reason),
        _ => None,
    })
    .await;
    let SessionError::Dial(error) = reason else { panic!("{reason:?}") };
    assert!(matches!(error.cause, DialCause::OurCertificate(_)), "{error}");
    install(&good);
    until_event(&mut mirror.rx, |event| matches!(event, SessionEvent::Connected { .. }).then_some(())).await;
}
