//! The program itself, on temporary directories: certificates, laying out, connecting, disconnecting, and what happens when
//! nobody answers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use expect_test::{Expect, expect};
use tempfile::TempDir;

/// Directories `ca`, `ne`, `we` and `fc`, as three calls of `init` make them.
struct Mesh(TempDir);

impl Mesh {
    fn empty() -> Self {
        let mesh = Self(tempfile::tempdir().unwrap());
        mesh.ok("certs init --dir ca");
        mesh
    }

    fn new() -> Self {
        let mesh = Self::empty();
        for (id, name) in [(1, "ne"), (2, "we"), (3, "fc")] {
            mesh.ok(&format!(
                "init {name} --name {name} --id {id} --ca ca --store https://10.0.0.{id}:2379 --node n1=run/n1.sock"
            ));
        }
        mesh
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn read(&self, file: &str) -> String {
        let text = fs::read_to_string(self.path().join(file)).unwrap();
        text.replace(&fs::canonicalize(self.path()).unwrap().display().to_string(), "MESH")
    }

    /// Exit status, standard output and standard error, with the temporary directory's path left out.
    fn run(&self, args: &str) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tombolo"));
        let output = command.args(args.split(' ')).current_dir(self.path()).env_remove("TOMBOLO_CLUSTER");
        let output = output.output().unwrap();
        let place = fs::canonicalize(self.path()).unwrap().display().to_string();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(&format!("{place}/"), "");
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn ok(&self, args: &str) -> String {
        let (code, out, err) = self.run(args);
        assert_eq!(code, 0, "{args}: {err}{out}");
        out
    }

    fn fails(&self, args: &str, expected: &Expect) {
        let (code, out, err) = self.run(args);
        assert_eq!(code, 1, "{args}: {out}");
        expected.assert_eq(&(out + &err));
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replace(from, to)).unwrap();
    }
}

