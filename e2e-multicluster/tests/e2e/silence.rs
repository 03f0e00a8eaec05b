//! Silence: a peer that cannot be heard, one whose records end with their leases, and one that loses most of what it had.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tombolo_core::id::Family;
use tombolo_e2e::answers::Tally;
use tombolo_e2e::clock::{Seen, let_pass, wait_until};
use tombolo_e2e::cluster::{Cluster, GLOBAL, SERVICE};
use tombolo_e2e::load::{self, Dial, Load};
use tombolo_e2e::manifest::{Endpoint, Readiness, Service};
use tombolo_e2e::mesh::Mesh;
use tombolo_e2e::observe::{self, Table};
use tombolo_e2e::operator;
use tombolo_e2e::story;
use tombolo_e2e::topology::{self, Link};

use crate::harness::{Body, Case, demo_plan};
use crate::intruder::Intruder;

pub(crate) const CASES: &[Case] = &[
    Case { name: "silence: a peer cut off, for each value of on-stale", body: Body::Shared(cut_off) },
    Case { name: "silence: leases end while their apiserver is dead", body: Body::Shared(leases_end) },
    Case { name: "silence: a peer that is swept empty is kept for a minute", body: Body::Alone(swept) },
];

const SOON: Duration = Duration::from_secs(30);
const LATER: Duration = Duration::from_secs(60);
const ON_STALE: &str = "tombolo.io/on-stale";

/// The values of on-stale, each a Service of its own, with its number.
const VALUES: [(&str, u16); 3] = [("keep", 21), ("last-resort", 22), ("drop", 23)];
/// More than two and a half of an apiserver's beats.
const STALE_AFTER: (&str, &str) = ("tombolo.io/stale-after", "15s");

/// A global Service by IPv4 with one port, beside `rebel-base`.
fn service(cluster: &Cluster, name: &str, number: u16, annotations: &[(&str, &str)]) -> Service {
    let own = [(GLOBAL, "true")].iter().chain(annotations);
    Service {
        name: name.to_owned(),
        addresses: vec![cluster.site.service(number).v4.into()],
        ports: cluster.service.ports[..1].to_vec(),
        annotations: own.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..cluster.service.clone()
    }
}

/// Writes a Service with these endpoints as one file.
fn plant(cluster: &Cluster, service: &Service, endpoints: &[Endpoint]) -> Result<()> {
    let slice = service.slice(&format!("{}-v4", service.name), Family::V4, endpoints);
    cluster.write_source(&format!("{}.yaml", service.name), &format!("{}---\n{slice}", service.manifest()))
}

fn table_of<'a>(service: &Service, endpoints: impl IntoIterator<Item = &'a Endpoint>) -> Table {
    endpoints.into_iter().map(|e| (e.target(&service.ports[0]), 1)).collect()
}

/// The pods of `rebel-base` that are endpoints, by IPv4.
fn pods(cluster: &Cluster) -> Vec<Endpoint> {
    cluster.endpoints().iter().filter(|e| e.address.is_ipv4()).cloned().collect()
}

/// Load from the first node of each of these clusters on a Service's number.
fn begin(mesh: &mut Mesh, case: &str, clusters: &[(&str, u16)]) -> Result<Vec<Load>> {
    let logs = mesh.run().logs();
    let one = |(name, number): &(&str, u16)| {
        let site = &mesh.cluster(name).site;
        let dial = Dial::http((site.service(*number).v4, 80).into(), 100);
        load::begin(&format!("x-wing-{case}-{name}"), &site.nodes[0].place, &dial, &logs)
    };
    clusters.iter().map(one).collect()
}

fn end(loads: Vec<Load>) -> Result<()> {
    for load in loads {
        let tally = Tally::of(&load.end()?);
        ensure!(tally.failed == 0 && tally.requests > 0, "traffic noticed: {tally:?}");
    }
    Ok(())
}

