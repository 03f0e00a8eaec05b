//! A member is authenticated, not trusted: what its certificate does not allow, and what its records may not say.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use tombolo_certs::{Role, TlsFiles};
use tombolo_core::id::{ClusterName, Family};
use tombolo_core::model::Conditions;
use tombolo_core::own::PeerSession;
use tombolo_core::record::{SliceEndpoint, SlicePort, SliceRecord};
use tombolo_e2e::clock::{Seen, wait_until};
use tombolo_e2e::cluster::{Cluster, SERVICE};
use tombolo_e2e::manifest;
use tombolo_e2e::mesh::Mesh;
use tombolo_e2e::operator::{self, Authority};
use tombolo_e2e::{observe, operator::Said};
use tombolo_store::SessionError;
use tombolo_store::dial::DialCause;
use tombolo_wire::cilium::{self, key};

use crate::harness::{Body, Case};
use crate::intruder::Intruder;

pub(crate) const CASES: &[Case] = &[
    Case { name: "admission: a peer may read what is exported, and nothing else", body: Body::Shared(peer_reads) },
    Case { name: "admission: a peer that writes is denied", body: Body::Shared(peer_writes) },
    Case { name: "admission: a certificate of another authority is refused", body: Body::Shared(wrong_ca) },
    Case { name: "admission: records that lie are refused, and shown in status", body: Body::Shared(lies) },
];

const SOON: Duration = Duration::from_secs(20);

fn denied<T>(verdict: &Result<T, SessionError>) -> bool {
    matches!(verdict, Err(SessionError::PermissionDenied { .. }))
}

fn peer_reads(mesh: &mut Mesh) -> Result<()> {
    let peer = Intruder::peer(mesh.cluster("ne"), "we")?;
    let exported = peer.read("cilium/state/services/v1/we/")?.context("a peer reads exported services")?;
    ensure!(exported.contains_key("cilium/state/services/v1/we/default/rebel-base"), "{:?}", exported.keys());
    for own in ["tombolo/", "tombolo/v1/agents/", "tombolo/v1/control/"] {
        let verdict = peer.read(own)?;
        ensure!(denied(&verdict), "{own}: {:?}", verdict.map(|found| found.into_keys().collect::<Vec<_>>()));
    }
    Ok(())
}

fn peer_writes(mesh: &mut Mesh) -> Result<()> {
    let peer = Intruder::peer(mesh.cluster("ne"), "we")?;
    for key in [
        "cilium/state/services/v1/we/default/rebel-base",
        "cilium/state/services/v1/ne/default/rebel-base",
        "tombolo/v1/agents/services/default/rebel-base",
    ] {
        let verdict = peer.write(&[(key.to_owned(), Bytes::from_static(b"{}"))])?;
        ensure!(denied(&verdict), "{key}: {verdict:?}");
    }
    Ok(())
}

/// Another authority signs for `remote`. The store refuses it, and the apiserver that shows it says so in status,
/// keeping what it knows of the peer.
fn wrong_ca(mesh: &mut Mesh) -> Result<()> {
    let other = Authority::create(&mesh.run().dir().join("another-ca"))?;
    let tls = mesh.run().dir().join("another-tls");
    other.issue("ne", &tls)?;
    let (ne, we) = (&mesh.clusters[0], &mesh.clusters[1]);
    // It trusts we's authority, so it is we's store that refuses.
    std::fs::copy(ne.dir.join("tls/ca.crt"), tls.join("ca.crt"))?;
    let verdict = Intruder::at(&ne.site.control, we, TlsFiles::of(&tls, Role::Remote)).read("cilium/")?;
    let cause = match &verdict {
        Err(SessionError::Dial(error)) => Some(&error.cause),
        _ => None,
    };
    let refused = matches!(cause, Some(DialCause::OurCertificate(_) | DialCause::Closed));
    ensure!(refused, "{:?}", verdict.map(|found| found.into_keys().collect::<Vec<_>>()));

    let all = mesh.all_backends();
    let ne = mesh.cluster("ne");
    let peer = ne.dir.join("peers/we");
    let good = std::fs::read_to_string(&peer).context("read a peer's file")?;
    let own_tls = ne.dir.join("tls").display().to_string();
    manifest::write_whole(&peer, &good.replace(&own_tls, &tls.display().to_string()))?;
    wait_until("the refused certificate in status", SOON, || {
        let peers = observe::apiserver_status(ne)?.peers;
        let we = peers.iter().find(|p| p.name.as_str() == "we").context("we is a peer")?;
        let told = we.state.session != PeerSession::Ready && we.state.detail.contains("certificate");
        Ok(if told { Seen::Ready(()) } else { Seen::NotYet(format!("{:?}", we.state)) })
    })?;
    let table = observe::table(ne, 0, SERVICE)?;
    ensure!(table.as_ref() == Some(&all), "a refused connection changed the table: {table:?}");
    manifest::write_whole(&peer, &good)
}

