use expect_test::expect;
use tombolo_core::id::ClusterName;

use super::*;
use crate::args::Profile;
use crate::kube::enable::AuthorityDone;
use crate::kube::endpoint::Endpoint;
use crate::kube::leaves::LeafDone;

fn put(object: &str, outcome: Outcome) -> Put {
    Put { object: object.into(), outcome }
}

#[test]
fn an_enabled_cluster() {
    let leaf = |secret: &str, issued: Option<&str>| LeafDone {
        secret: secret.into(),
        issued: issued.map(str::to_owned),
        not_after: 1_831_536_000,
    };
    let enabled = Enabled {
        cluster: "ne".into(),
        id: 1,
        context: "kind-ne".into(),
        profile: Profile::Dev,
        authority: AuthorityDone { from: Origin::Context("kind-we".into()), subject: "CN=Cilium CA [AB:CD]".into() },
        leaves: vec![leaf("tombolo-server", Some("there was none")), leaf("tombolo-admin", None)],
        objects: vec![
            put("Namespace tombolo-system", Outcome::Created),
            put("Service tombolo-system/clustermesh-apiserver", Outcome::Changed),
            put("Namespace tombolo-peers", Outcome::Unchanged),
        ],
    };
    expect![[r"
        ✅ ne (id 1) is enabled in context kind-ne, profile dev
           🔑 authority CN=Cilium CA [AB:CD], shared with context kind-we
              tombolo-server issued, valid until 2028-01-15T08:00:00Z: there was none
              tombolo-admin kept, valid until 2028-01-15T08:00:00Z
           📦 3 objects: 1 created, 1 changed, 1 unchanged
    "]]
    .assert_eq(&enabled.text());
    let json = serde_json::to_value(&enabled).unwrap();
    assert_eq!(json["objects"][1]["outcome"], "changed");
    assert_eq!(json["authority"]["from"]["context"], "kind-we");
}

#[test]
fn every_side() {
    let endpoint = Endpoint { by: "NodePort".into(), urls: vec!["https://we:1".into()], aliases: [].into() };
    let side = |endpoint, first, second| Side {
        cluster: "ne".into(),
        peer: ClusterName::new("we").unwrap(),
        endpoint,
        objects: vec![put("MeshPeer we", first), put("Secret tombolo-peers/tombolo-peer-we", second)],
    };
    let sides = vec![
        side(Some(endpoint), Outcome::Created, Outcome::Unchanged),
        side(None, Outcome::Removed, Outcome::Absent),
        side(None, Outcome::Absent, Outcome::Absent),
    ];
    expect![[r"
        ✅ ne reads we at https://we:1 (MeshPeer we created, Secret tombolo-peers/tombolo-peer-we unchanged)
        ✅ ne no longer reads we (MeshPeer we removed, Secret tombolo-peers/tombolo-peer-we absent)
        ✅ ne did not read we (MeshPeer we absent, Secret tombolo-peers/tombolo-peer-we absent)
    "]]
    .assert_eq(&Disconnected { sides }.text());
}

#[test]
fn what_was_taken_away() {
    let disabled = |nodes| Disabled {
        context: "kind-ne".into(),
        nodes,
        objects: vec![put("Namespace tombolo-system", Outcome::Removed)],
    };
    expect![[r"
        ✅ context kind-ne is rid of Tombolo
           the agents took their programs from 2 nodes
           📦 1 object: 1 removed
        ✅ context kind-ne is rid of Tombolo
           nothing was done on nodes
           📦 1 object: 1 removed
    "]]
    .assert_eq(&(disabled(Some(2)).text() + &disabled(None).text()));
}
