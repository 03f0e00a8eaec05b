use std::fmt::Write as _;

use bytes::Bytes;
use expect_test::{Expect, expect};
use tombolo_core::id::{Epoch, Revision};
use tombolo_core::own::{OwnKey, OwnRecord};
use tombolo_store::SessionError;
use tombolo_wire::own;

use super::*;

mod members;
mod restart;
mod rows;

/// A mirror of cluster `we` (id 2), fed by hand; what it commands is written down, one line per command.
struct Scenario {
    mirror: Mirror,
    now: Millis,
    out: String,
}

fn name(text: &str) -> ClusterName {
    ClusterName::new(text).unwrap()
}

impl Scenario {
    /// The source is complete, and empty.
    fn new() -> Self {
        let mut scenario = Self::reading();
        scenario.mirror.source_complete();
        scenario
    }

    /// The source's first complete set is not known yet.
    fn reading() -> Self {
        Self::after(BTreeMap::new())
    }

    /// The same, in a life after one that left this.
    fn after(earlier: BTreeMap<ClusterName, EarlierPeer>) -> Self {
        let config = MirrorConfig {
            cluster: name("we"),
            id: ClusterId::new(2, MaxClusters::C255).unwrap(),
            max: MaxClusters::C255,
            own_cidrs: vec!["10.2.0.0/16".parse().unwrap()],
            deny: Vec::new(),
        };
        Self { mirror: Mirror::new(config, earlier, Millis(0)), now: Millis(0), out: String::new() }
    }

    fn at(&mut self, seconds: u64) -> &mut Self {
        self.now = Millis(seconds * 1000);
        writeln!(self.out, "-- {seconds} s").unwrap();
        let commands = self.mirror.tick(self.now);
        self.note(&commands)
    }

    /// As time passes, at the mirror's own deadlines; what is written is preceded by when.
    fn until(&mut self, seconds: u64) -> &mut Self {
        while let Some(due) = self.mirror.deadline(self.now).filter(|due| due.0 <= seconds * 1_000) {
            self.now = self.now.max(due);
            let commands = self.mirror.tick(self.now);
            if !commands.is_empty() {
                writeln!(self.out, "-- {} s", self.now.0 as f64 / 1_000.0).unwrap();
            }
            self.note(&commands);
        }
        self.now = Millis(seconds * 1_000);
        self
    }

    fn file(&mut self, change: FileChange) -> &mut Self {
        let commands = self.mirror.on_file(change, self.now);
        self.note(&commands).tick()
    }

    fn configure(&mut self, peer: &str) -> &mut Self {
        self.file(FileChange::Configured(name(peer), EtcdConfig::default()))
    }

    fn say(&mut self, peer: &str, events: Vec<SessionEvent>) -> &mut Self {
        for event in events {
            let generation = self.mirror.peers[&name(peer)].generation;
            let commands = self.mirror.on_session(&name(peer), generation, event, self.now);
            self.note(&commands);
        }
        self.tick()
    }

    fn import(&mut self, services: &[&str]) -> &mut Self {
        let keys: Vec<ServiceKey> = services.iter().map(|s| ServiceKey::parse(s).unwrap()).collect();
        let commands = self.mirror.set_imports(&keys, &[]);
        self.note(&commands)
    }

    fn source_complete(&mut self) -> &mut Self {
        let commands = self.mirror.source_complete();
        self.note(&commands)
    }

    fn unimport(&mut self, service: &str) -> &mut Self {
        let commands = self.mirror.set_imports(&[], &[ServiceKey::parse(service).unwrap()]);
        self.note(&commands)
    }

    fn tick(&mut self) -> &mut Self {
        let commands = self.mirror.tick(self.now);
        self.note(&commands)
    }

    fn note(&mut self, commands: &[Command]) -> &mut Self {
        for command in commands {
            match command {
                Command::Write(Write::Put(key, value)) => {
                    let value = own::decode(&own::parse_key(key).unwrap(), value).unwrap();
                    writeln!(self.out, "put {} {}", short(key), show(value)).unwrap();
                }
                Command::Write(Write::Delete(key)) => writeln!(self.out, "delete {}", short(key)).unwrap(),
                Command::Session { peer, generation, plan, .. } => {
                    let plan = match plan {
                        Plan::Probe => "probe".to_owned(),
                        Plan::Follow(reading) => format!("follow {:?}", reading.kinds().map(|k| reading.place(k).0)),
                    };
                    writeln!(self.out, "session {peer} {generation}: {plan}").unwrap();
                }
                other => writeln!(self.out, "{other:?}").unwrap(),
            }
        }
        self
    }

    #[expect(clippy::needless_pass_by_value, reason = "fixtures are written in place")]
    fn check(&mut self, expected: Expect) {
        expected.assert_eq(&self.out);
        self.out.clear();
    }
}

