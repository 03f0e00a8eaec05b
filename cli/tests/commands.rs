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
    mesh.fails("certs init --dir ca", &expect![[""]]);
    mesh.ok("certs issue --cluster-name we --ca ca --dir we/tls --dns store.we --ip 192.0.2.1 --auth-mode cluster");
    mesh.fails("certs issue --cluster-name we --ca ca --dir we/tls", &expect![[""]]);
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
    mesh.fails("certs issue --cluster-name we --ca ca --dir we/tls --dns a_b..c", &expect![[""]]);
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
    expect![[""]].assert_eq(&brief);
    mesh.fails("certs show we", &expect![[""]]);
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
    mesh.fails("certs import-ca --dir imported --cert rsa-pkcs1.crt --key rsa-pkcs1.key", &expect![[""]]);
    fs::write(mesh.path().join("secret.yaml"), "kind: Secret\ndata: {ca.crt: aGk=}\n").unwrap();
    mesh.fails("certs import-ca --dir other --secret secret.yaml", &expect![[""]]);
}

#[test]
fn init_lays_out_a_cluster_once() {
    let mesh = Mesh::new();
    expect![[""]].assert_eq(&mesh.read("we/cluster.yaml"));
    expect![[""]].assert_eq(&mesh.read("we/store.yaml"));
    mesh.fails("init we --name we --id 2 --ca ca --store https://a", &expect![[""]]);
    mesh.fails("init xx --name xx --id 256 --ca ca --store https://a", &expect![[""]]);
    mesh.fails("certs init --dir we", &expect![[""]]);
    assert!(!mesh.path().join("xx").exists(), "a wrong wish makes nothing");
}

#[test]
fn clusters_are_connected_in_both_directions_and_again() {
    let mesh = Mesh::new();
    expect![[""]].assert_eq(&mesh.ok("connect --cluster ne --destination we --destination fc"));
    expect![[""]].assert_eq(&mesh.read("ne/peers/we"));
    assert_eq!(fs::read_dir(mesh.path().join("ne/peers")).unwrap().count(), 2);
    assert!(mesh.read("fc/peers/ne").contains("https://ne.mesh.cilium.io:2379"));
    mesh.edit("we/cluster.yaml", "10.0.0.2", "10.0.0.22");
    expect![[""]].assert_eq(&mesh.ok("connect --cluster we --destination ne"));
}

#[test]
fn a_store_with_a_host_name_is_dialled_by_it() {
    let mesh = Mesh::new();
    mesh.edit("we/cluster.yaml", "10.0.0.2:2379", "store.we.example:2379");
    mesh.fails("connect --cluster ne --destination we", &expect![[""]]);
    mesh.ok("certs issue --cluster-name we --ca ca --dir we/tls --force --dns store.we.example");
    mesh.ok("connect --cluster ne --destination we");
    assert!(mesh.read("ne/peers/we").contains("https://store.we.example:2379"));
}

#[test]
fn what_cannot_work_is_not_connected() {
    let mesh = Mesh::new();
    mesh.edit("we/cluster.yaml", "id: 2", "id: 1");
    mesh.edit("fc/cluster.yaml", "\"fc\"", "\"ne\"");
    mesh.fails("connect --cluster ne --destination we", &expect![[""]]);
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
fn disconnecting_needs_only_one_side() {
    let mesh = Mesh::new();
    mesh.ok("connect --cluster ne --destination we --destination fc");
    expect![[""]].assert_eq(&mesh.ok("disconnect --cluster ne --destination we"));
    expect![[""]].assert_eq(&mesh.ok("disconnect --cluster ne --destination we"));
    fs::remove_dir_all(mesh.path().join("fc")).unwrap();
    mesh.fails("disconnect --cluster ne --destination fc", &expect![[""]]);
    expect![[""]].assert_eq(&mesh.ok("disconnect --cluster ne --peer fc"));
    assert_eq!(fs::read_dir(mesh.path().join("ne/peers")).unwrap().count(), 0);
}

#[test]
fn who_does_not_answer_is_reported() {
    let mesh = Mesh::new();
    mesh.ok("connect --cluster ne --destination we");
    mesh.fails("status --cluster ne --wait=0s", &expect![[""]]);
    mesh.fails("services --cluster ne", &expect![[""]]);
    mesh.fails("explain rebel-base --cluster ne --node n1", &expect![[""]]);
    mesh.fails("explain rebel-base --cluster ne --node n9", &expect![[""]]);
    mesh.fails("status --cluster nowhere", &expect![[""]]);
    let (code, out, _) = mesh.run("status --cluster ne --cluster we -o json");
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["connected"], json["clusters"].as_array().unwrap().len()), (1, &false.into(), 2));
}