/// Only what the control planes say to each other is cut: traffic still flows, and no request may fail.
fn cut_off(mesh: &mut Mesh) -> Result<()> {
    let (ours, theirs) = (pods(mesh.cluster("ne")), pods(mesh.cluster("we")));
    for (value, number) in VALUES {
        let we = mesh.cluster("we");
        plant(we, &service(we, value, number, &[]), &theirs)?;
        let ne = mesh.cluster("ne");
        plant(ne, &service(ne, value, number, &[(ON_STALE, value), STALE_AFTER]), &ours)?;
    }
    let expect = |mesh: &mut Mesh, value: &str, endpoints: &[&[Endpoint]], within| {
        let ne = mesh.cluster("ne");
        let expected = table_of(&service(ne, value, 0, &[]), endpoints.iter().copied().flatten());
        observe::wait_table(ne, &format!("default/{value}"), &expected, within)
    };
    for (value, _) in VALUES {
        expect(mesh, value, &[&ours, &theirs], SOON)?;
    }
    wait_until("ne to know how often we beats", SOON, || {
        let status = observe::apiserver_status(mesh.cluster("ne"))?;
        let peer = status.peers.into_iter().find(|p| p.name.as_str() == "we").context("ne knows we")?;
        let least = peer.state.least_stale_ms;
        Ok(if least <= 15_000 { Seen::Ready(()) } else { Seen::NotYet(format!("at least {least} ms of silence")) })
    })?;
    let loads = begin(mesh, "cut-off", &[("ne", VALUES[0].1)])?;
    let cut = mesh.cluster("we").site.control.clone();
    topology::set_link(&cut, Link::Down)?;
    let begun = Instant::now();
    expect(mesh, "drop", &[&ours], LATER)?;
    story::say(&format!("     stale after {:.1} s", begun.elapsed().as_secs_f64()));
    ensure!(begun.elapsed() > Duration::from_secs(10), "too early: its last heartbeat was at most a beat ago");
    expect(mesh, "last-resort", &[&ours], SOON)?;
    expect(mesh, "keep", &[&ours, &theirs], SOON)?;

    // With nothing left here, a last resort is one; what was dropped is not.
    for (value, number) in VALUES {
        let ne = mesh.cluster("ne");
        plant(ne, &service(ne, value, number, &[(ON_STALE, value), STALE_AFTER]), &[])?;
    }
    expect(mesh, "keep", &[&theirs], SOON)?;
    expect(mesh, "last-resort", &[&theirs], SOON)?;
    expect(mesh, "drop", &[], SOON)?;

    topology::set_link(&cut, Link::Up)?;
    for (value, _) in VALUES {
        expect(mesh, value, &[&theirs], LATER)?;
    }
    end(loads)?;
    for name in ["ne", "we"] {
        VALUES.iter().try_for_each(|(value, _)| mesh.cluster(name).remove_source(&format!("{value}.yaml")))?;
    }
    Ok(())
}

/// An apiserver's death outlasts its leases: its store forgets everything. Peers make its backends a last resort, or keep
/// them where asked to; its own agents keep what they have.
fn leases_end(mesh: &mut Mesh) -> Result<()> {
    short_leases(mesh, &["--lease-ttl=5s"])?;
    mesh.cluster("fc").annotate(&[(ON_STALE, "keep")])?;
    observe::wait_ready(mesh.cluster("fc"), SOON)?;
    let all = mesh.all_backends();
    let theirs: Vec<String> = mesh.cluster("we").targets().collect();
    let without: Table =
        all.iter().filter(|(target, _)| !theirs.contains(target)).map(|(t, n)| (t.clone(), *n)).collect();
    let loads = begin(mesh, "leases", &[("ne", 10), ("we", 10), ("fc", 10)])?;

    mesh.cluster("we").kill_apiserver()?;
    wait_until("every record of we to end with its lease", LATER, || {
        let left = Intruder::admin(mesh.cluster("we")).read("cilium/")??;
        Ok(if left.is_empty() { Seen::Ready(()) } else { Seen::NotYet(format!("{} keys", left.len())) })
    })?;
    observe::wait_table(mesh.cluster("ne"), SERVICE, &without, SOON)?;
    // Long enough for a deletion to have come through that should not.
    let_pass(Duration::from_secs(3))?;
    for keeper in ["we", "fc"] {
        let cluster = mesh.cluster(keeper);
        for node in 0..cluster.site.nodes.len() {
            let table = observe::table(cluster, node, SERVICE)?.context("the service left the maps")?;
            let why = || {
                operator::tombolo(&[
                    "explain".as_ref(),
                    SERVICE.as_ref(),
                    "--cluster".as_ref(),
                    cluster.dir.as_os_str(),
                ])
            };
            ensure!(table == all, "{keeper} let go of some:\n{}", why()?);
        }
    }
    mesh.cluster("we").start_apiserver()?;
    mesh.wait_all_backends(LATER)?;
    end(loads)?;
    mesh.cluster("fc").annotate(&[(ON_STALE, "")])?;
    short_leases(mesh, &[])
}