#[test]
fn certificates_are_issued_once_and_renewed_by_force() {
    let mesh = Mesh::empty();
    mesh.fails(
        "certs init --dir ca",
        &expect![[r#"
        error: ca/ca.key exists: add --force to replace it
    "#]],
    );
    mesh.ok("certs issue --cluster-name we --ca ca --dir we/tls --dns store.we --ip 192.0.2.1 --auth-mode cluster");
    mesh.fails(
        "certs issue --cluster-name we --ca ca --dir we/tls",
        &expect![[r#"
        error: we/tls/server.crt exists: add --force to replace it
    "#]],
    );
    let before = mesh.read("we/tls/server.crt");
    mesh.ok("certs issue --cluster-name we --ca ca --dir we/tls --force");
    assert_ne!(before, mesh.read("we/tls/server.crt"));
    for file in ["ca/ca.key", "we/tls/server.key", "we/tls/admin.key", "we/tls/local.key", "we/tls/remote.key"] {
        assert_eq!(fs::metadata(mesh.path().join(file)).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
    assert!(!mesh.path().join("we/tls/ca.key").exists(), "a cluster never has the authority's key");
    assert_eq!(mesh.read("we/tls/ca.crt"), mesh.read("ca/ca.crt"));
}

#[test]
fn a_bad_name_writes_nothing() {
    let mesh = Mesh::empty();
    mesh.fails(
        "certs issue --cluster-name we --ca ca --dir we/tls --dns a_b..c",
        &expect![[r#"
        error: "a_b..c" cannot stand in a certificate: it must be a host name or an IP address
    "#]],
    );
    assert!(!mesh.path().join("we").exists());
}

#[test]
fn certificates_are_shown() {
    let mesh = Mesh::empty();
    mesh.ok("certs issue --cluster-name we --ca ca --dir we/tls --dns store.we --ip 192.0.2.1 --auth-mode cluster");
    let json: serde_json::Value = serde_json::from_str(&mesh.ok("certs show we/tls -o json")).unwrap();
    let brief: String = json["certificates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| format!("{} {} {} {} {}\n", c["path"], c["subject"], c["dns"], c["ips"], c["usages"]))
        .collect();
    expect![[r#"
        "we/tls/admin.crt" "CN=admin-we" [] [] ["client"]
        "we/tls/ca.crt" "CN=Cilium CA" [] [] ["server","client"]
        "we/tls/local.crt" "CN=local-we" [] [] ["client"]
        "we/tls/remote.crt" "CN=remote-we" [] [] ["client"]
        "we/tls/server.crt" "CN=clustermesh-apiserver.kube-system.svc" ["clustermesh-apiserver.kube-system.svc","*.mesh.cilium.io","store.we"] ["127.0.0.1","::1","192.0.2.1"] ["server","client"]
    "#]].assert_eq(&brief);
    mesh.fails(
        "certs show we",
        &expect![[r#"
        error: we holds no certificates (*.crt)
    "#]],
    );
}

#[test]
fn an_authority_is_replaced_without_an_interruption() {
    let mesh = Mesh::new();
    let verify = "certs verify --cluster ne --cluster we";
    mesh.ok(verify);
    mesh.ok("certs init --dir ca2");
    for cluster in ["ne", "we"] {
        mesh.ok(&format!("certs trust --dir {cluster}/tls --ca ca2"));
        mesh.ok(&format!("certs trust --dir {cluster}/tls --ca ca2"));
        assert_eq!(mesh.read(&format!("{cluster}/tls/ca.crt")).matches("BEGIN").count(), 2);
    }
    for cluster in ["ne", "we"] {
        mesh.ok(&format!("certs issue --cluster-name {cluster} --ca ca2 --dir {cluster}/tls --force"));
        mesh.ok(verify);
    }
    for cluster in ["ne", "we"] {
        mesh.ok(&format!("certs trust --dir {cluster}/tls --ca ca2 --only"));
        mesh.ok(verify);
    }
    mesh.ok("certs trust --dir we/tls --ca ca --only");
    let (code, out, _) = mesh.run(verify);
    assert_eq!(code, 1);
    assert!(out.contains("❌ ne remote: ne/tls/remote.crt: issued by \"CN=Cilium CA\", which we/tls/ca.crt"), "{out}");
}

#[test]
fn an_authority_is_imported() {
    let mesh = Mesh::empty();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../certs/tests/fixtures");
    for file in ["rsa-pkcs1.crt", "rsa-pkcs1.key"] {
        fs::copy(fixtures.join(file), mesh.path().join(file)).unwrap();
    }
    let shown = mesh.ok("certs import-ca --dir imported --cert rsa-pkcs1.crt --key rsa-pkcs1.key");
    assert!(shown.contains("RSA 2048") && shown.contains("for         signing"), "{shown}");
    mesh.ok("certs issue --cluster-name we --ca imported --dir we/tls");
    mesh.fails(
        "certs import-ca --dir imported --cert rsa-pkcs1.crt --key rsa-pkcs1.key",
        &expect![[r#"
        error: imported/ca.key exists: add --force to replace it
    "#]],
    );
    fs::write(mesh.path().join("secret.yaml"), "kind: Secret\ndata: {ca.crt: aGk=}\n").unwrap();
    mesh.fails(
        "certs import-ca --dir other --secret secret.yaml",
        &expect![[r#"
        error: secret.yaml is no Secret with an authority: data.tls.crt is missing
    "#]],
    );
}

#[test]
fn init_lays_out_a_cluster_once() {
    let mesh = Mesh::new();
    expect![[r#"
        name: "we"
        id: 2
        store: "https://10.0.0.2:2379"
        admin: "unix:run/apiserver.sock"
        nodes:
          "n1": "run/n1.sock"
    "#]]
    .assert_eq(&mesh.read("we/cluster.yaml"));
    expect![[r#"
        endpoints:
        - https://we.mesh.cilium.io:2379
        trusted-ca-file: MESH/we/tls/ca.crt
        key-file: MESH/we/tls/local.key
        cert-file: MESH/we/tls/local.crt
        cilium-host-aliases:
        - hostname: we.mesh.cilium.io
          ips:
          - 10.0.0.2
    "#]]
    .assert_eq(&mesh.read("we/store.yaml"));
    mesh.fails(
        "init we --name we --id 2 --ca ca --store https://a",
        &expect![[r#"
        error: we/cluster.yaml exists: a cluster is laid out once; edit the file, or remove it
    "#]],
    );
    mesh.fails(
        "init xx --name xx --id 256 --ca ca --store https://a",
        &expect![[r#"
        error: xx/cluster.yaml: 256 is no cluster id: it must be 1 to 255
    "#]],
    );
    mesh.fails(
        "certs init --dir we",
        &expect![[r#"
        error: we is a cluster's directory: keep the authority, with its key, outside of any cluster's
    "#]],
    );
    assert!(!mesh.path().join("xx").exists(), "a wrong wish makes nothing");
}

#[test]
fn clusters_are_connected_in_both_directions_and_again() {
    let mesh = Mesh::new();
    expect![[r#"
        ✅ ne reads we at https://we.mesh.cilium.io:2379 (ne/peers/we written)
        ✅ we reads ne at https://ne.mesh.cilium.io:2379 (we/peers/ne written)
        ✅ ne reads fc at https://fc.mesh.cilium.io:2379 (ne/peers/fc written)
        ✅ fc reads ne at https://ne.mesh.cilium.io:2379 (fc/peers/ne written)
    "#]]
    .assert_eq(&mesh.ok("connect --cluster ne --destination we --destination fc"));
    expect![[r#"
        endpoints:
        - https://we.mesh.cilium.io:2379
        trusted-ca-file: MESH/ne/tls/ca.crt
        key-file: MESH/ne/tls/remote.key
        cert-file: MESH/ne/tls/remote.crt
        cilium-host-aliases:
        - hostname: we.mesh.cilium.io
          ips:
          - 10.0.0.2
    "#]]
    .assert_eq(&mesh.read("ne/peers/we"));
    assert_eq!(fs::read_dir(mesh.path().join("ne/peers")).unwrap().count(), 2);
    assert!(mesh.read("fc/peers/ne").contains("https://ne.mesh.cilium.io:2379"));
    mesh.edit("we/cluster.yaml", "10.0.0.2", "10.0.0.22");
    expect![[r#"
        ✅ we reads ne at https://ne.mesh.cilium.io:2379 (we/peers/ne was so already)
        ✅ ne reads we at https://we.mesh.cilium.io:2379 (ne/peers/we changed)
    "#]]
    .assert_eq(&mesh.ok("connect --cluster we --destination ne"));
}

#[test]
fn a_store_with_a_host_name_is_dialled_by_it() {
    let mesh = Mesh::new();
    mesh.edit("we/cluster.yaml", "10.0.0.2:2379", "store.we.example:2379");
    mesh.fails("connect --cluster ne --destination we", &expect![[r#"
        error: ne and we cannot be connected, nothing was changed:
          - we: we/tls/server.crt: does not cover the name store.we.example; issue the server leaf again with --dns or --ip for that name
    "#]]);
    mesh.ok("certs issue --cluster-name we --ca ca --dir we/tls --force --dns store.we.example");
    mesh.ok("connect --cluster ne --destination we");
    assert!(mesh.read("ne/peers/we").contains("https://store.we.example:2379"));
}

#[test]
fn what_cannot_work_is_not_connected() {
    let mesh = Mesh::new();
    mesh.edit("we/cluster.yaml", "id: 2", "id: 1");
    mesh.edit("fc/cluster.yaml", "\"fc\"", "\"ne\"");
    mesh.fails(
        "connect --cluster ne --destination we",
        &expect![[r#"
        error: ne and we cannot be connected, nothing was changed:
          - both ne and we have id 1: ids must differ; set id in one cluster.yaml
    "#]],
    );
    let (code, _, err) = mesh.run("connect --cluster ne --destination fc");
    assert!(code == 1 && err.contains("both are named ne"), "{err}");
    mesh.edit("we/cluster.yaml", "id: 1", "id: 400\nmax_connected_clusters: 511");
    let (_, _, err) = mesh.run("connect --cluster ne --destination we");
    assert!(err.contains("ne is made for 255 clusters and we for 511"), "{err}");
    assert_eq!(fs::read_dir(mesh.path().join("ne/peers")).unwrap().count(), 0, "nothing was written");
}

#[test]
fn another_authority_is_noticed_before_anything_is_written() {
    let mesh = Mesh::new();
    mesh.ok("certs init --dir other --name Other");
    mesh.ok("certs issue --cluster-name we --ca other --dir we/tls --force");
    mesh.ok("certs trust --dir we/tls --ca other --only");
    let (code, _, err) = mesh.run("connect --cluster ne --destination we");
    assert_eq!(code, 1);
    for side in [
        "ne: ne/tls/server.crt: issued by \"CN=Cilium CA\", which we/tls/ca.crt does not trust",
        "we: we/tls/remote.crt: issued by \"CN=Other\", which ne/tls/ca.crt does not trust",
    ] {
        assert!(err.contains(side), "{err}");
    }
    mesh.ok("certs trust --dir we/tls --ca ca");
    mesh.ok("certs trust --dir ne/tls --ca other");
    mesh.ok("connect --cluster ne --destination we");
}

#[test]
fn renewed_leaves_keep_the_servers_names() {
    let mesh = Mesh::new();
    mesh.ok("certs issue --cluster-name ne --ca ca --dir ne/tls --ip 192.0.2.9 --force");
    mesh.ok("certs issue --cluster-name ne --ca ca --dir ne/tls --force");
    let shown = mesh.ok("certs show ne/tls/server.crt");
    assert!(shown.contains("192.0.2.9"), "{shown}");
    assert!(shown.contains("10.0.0.1"), "init put the store's own address there: {shown}");
}

#[test]
fn two_destinations_with_one_id_are_refused_before_anything_is_written() {
    let mesh = Mesh::new();
    mesh.ok("init xx --name xx --id 2 --ca ca --store https://10.0.0.9:2379");
    mesh.fails(
        "connect --cluster ne --destination we --destination xx",
        &expect![[r#"
        error: we and xx cannot be connected, nothing was changed:
          - both we and xx have id 2: ids must differ; set id in one cluster.yaml
    "#]],
    );
    assert!(!mesh.path().join("ne/peers/we").exists(), "nothing is written");
}

#[test]
fn disconnecting_needs_only_one_side() {
    let mesh = Mesh::new();
    mesh.ok("connect --cluster ne --destination we --destination fc");
    expect![[r#"
        ✅ ne no longer reads we (ne/peers/we removed)
        ✅ we no longer reads ne (we/peers/ne removed)
    "#]]
    .assert_eq(&mesh.ok("disconnect --cluster ne --destination we"));
    expect![[r#"
        ✅ ne did not read we (no ne/peers/we)
        ✅ we did not read ne (no we/peers/ne)
    "#]]
    .assert_eq(&mesh.ok("disconnect --cluster ne --destination we"));
    fs::remove_dir_all(mesh.path().join("fc")).unwrap();
    mesh.fails("disconnect --cluster ne --destination fc", &expect![[r#"
        error: the destination cannot be read; --peer NAME disconnects this side without it: cannot read fc/cluster.yaml: no such file; is it a cluster's directory? `tombolo init` makes one
    "#]]);
    expect![[r#"
        ✅ ne no longer reads fc (ne/peers/fc removed)
    "#]]
    .assert_eq(&mesh.ok("disconnect --cluster ne --peer fc"));
    let left = || {
        let mut names: Vec<_> =
            fs::read_dir(mesh.path().join("ne/peers")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(left(), [".disconnected-fc", ".disconnected-we"], "only tombstones");
    mesh.ok("connect --cluster ne --destination we");
    assert_eq!(left(), [".disconnected-fc", "we"], "connecting again takes the tombstone away");
}

#[test]
fn who_does_not_answer_is_reported() {
    let mesh = Mesh::new();
    mesh.ok("connect --cluster ne --destination we");
    mesh.fails(
        "status --cluster ne --wait=0s",
        &expect![[r#"
            🏝  ne (id 1)
               ❌ apiserver does not answer
               ❌ 1 of 1 node not connected to all clusters
                  NODE  DATAPATH   SYNCED  HEARTBEAT  FRONTENDS  BACKENDS  PLANS  UP
                  n1    no answer  -       -          -          -         -      -
               ❌ 2 problems:
                  apiserver does not answer: unix:ne/run/apiserver.sock: no such file
                  node n1: does not answer: unix:ne/run/n1.sock: no such file

            ❌ 1 of 1 cluster not connected
        "#]],
    );
    mesh.fails(
        "services --cluster ne",
        &expect![[r#"
            ne node n1: no answer: unix:ne/run/n1.sock: no such file
        "#]],
    );
    mesh.fails(
        "explain rebel-base --cluster ne --node n1",
        &expect![[r#"
            ne node n1: no answer: unix:ne/run/n1.sock: no such file
        "#]],
    );
    mesh.fails(
        "explain rebel-base --cluster ne --node n9",
        &expect![[r#"
        error: no node n9: cluster.yaml has n1
    "#]],
    );
    mesh.fails(
        "status --cluster nowhere",
        &expect![[r#"
            error: cannot read nowhere/cluster.yaml: no such file; is it a cluster's directory? `tombolo init` makes one
        "#]],
    );
    let (code, out, _) = mesh.run("status --cluster ne --cluster we -o json");
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["connected"], json["clusters"].as_array().unwrap().len()), (1, &false.into(), 2));
}

#[test]
fn a_peer_that_is_none_is_named_with_those_that_are() {
    let mesh = Mesh::new();
    mesh.ok("connect --cluster ne --destination we --destination fc");
    mesh.fails(
        "disconnect --cluster ne --peer ew",
        &expect![[r#"
        error: ne has no peer ew: it has fc, we, nothing was changed
    "#]],
    );
    mesh.ok("disconnect --cluster ne --peer we");
    mesh.ok("disconnect --cluster ne --peer we");
}