fn short(key: &str) -> &str {
    key.strip_prefix("tombolo/v1/").unwrap_or(key)
}

fn show(record: OwnRecord) -> String {
    match record {
        OwnRecord::Mesh(mesh) => {
            let mark = |doubtful| if doubtful { "?" } else { "" };
            let all = mesh.slice.endpoints.iter().map(|e| format!("{}{}", e.addr, mark(e.doubtful)));
            format!("id {} r{} [{}]", mesh.cluster_id, mesh.revision, all.collect::<Vec<_>>().join(" "))
        }
        OwnRecord::Peer(state) => {
            let c = &state.counts;
            let counts = format!("{}/{}/{}/{}", c.services, c.endpoints, c.nodes, c.refused);
            format!("{:?} silent {} counts {counts} {:?}", state.session, state.silent_ms, state.detail)
        }
        OwnRecord::Refused(report) => format!("{:?} {:?}", report.counts, report.examples.first().map(|e| &e.detail)),
        other => format!("{other:?}"),
    }
}

fn config(id: u32, slices: bool) -> SessionEvent {
    let mode = if slices { r#","endpointSlicesExportMode":"services-and-endpointslices""# } else { "" };
    let value = format!(r#"{{"id":{id},"capabilities":{{"syncedCanaries":true,"maxConnectedClusters":255{mode}}}}}"#);
    SessionEvent::Config { key: "cilium/cluster-config/x".into(), value: value.into() }
}

fn connected(epoch: u64) -> SessionEvent {
    SessionEvent::Connected { epoch: Epoch(epoch) }
}

fn record(peer: &str, id: u32, service: &str, backends: &[&str]) -> (String, Bytes) {
    let (ns, svc) = service.split_once('/').unwrap();
    let backends: Vec<String> =
        backends.iter().map(|ip| format!(r#""{ip}":{{"http":{{"Protocol":"TCP","Port":8080}}}}"#)).collect();
    let value = format!(
        r#"{{"cluster":"{peer}","namespace":"{ns}","name":"{svc}","frontends":{{}},"backends":{{{}}},"labels":{{}},"selector":{{}},"includeExternal":true,"shared":true,"clusterID":{id}}}"#,
        backends.join(",")
    );
    (format!("cilium/state/services/v1/{peer}/{service}"), value.into())
}

fn put(revision: i64, upserts: Vec<(String, Bytes)>) -> SessionEvent {
    SessionEvent::Delta {
        watch: 0,
        epoch: Epoch(1),
        revision: Revision(revision),
        upserts,
        deletes: Vec::new(),
        expired: Vec::new(),
    }
}

fn delete(revision: i64, peer: &str, service: &str) -> SessionEvent {
    let deletes = vec![format!("cilium/state/services/v1/{peer}/{service}")];
    SessionEvent::Delta {
        watch: 0,
        epoch: Epoch(1),
        revision: Revision(revision),
        upserts: Vec::new(),
        deletes,
        expired: Vec::new(),
    }
}

fn expire(revision: i64, peer: &str, services: &[&str]) -> SessionEvent {
    let expired = services.iter().map(|service| format!("cilium/state/services/v1/{peer}/{service}")).collect();
    let (upserts, deletes) = (Vec::new(), Vec::new());
    SessionEvent::Delta { watch: 0, epoch: Epoch(1), revision: Revision(revision), upserts, deletes, expired }
}

/// A list of watch 0 with its canary.
fn listed(revision: i64, upserts: Vec<(String, Bytes)>) -> Vec<SessionEvent> {
    let epoch = Epoch(1);
    vec![
        SessionEvent::CanarySeen { watch: 0 },
        SessionEvent::Relisting { watch: 0, epoch },
        put(revision, upserts),
        SessionEvent::Listed { watch: 0, epoch, revision: Revision(revision) },
    ]
}

/// A peer `ne` with services a and b, of which a is imported, connected and alive.
fn connected_peer() -> Scenario {
    let mut s = Scenario::new();
    s.import(&["x/a"]).configure("ne").say("ne", vec![connected(1), config(1, false)]);
    s.say("ne", vec![connected(1), config(1, false)]);
    let records = vec![record("ne", 1, "x/a", &["10.1.0.1", "10.1.0.2"]), record("ne", 1, "x/b", &["10.1.0.3"])];
    s.say("ne", listed(7, records)).say("ne", vec![SessionEvent::Heartbeat]);
    s
}

#[test]
fn only_what_a_local_global_service_can_use_is_published() {
    let mut s = connected_peer();
    s.check(expect![[r#"
        session ne 1: probe
        put agents/peers/ne Connecting silent 0 counts 0/0/0/0 "connecting"
        put control/refused/ne [] None
        session ne 2: follow ["cilium/state/services/v1/ne/", "cilium/state/nodes/v1/ne/", "cilium/state/identities/v1/id/", "cilium/state/ip/v1/default/"]
        put agents/peers/ne Connecting silent 0 counts 0/0/0/0 "connecting"
        put agents/peers/ne Connecting silent 0 counts 0/0/0/0 "waiting for a complete set"
        put agents/mesh/x/a/ne/_legacy id 1 r7 [10.1.0.1 10.1.0.2]
        Synced(ClusterName("ne"))
        put agents/peers/ne Ready silent 0 counts 2/3/0/0 ""
    "#]]);
    s.import(&["x/b", "x/c"]).unimport("x/a");
    s.check(expect![[r#"
        put agents/mesh/x/b/ne/_legacy id 1 r7 [10.1.0.3]
        delete agents/mesh/x/a/ne/_legacy
    "#]]);
    s.say("ne", vec![put(8, vec![record("ne", 1, "x/b", &["10.1.0.3", "10.1.0.4"])]), delete(9, "ne", "x/b")]);
    s.check(expect![[r#"
        put agents/mesh/x/b/ne/_legacy id 1 r8 [10.1.0.3 10.1.0.4]
        delete agents/mesh/x/b/ne/_legacy
    "#]]);
}

#[test]
fn no_set_is_complete_before_the_source_says_what_is_imported() {
    let mut s = Scenario::reading();
    s.configure("ne").say("ne", vec![connected(1), config(1, false)]).say("ne", vec![connected(1)]);
    s.import(&["x/b"]).say("ne", listed(7, vec![record("ne", 1, "x/a", &["10.1.0.1"])])).out.clear();
    s.import(&["x/a"]).unimport("x/b");
    s.check(expect![""]);
    s.source_complete();
    s.check(expect![[r#"
        put agents/mesh/x/a/ne/_legacy id 1 r7 [10.1.0.1]
        Synced(ClusterName("ne"))
    "#]]);
}

#[test]
fn refusals_are_kept_and_the_rest_goes_on() {
    let mut s = connected_peer();
    s.out.clear();
    s.at(10);
    let bad = vec![
        record("ne", 1, "x/a", &["10.1.0.1", "169.254.169.254", "10.2.3.4"]),
        record("fc", 3, "x/b", &["10.1.0.9"]),
        ("cilium/state/services/v1/ne/x/b".to_owned(), record("fc", 1, "x/b", &[]).1),
    ];
    s.say("ne", vec![put(8, bad)]);
    s.check(expect![[r#"
        -- 10 s
        put agents/mesh/x/a/ne/_legacy id 1 r8 [10.1.0.1]
        put agents/peers/ne Ready silent 0 counts 1/1/0/4 ""
        put control/refused/ne [("cluster-name", 1), ("key-mismatch", 1), ("own-range", 1), ("special-address", 1)] Some("the key is not one of ne's services/v1")
    "#]]);
}

#[test]
fn a_store_that_comes_back_empty_takes_nothing_away() {
    let mut s = connected_peer();
    s.out.clear();
    let epoch = Epoch(2);
    let empty = vec![
        SessionEvent::Lost { reason: SessionError::WatchClosed },
        connected(2),
        SessionEvent::CanaryGone { watch: 0 },
        SessionEvent::Relisting { watch: 0, epoch },
        SessionEvent::Listed { watch: 0, epoch, revision: Revision(1) },
    ];
    s.say("ne", empty);
    s.check(expect![[r#"
        put agents/mesh/x/a/ne/_legacy id 1 r7 [10.1.0.1? 10.1.0.2?]
        put agents/peers/ne Connecting silent 0 counts 2/3/0/0 "waiting for a complete set"
    "#]]);
    s.say("ne", vec![SessionEvent::Heartbeat, put(2, vec![record("ne", 1, "x/a", &["10.1.0.1"])])]);
    s.say("ne", vec![SessionEvent::CanarySeen { watch: 0 }]);
    s.check(expect![[r#"
        put agents/mesh/x/a/ne/_legacy id 1 r2 [10.1.0.1]
        put agents/peers/ne Ready silent 0 counts 1/1/0/0 ""
    "#]]);
}

#[test]
fn at_start_the_first_file_name_gets_a_contested_id_later_the_first_to_connect() {
    let mut s = Scenario::new();
    s.configure("fc").configure("ne").configure("zz").out.clear();
    s.say("ne", vec![connected(1), config(7, true)]).say("zz", vec![connected(1), config(2, true)]);
    s.check(expect![[r#"
        session ne 2: follow ["cilium/state/endpointslices/v1/ne/", "cilium/state/nodes/v1/ne/", "cilium/state/identities/v1/id/", "cilium/state/ip/v1/default/"]
        put agents/peers/ne Connecting silent 0 counts 0/0/0/0 "connecting"
        Synced(ClusterName("zz"))
        put agents/peers/zz Refused silent 0 counts 0/0/0/0 "zz has cluster id 2, which is we's: every cluster of a mesh needs its own"
    "#]]);
    s.say("fc", vec![connected(1), config(7, true)]);
    s.check(expect![[r#"
        Synced(ClusterName("ne"))
        session ne 3: probe
        session fc 2: follow ["cilium/state/endpointslices/v1/fc/", "cilium/state/nodes/v1/fc/", "cilium/state/identities/v1/id/", "cilium/state/ip/v1/default/"]
        put agents/peers/fc Connecting silent 0 counts 0/0/0/0 "connecting"
        put agents/peers/ne Refused silent 0 counts 0/0/0/0 "ne has cluster id 7, which is fc's: every cluster of a mesh needs its own"
    "#]]);
    s.at(60).configure("aa").say("aa", vec![connected(1), config(7, true)]);
    s.check(expect![[r#"
        -- 60 s
        session aa 1: probe
        put agents/peers/aa Connecting silent 0 counts 0/0/0/0 "connecting"
        put control/refused/aa [] None
        Synced(ClusterName("aa"))
        put agents/peers/aa Refused silent 0 counts 0/0/0/0 "aa has cluster id 7, which is fc's: every cluster of a mesh needs its own"
    "#]]);
    s.file(FileChange::Left(name("fc")));
    s.check(expect![[r#"
        EndSession(ClusterName("fc"))
        delete agents/peers/fc
        delete control/refused/fc
        Gone(ClusterName("fc"))
        session aa 2: follow ["cilium/state/endpointslices/v1/aa/", "cilium/state/nodes/v1/aa/", "cilium/state/identities/v1/id/", "cilium/state/ip/v1/default/"]
        put agents/peers/aa Connecting silent 0 counts 0/0/0/0 "connecting"
    "#]]);
}

#[test]
fn a_lost_file_doubts_and_a_disconnect_removes() {
    let mut s = connected_peer();
    s.out.clear();
    s.file(FileChange::Suspended(name("ne"), "its file is gone".into())).file(FileChange::Restored(name("ne")));
    s.file(FileChange::Left(name("ne")));
    s.check(expect![[r#"
        put agents/mesh/x/a/ne/_legacy id 1 r7 [10.1.0.1? 10.1.0.2?]
        put agents/peers/ne Ready silent 0 counts 2/3/0/0 "its configuration: its file is gone"
        put agents/mesh/x/a/ne/_legacy id 1 r7 [10.1.0.1 10.1.0.2]
        put agents/peers/ne Ready silent 0 counts 2/3/0/0 ""
        EndSession(ClusterName("ne"))
        delete agents/mesh/x/a/ne/_legacy
        delete agents/peers/ne
        delete control/refused/ne
        Gone(ClusterName("ne"))
    "#]]);
}

#[test]
fn another_id_is_another_cluster_and_another_form_is_the_same() {
    let mut s = connected_peer();
    s.out.clear();
    s.say("ne", vec![config(1, true)]);
    s.check(expect![[r#"
        session ne 3: follow ["cilium/state/endpointslices/v1/ne/", "cilium/state/nodes/v1/ne/", "cilium/state/identities/v1/id/", "cilium/state/ip/v1/default/"]
        put agents/peers/ne Lost silent 0 counts 2/3/0/0 "connecting again"
    "#]]);
    let slices = record("ne", 1, "x/a", &[]).0.replace("services", "endpointslices");
    let gone = SessionEvent::Delta {
        watch: 0,
        epoch: Epoch(1),
        revision: Revision(9),
        upserts: Vec::new(),
        deletes: vec![slices],
        expired: Vec::new(),
    };
    s.say("ne", vec![connected(1), config(1, true), gone]);
    s.check(expect![[r#"
        put agents/peers/ne Connecting silent 0 counts 2/3/0/0 "waiting for a complete set"
    "#]]);
    s.say("ne", listed(9, Vec::new()));
    s.check(expect![[r#"
        delete agents/mesh/x/a/ne/_legacy
        put agents/peers/ne Ready silent 0 counts 0/0/0/0 ""
    "#]]);
    s.say("ne", vec![config(9, false)]);
    s.check(expect![[r#"
        session ne 4: follow ["cilium/state/services/v1/ne/", "cilium/state/nodes/v1/ne/", "cilium/state/identities/v1/id/", "cilium/state/ip/v1/default/"]
        put agents/peers/ne Connecting silent 0 counts 0/0/0/0 "connecting"
    "#]]);
}

#[test]
fn own_keys_of_the_mirror_are_its_own() {
    let key = OwnKey::Mesh { service: ServiceKey::new("x", "a"), cluster: name("ne"), slice: "_legacy".into() };
    assert_eq!(own::key_to_string(&key), "tombolo/v1/agents/mesh/x/a/ne/_legacy");
}
