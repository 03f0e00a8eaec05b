//! Faults: stores that die and forget, compaction, and input that cannot be read. Traffic never notices.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tombolo_e2e::answers::Tally;
use tombolo_e2e::clock::{Seen, let_pass, wait_until};
use tombolo_e2e::cluster::SERVICE;
use tombolo_e2e::load::{self, Dial};
use tombolo_e2e::mesh::Mesh;
use tombolo_e2e::observe::{self, AgentWindow, Table};
use tombolo_e2e::topology::{self, Link};

use crate::harness::{Body, Case};
use crate::intruder::Intruder;

pub(crate) const CASES: &[Case] = &[
    Case { name: "faults: a broken YAML file costs only its own change", body: Body::Shared(broken_yaml) },
    Case {
        name: "faults: an etcd restarted empty blanks nothing, and later deletes count",
        body: Body::Shared(empty_etcd),
    },
    Case {
        name: "faults: a reader catches up over a compaction with deletes in the gap",
        body: Body::Shared(compaction),
    },
    Case { name: "faults: killed programs come back and traffic never notices", body: Body::Shared(killed) },
];

const SOON: Duration = Duration::from_secs(30);

fn broken_yaml(mesh: &mut Mesh) -> Result<()> {
    let ne = mesh.cluster("ne");
    let good = ne.service.manifest();
    let broken = good.replace("ports:", "ports: [").replace("true", "false");
    ne.write_source("rebel-base.yaml", &broken)?;
    let fault = wait_until("the fault in status", SOON, || {
        let faults = observe::apiserver_status(ne)?.faults;
        Ok(faults.into_iter().next().map_or_else(|| Seen::NotYet("no fault".into()), Seen::Ready))
    })?;
    ensure!(fault.place.contains("rebel-base.yaml"), "{fault:?}");

    // Another file's change is carried out, and the broken one's last good version is still there.
    ne.scale(1)?;
    mesh.wait_all_backends(SOON)?;

    let ne = mesh.cluster("ne");
    ne.annotate(&[("service.cilium.io/affinity", "local")])?;
    let local: Table = ne.targets().map(|target| (target, 1)).collect();
    observe::wait_table(ne, SERVICE, &local, SOON)?;
    wait_until("the fault to be mended", SOON, || {
        let faults = observe::apiserver_status(ne)?.faults;
        Ok(if faults.is_empty() { Seen::Ready(()) } else { Seen::NotYet(format!("{faults:?}")) })
    })
}

/// Does something while clients ask from every cluster and every agent's table is watched; gives the tables that were
/// seen. No request may fail.
fn under_watch(mesh: &mut Mesh, work: impl FnOnce(&mut Mesh) -> Result<()>) -> Result<BTreeSet<Table>> {
    let logs = mesh.run().logs();
    let mut loads = Vec::new();
    let mut windows = Vec::new();
    for cluster in &mesh.clusters {
        let name = format!("x-wing-watch-{}", cluster.site.name);
        loads.push(load::begin(&name, &cluster.site.nodes[0].place, &Dial::http(cluster.frontend(), 100), &logs)?);
        for node in 0..cluster.site.nodes.len() {
            windows.push(AgentWindow::open(cluster, node)?);
        }
    }
    let done = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let watch =
            std::thread::Builder::new().name("watch".into()).spawn_scoped(scope, || look(&mut windows, &done))?;
        let worked = work(mesh);
        done.store(true, Ordering::Relaxed);
        let seen = watch.join().map_err(|_| anyhow::anyhow!("the watch panicked"))?;
        worked.and(seen)
    })?;
    for load in loads {
        let tally = Tally::of(&load.end()?);
        ensure!(tally.failed == 0, "traffic noticed: {tally:?}");
        ensure!(tally.requests > 0, "there was no traffic");
    }
    Ok(seen)
}

fn look(windows: &mut [AgentWindow], done: &AtomicBool) -> Result<BTreeSet<Table>> {
    let mut seen = BTreeSet::new();
    while !done.load(Ordering::Relaxed) {
        for window in &mut *windows {
            seen.insert(window.table(SERVICE)?.context("the service left the maps")?);
        }
        let_pass(Duration::from_millis(5))?;
    }
    Ok(seen)
}

fn empty_etcd(mesh: &mut Mesh) -> Result<()> {
    let all = mesh.all_backends();
    let seen = under_watch(mesh, |mesh| {
        let ne = mesh.cluster("ne");
        let before = ne.etcd.revisions()?.current;
        ne.etcd.restart_empty()?;
        wait_until("the new store to be written", SOON, || {
            let written = Intruder::admin(ne).read("tombolo/v1/agents/mesh/");
            let written = written.is_ok_and(|verdict| verdict.is_ok_and(|found| !found.is_empty()));
            Ok(if written { Seen::Ready(()) } else { Seen::NotYet("nothing of a peer is there".into()) })
        })?;
        ensure!(ne.etcd.revisions()?.current < before, "the store is not a new one");
        mesh.wait_ready()?;
        // A heartbeat or two in the new life, so that what would go goes now.
        let_pass(Duration::from_secs(6))?;
        mesh.wait_all_backends(SOON)
    })?;
    ensure!(seen == BTreeSet::from([all.clone()]), "tables changed: {seen:?}");

    // What is really deleted in the new life leaves, here and at the peers.
    mesh.cluster("ne").delete_endpoints()?;
    mesh.wait_all_backends(SOON)?;
    ensure!(mesh.all_backends().len() * 3 == all.len() * 2);
    Ok(())
}

fn compaction(mesh: &mut Mesh) -> Result<()> {
    let compacting = ["--auto-compaction-mode=periodic", "--auto-compaction-retention=1s"];
    mesh.cluster("ne").etcd.restart_with(&compacting)?;
    mesh.wait_ready()?;

    let cut_off = mesh.cluster("we").site.control.clone();
    topology::set_link(&cut_off, Link::Down)?;
    mesh.cluster("ne").scale(1)?;
    let after = mesh.all_backends();
    for reader in ["ne", "fc"] {
        observe::wait_table(mesh.cluster(reader), SERVICE, &after, SOON)?;
    }
    let etcd = &mut mesh.cluster("ne").etcd;
    let deleted_at = etcd.revisions()?.current;
    wait_until("etcd to compact the deletion", SOON, || {
        let now = etcd.revisions()?;
        Ok(if now.compacted >= deleted_at {
            Seen::Ready(())
        } else {
            Seen::NotYet(format!("{now:?}, not {deleted_at}"))
        })
    })?;
    // Its connections die with it, so the reader must ask for a watch from a revision that is gone.
    etcd.restart_with(&[])?;
    topology::set_link(&cut_off, Link::Up)?;
    mesh.wait_all_backends(Duration::from_secs(60))
}

fn killed(mesh: &mut Mesh) -> Result<()> {
    let all = mesh.all_backends();
    let seen = under_watch(mesh, |mesh| {
        for cluster in &mut mesh.clusters {
            cluster.kill_apiserver()?;
            cluster.start_apiserver()?;
        }
        mesh.cluster("we").etcd.restart()?;
        let_pass(Duration::from_secs(2))?;
        mesh.wait_ready()?;
        mesh.wait_all_backends(SOON)
    })?;
    ensure!(seen == BTreeSet::from([all]), "tables changed: {seen:?}");
    Ok(())
}