/// Gives `we`'s apiserver these flags, and a store in which all is written anew, under leases of this length.
fn short_leases(mesh: &mut Mesh, flags: &[&str]) -> Result<()> {
    let we = mesh.cluster("we");
    we.set_apiserver_flags(flags.iter().copied());
    we.kill_apiserver()?;
    we.etcd.restart_empty()?;
    we.start_apiserver()?;
    mesh.wait_ready()?;
    mesh.wait_all_backends(LATER)
}

/// Endpoints nobody listens on.
fn ghosts(cluster: &Cluster, numbers: std::ops::Range<u8>) -> Vec<Endpoint> {
    let node = &cluster.site.nodes[0];
    let one = |n| Endpoint { address: node.pod(n).v4.into(), node: node.name.clone(), readiness: Readiness::Ready };
    numbers.map(one).collect()
}

/// How long the guard holds what was swept away.
const HELD: Duration = Duration::from_secs(60);

/// On a mesh of its own: what other cases took away in the last half minute would count.
fn swept() -> Result<()> {
    let mesh = &mut Mesh::up(&demo_plan())?;
    let we = mesh.cluster("we");
    let (large, small) = (service(we, "large", 24, &[]), service(we, "small", 25, &[]));
    let (many, few) = (ghosts(we, 100..140), ghosts(we, 140..152));
    plant(we, &large, &many)?;
    plant(we, &small, &few)?;
    let ne = mesh.cluster("ne");
    plant(ne, &service(ne, "large", 24, &[]), &[])?;
    plant(ne, &service(ne, "small", 25, &[]), &[])?;
    let full = [("default/large", table_of(&large, &many)), ("default/small", table_of(&small, &few))];
    let wait_full = |mesh: &mut Mesh| {
        full.iter().try_for_each(|(name, table)| observe::wait_table(mesh.cluster("ne"), name, table, SOON))
    };
    wait_full(mesh)?;

    // One Service scaled to zero is never held, even when it has most of the peer's backends.
    plant(mesh.cluster("we"), &large, &[])?;
    observe::wait_table(mesh.cluster("ne"), "default/large", &Table::new(), Duration::from_secs(10))?;
    plant(mesh.cluster("we"), &large, &many)?;
    wait_full(mesh)?;

    plant(mesh.cluster("we"), &large, &[])?;
    plant(mesh.cluster("we"), &small, &[])?;
    let begun = Instant::now();
    wait_until("status to tell of the guard", SOON, || {
        let status = observe::apiserver_status(mesh.cluster("ne"))?;
        let peer = status.peers.into_iter().find(|p| p.name.as_str() == "we").context("ne knows we")?;
        Ok(if peer.state.detail.is_empty() { Seen::NotYet("no detail".into()) } else { Seen::Ready(peer.state.detail) })
    })
    .map(|detail| story::say(&format!("     ne of we: {detail}")))?;
    wait_full(mesh)?;
    let mut first_empty = None;
    wait_until("what was swept to leave", HELD + SOON, || {
        let ne = mesh.cluster("ne");
        let (mut left, at) = (0, begun.elapsed());
        for (name, table) in &full {
            let now = observe::table(ne, 0, name)?.context("the service left the maps")?;
            ensure!(now == *table || now.is_empty(), "{name}: {} of {}", now.len(), table.len());
            left += now.len();
        }
        first_empty = first_empty.or((left == 0).then_some(at));
        Ok(if left == 0 { Seen::Ready(()) } else { Seen::NotYet(format!("{left} left")) })
    })?;
    let held = first_empty.context("it ended empty")?;
    story::say(&format!("     held for {:.1} s", held.as_secs_f64()));
    ensure!(held > HELD - Duration::from_secs(5), "held for {held:?} only");
    for name in ["ne", "we"] {
        ["large.yaml", "small.yaml"].iter().try_for_each(|file| mesh.cluster(name).remove_source(file))?;
    }
    Ok(())
}