/// A slice of `rebel-base` as `cluster` would write it, with these addresses.
fn slice(cluster: &str, id: u32, name: &str, addresses: &[&str]) -> (String, Bytes) {
    let endpoint = |address: &&str| SliceEndpoint {
        addresses: vec![(*address).to_owned()],
        conditions: Conditions { ready: Some(true), ..Conditions::default() },
        ..SliceEndpoint::default()
    };
    let record = SliceRecord {
        cluster: cluster.to_owned(),
        cluster_id: id,
        namespace: "default".into(),
        name: name.into(),
        labels: [("kubernetes.io/service-name".into(), "rebel-base".to_owned())].into(),
        annotations: [].into(),
        family: Family::V4,
        endpoints: addresses.iter().map(endpoint).collect(),
        ports: vec![SlicePort {
            name: "http".into(),
            protocol: Some("TCP".into()),
            port: Some(8080),
            app_protocol: None,
        }],
    };
    let ne = ClusterName::new("ne").expect("ne is a cluster's name");
    (key::slice(&ne, "default", name), cilium::encode_slice(&record))
}

fn lies(mesh: &mut Mesh) -> Result<()> {
    let all = mesh.all_backends();
    // A cluster that lies does not run our apiserver: that one would delete at once what is not its own.
    mesh.cluster("ne").kill_apiserver()?;
    let liar = Intruder::admin(mesh.cluster("ne"));
    let lies = [
        slice("fc", 3, "names-another-cluster", &["10.3.1.9"]),
        slice("ne", 1, "metadata-and-loopback", &["169.254.169.254", "127.0.0.1"]),
    ];
    liar.write(&lies)?.context("an administrator writes")?;
    for reader in ["we", "fc"] {
        let cluster = mesh.cluster(reader);
        wait_until("the refusals in status", SOON, || {
            let Said { out, .. } = status_json(cluster)?;
            let wanted = ["names-another-cluster", "169.254.169.254", "127.0.0.1"];
            let absent: Vec<_> = wanted.iter().filter(|text| !out.contains(**text)).collect();
            Ok(if absent.is_empty() { Seen::Ready(()) } else { Seen::NotYet(format!("no {absent:?} in {out}")) })
        })?;
        for node in 0..2 {
            let table = observe::table(cluster, node, SERVICE)?;
            ensure!(table.as_ref() == Some(&all), "a lie reached {reader}: {table:?}");
        }
    }
    mesh.cluster("ne").start_apiserver()?;
    for reader in ["we", "fc"] {
        let cluster = mesh.cluster(reader);
        wait_until("the refusals to leave", SOON, || {
            let peers = observe::apiserver_status(cluster)?.peers;
            let refused: u32 = peers.iter().map(|p| p.state.counts.refused).sum();
            Ok(if refused == 0 { Seen::Ready(()) } else { Seen::NotYet(format!("{refused} refused")) })
        })?;
    }
    Ok(())
}

fn status_json(cluster: &Cluster) -> Result<Said> {
    operator::try_tombolo(&[
        "status".as_ref(),
        "--cluster".as_ref(),
        cluster.dir.as_os_str(),
        "-o".as_ref(),
        "json".as_ref(),
    ])
}
