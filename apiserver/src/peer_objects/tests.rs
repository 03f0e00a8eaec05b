use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use expect_test::expect;
use tombolo_certs::{AuthMode, Authority, Leaf, LeafRequest, TlsFiles, Validity};
use tombolo_core::id::ClusterName;
use tombolo_kube::resources::{MeshPeer, MeshPeerSpec};
use tombolo_kube::{ByteString, Secret};

use super::*;
use crate::clock;
use crate::mirror::files::{FileChange, PeerFiles};

struct Ground {
    _dir: tempfile::TempDir,
    settings: Settings,
    peers: Watched<MeshPeer>,
    secrets: Watched<Secret>,
    authority: Authority,
}

impl Ground {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            dir: dir.path().join("peers"),
            own: ClusterName::new("we").unwrap(),
            namespace: "tombolo-peers".into(),
        };
        let peers = Watched { complete: true, ..Watched::default() };
        let secrets = Watched { complete: true, ..Watched::default() };
        Self { _dir: dir, settings, peers, secrets, authority: authority() }
    }

    fn peer(&mut self, name: &str, edit: impl Fn(&mut MeshPeerSpec)) {
        let mut spec = MeshPeerSpec {
            endpoints: vec![format!("https://{name}.example:2379")],
            secret_name: format!("tombolo-peer-{name}"),
            ..MeshPeerSpec::default()
        };
        edit(&mut spec);
        self.peers.objects.insert((String::new(), name.into()), Arc::new(MeshPeer::new(name, spec)));
    }

    fn good_secret(&mut self, peer: &str) {
        let (cert, key) = issue(&self.authority);
        let rows = [("ca.crt", self.authority.certificate_pem().to_owned()), ("tls.crt", cert), ("tls.key", key)];
        let data = rows.into_iter().map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes())));
        let secret = Secret { data: Some(data.collect()), ..Secret::default() };
        self.secrets.objects.insert(("tombolo-peers".into(), format!("tombolo-peer-{peer}")), Arc::new(secret));
    }

    fn replace(&mut self, key: &str, text: &str) {
        let name = ("tombolo-peers".to_owned(), "tombolo-peer-ne".to_owned());
        let mut secret = (*self.secrets.objects[&name]).clone();
        secret.data.as_mut().unwrap().insert(key.into(), ByteString(text.as_bytes().to_vec()));
        self.secrets.objects.insert(name, Arc::new(secret));
    }

    /// What came of it, and what the directory has then.
    fn settle(&self) -> String {
        let outcome = settle(&self.settings, &self.peers, &self.secrets);
        let mut told: Vec<String> = outcome.problems.iter().map(|(n, p)| format!("{n}: {}", p.reason)).collect();
        let entries = fs::read_dir(&self.settings.dir).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name != want::FOLDER).collect();
        names.sort();
        told.push(format!("[{}]", names.join(" ")));
        told.join(", ")
    }

    /// What the mirror's reader of the directory makes of it.
    fn read(&self, reader: &mut PeerFiles) -> Vec<FileChange> {
        reader.on(Ok(&crate::peers_dir::list(&self.settings.dir).unwrap()), clock::now())
    }

    fn files(&self, peer: &str) -> TlsFiles {
        let at = |file| self.settings.dir.join(want::FOLDER).join(peer).join(file);
        TlsFiles { ca: at("ca.crt"), cert: at("tls.crt"), key: at("tls.key") }
    }
}

fn authority() -> Authority {
    Authority::create("test", Validity::days(clock::unix_ms() / 1_000, 3_650)).unwrap()
}

fn issue(authority: &Authority) -> (String, String) {
    let validity = Validity::days(clock::unix_ms() / 1_000, 365);
    let leaf = Leaf::Remote(AuthMode::Migration);
    let issued = authority.issue(&LeafRequest { cluster: "we".into(), leaf, validity }).unwrap();
    (issued.cert_pem, issued.key_pem)
}

