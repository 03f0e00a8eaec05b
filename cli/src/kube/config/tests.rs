use tombolo_kube::install::Node;
use tombolo_kube::resources::MeshPeer;

use super::*;

fn args(name: &str, id: u32) -> EnableArgs {
    EnableArgs { cluster_name: Some(ClusterName::new(name).unwrap()), cluster_id: Some(id), ..EnableArgs::default() }
}

/// What is found after a cluster was enabled like this.
fn after(args: &EnableArgs, mut found: Found) -> Found {
    let config = ClusterConfig::wanted(args, &found).unwrap();
    let object = config.document(&Shape::wanted(args, &found)).object;
    let texts = |value: &serde_json::Value| serde_json::from_value(value.clone()).unwrap();
    let (data, annotations) = (texts(&object["data"]), texts(&object["metadata"]["annotations"]));
    found.config = Some(ClusterMap { data, annotations });
    found
}

#[test]
fn what_was_said_once_need_not_be_said_again() {
    let mut first = args("ne", 300);
    first.max_connected_clusters = Some(511);
    first.pod_cidrs = vec!["10.1.0.0/16".parse().unwrap()];
    first.default_global_namespace = Some(false);
    first.profile = Some(Profile::Ha);
    first.service_type = Some(ServiceType::NodePort);
    first.internal = Some(true);
    first.image = Some("registry.example/tombolo:1".into());
    let nothing = Found { service_cidrs: vec!["10.96.0.0/16".parse().unwrap()], ..Found::default() };
    let (config, shape) = (ClusterConfig::wanted(&first, &nothing).unwrap(), Shape::wanted(&first, &nothing));
    let found = after(&first, nothing);
    assert_eq!(ClusterConfig::parse(&found.config.as_ref().unwrap().data).unwrap(), config);
    let silent = EnableArgs::default();
    assert_eq!(ClusterConfig::wanted(&silent, &found).unwrap(), config);
    assert_eq!(Shape::wanted(&silent, &found), shape);
    let other = EnableArgs { profile: Some(Profile::Dev), internal: Some(false), ..EnableArgs::default() };
    let shape = Shape { profile: Profile::Dev, internal: Some(false), ..shape };
    assert_eq!(Shape::wanted(&other, &found), shape);
}

#[test]
fn what_was_never_said_is_needed() {
    let needed = |args: &EnableArgs| ClusterConfig::wanted(args, &Found::default()).unwrap_err();
    assert_eq!(needed(&EnableArgs::default()), ConfigError::Needed { flag: "--cluster-name" });
    let nameless = EnableArgs { cluster_id: None, ..args("ne", 1) };
    assert_eq!(needed(&nameless), ConfigError::Needed { flag: "--cluster-id" });
    assert!(matches!(needed(&args("ne", 256)), ConfigError::Id(_)));
}

#[test]
fn a_cluster_with_peers_stays_who_it_is() {
    let peer = serde_json::json!({
        "apiVersion": "tombolo.io/v1alpha1", "kind": "MeshPeer", "metadata": { "name": "we" },
        "spec": { "endpoints": ["https://we:1"], "secretName": "s" },
    });
    let peers: Vec<MeshPeer> = vec![serde_json::from_value(peer).unwrap()];
    let found = Found { peers, ..after(&args("ne", 1), Found::default()) };
    let becomes = ClusterConfig::wanted(&args("ne", 2), &found).unwrap_err().to_string();
    assert_eq!(
        becomes,
        "the cluster is ne (id 1 of 255) and has peers (we): disconnect it before it becomes ne (id 2 of 255)"
    );
    assert!(ClusterConfig::wanted(&args("ne", 1), &found).is_ok());
    let alone = Found { peers: vec![], ..found };
    assert!(ClusterConfig::wanted(&args("ne", 2), &alone).is_ok());
}

#[test]
fn the_cloud_of_the_nodes_suggests_a_profile() {
    let profile = |provider: &str| {
        let node = Node { provider: provider.into(), ..Node::default() };
        Shape::wanted(&EnableArgs::default(), &Found { nodes: vec![node], ..Found::default() }).profile
    };
    assert_eq!([profile("azure"), profile("aws"), profile("")], [Profile::Aks, Profile::Eks, Profile::Dev]);
}

#[test]
fn a_broken_map_says_which_key() {
    let parse = |rows: &[(&str, &str)]| {
        let data = rows.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        ClusterConfig::parse(&data)
    };
    let key = |rows: &[(&str, &str)]| match parse(rows) {
        Err(ConfigError::Key { key, .. }) => key,
        other => panic!("{other:?}"),
    };
    assert_eq!(key(&[]), "name");
    assert_eq!(key(&[("name", "ne"), ("id", "one")]), "id");
    assert_eq!(key(&[("name", "ne"), ("id", "1"), ("podCIDRs", "10.0.0.0/8,x")]), "podCIDRs");
    assert!(parse(&[("name", "ne"), ("id", "1"), ("serviceCIDRs", " 10.0.0.0/16, fd00::/112")]).is_ok());
}