/// A peer comes, its certificate is renewed, its Secret is lost, it goes: and the mirror is told just that.
#[test]
fn the_life_of_a_peer() {
    let mut ground = Ground::new();
    let mut reader = PeerFiles::new(ground.settings.own.clone(), []);
    ground.peer("ne", |_| {});
    assert_eq!(ground.settle(), "ne: SecretMissing, []");
    ground.good_secret("ne");
    assert_eq!(ground.settle(), "[ne]");
    let changes = ground.read(&mut reader);
    assert!(matches!(changes.as_slice(), [FileChange::Configured(..)]), "{changes:?}");
    tombolo_certs::client_config(&ground.files("ne")).unwrap();
    let first = fs::read(ground.files("ne").cert).unwrap();

    ground.good_secret("ne");
    assert_eq!(ground.settle(), "[ne]");
    assert_ne!(fs::read(ground.files("ne").cert).unwrap(), first, "the renewed certificate is there");
    assert_eq!(ground.read(&mut reader), [], "it counts from the next handshake: no session ends for it");

    ground.secrets.objects.clear();
    assert_eq!(ground.settle(), "ne: SecretMissing, [ne]");
    tombolo_certs::client_config(&ground.files("ne")).unwrap();

    ground.peers.objects.clear();
    assert_eq!(ground.settle(), "[.disconnected-ne]");
    let changes = ground.read(&mut reader);
    assert!(matches!(changes.as_slice(), [FileChange::Left(_)]), "{changes:?}");

    ground.peer("ne", |_| {});
    ground.good_secret("ne");
    assert_eq!(ground.settle(), "[ne]");
}

#[test]
fn a_peer_of_which_nobody_knows_stays() {
    let mut ground = Ground::new();
    ground.peer("ne", |_| {});
    ground.good_secret("ne");
    assert_eq!(ground.settle(), "[ne]");
    ground.peers.objects.clear();
    ground.peers.unconfirmed.insert((String::new(), "ne".to_owned()));
    assert_eq!(ground.settle(), "[ne]");
    ground.peers.unconfirmed.clear();
    assert_eq!(ground.settle(), "[.disconnected-ne]");
}

/// What cannot be used is told, and leaves what was there.
#[test]
fn what_is_wrong_is_told_and_changes_nothing() {
    let rows: [fn(&mut Ground); 10] = [
        |ground| ground.replace("tls.crt", ""),
        |ground| ground.replace("tls.crt", "no PEM"),
        |ground| ground.replace("tls.key", &issue(&authority()).1),
        |ground| ground.replace("ca.crt", authority().certificate_pem()),
        |ground| ground.peer("ne", |spec| spec.endpoints.clear()),
        |ground| ground.peer("ne", |spec| spec.endpoints = vec!["https://ne.example".into()]),
        |ground| ground.peer("ne", |spec| spec.server_name = Some("other".into())),
        |ground| {
            let aliases = BTreeMap::from([("nowhere".to_owned(), vec!["ne".to_owned()])]);
            ground.peer("ne", |spec| spec.host_aliases = aliases.clone());
        },
        |ground| ground.peer("we", |_| {}),
        |ground| ground.secrets = Watched::default(),
    ];
    let mut told = String::new();
    for edit in rows {
        let mut ground = Ground::new();
        ground.peer("ne", |_| {});
        ground.good_secret("ne");
        assert_eq!(ground.settle(), "[ne]");
        let before = fs::read(ground.files("ne").cert).unwrap();
        edit(&mut ground);
        told.push_str(&ground.settle());
        told.push('\n');
        assert_eq!(fs::read(ground.files("ne").cert).unwrap(), before);
        tombolo_certs::client_config(&ground.files("ne")).unwrap();
    }
    expect![[r#"
        ne: SecretIncomplete, [ne]
        ne: CertificateUnusable, [ne]
        ne: KeyOfAnotherCertificate, [ne]
        ne: CertificateOfAnotherCA, [ne]
        ne: InvalidEndpoint, [ne]
        ne: InvalidEndpoint, [ne]
        ne: InvalidServerName, [ne]
        ne: InvalidHostAlias, [ne]
        we: OwnName, [ne]
        [ne]
    "#]]
    .assert_eq(&told);
}

#[test]
fn a_server_name_stands_for_addresses() {
    let mut ground = Ground::new();
    let endpoints = ["https://192.0.2.1:2379", "https://192.0.2.2:2379", "https://[2001:db8::1]:2380"];
    ground.peer("ne", |spec| {
        spec.endpoints = endpoints.map(Into::into).into();
        spec.server_name = Some("ne.mesh.cilium.io".into());
    });
    ground.good_secret("ne");
    assert_eq!(ground.settle(), "[ne]");
    expect![[r#"
        endpoints:
        - https://ne.mesh.cilium.io:2379
        - https://ne.mesh.cilium.io:2380
        trusted-ca-file: ".tls/ne/ca.crt"
        key-file: ".tls/ne/tls.key"
        cert-file: ".tls/ne/tls.crt"
        cilium-host-aliases:
        - hostname: ne.mesh.cilium.io
          ips:
          - 192.0.2.1
          - 192.0.2.2
          - "2001:db8::1"
    "#]]
    .assert_eq(&fs::read_to_string(ground.settings.dir.join("ne")).unwrap());
}
