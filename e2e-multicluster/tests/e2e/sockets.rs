//! What sockets are promised: answers from what they dialled, a backend that stays, and the news when it has gone.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tombolo_core::id::Family;
use tombolo_e2e::answers::{Answer, Tally};
use tombolo_e2e::clock::{Seen, let_pass};
use tombolo_e2e::cluster::Frontend;
use tombolo_e2e::load::{self, Dial, Load, Way};
use tombolo_e2e::mesh::Mesh;
use tombolo_e2e::observe::{self, Table};
use tombolo_e2e::process::Membership;

use crate::harness::{Body, Case};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "sockets: one unconnected socket is answered by each Service it asks",
        body: Body::Shared(one_socket),
    },
    Case { name: "sockets: a connected UDP socket learns that its backend left", body: Body::Shared(connected) },
    Case { name: "sockets: a sticky client stays, whatever else changes", body: Body::Shared(sticky) },
];

const SOON: Duration = Duration::from_secs(20);

fn pods<'a>(answers: impl IntoIterator<Item = &'a Answer>) -> BTreeSet<String> {
    answers.into_iter().filter_map(|a| a.pod.clone()).collect()
}

/// A second Service with the same pods: the socket must be told which of the two answered.
fn one_socket(mesh: &mut Mesh) -> Result<()> {
    let ne = mesh.cluster("ne");
    let mut outpost = ne.service.clone();
    let address = ne.site.service(11);
    (outpost.name, outpost.addresses) = ("outpost".to_owned(), address.both().to_vec());
    let slices =
        [Family::V4, Family::V6].map(|f| outpost.slice(&format!("outpost-{f:?}").to_lowercase(), f, ne.endpoints()));
    ne.write_source("outpost.yaml", &[outpost.manifest(), slices.join("---\n")].join("---\n"))?;
    let own: Table = ne.targets().map(|target| (target, 1)).collect();
    observe::wait_table(ne, "default/outpost", &own, SOON)?;

    let place = ne.site.nodes[0].place.clone();
    for (family, frontend) in [(Family::V4, Frontend::V4), (Family::V6, Frontend::V6)] {
        let mut dial = Dial::new(ne.dialled(frontend), Way::Dns, 200).kept();
        dial.targets.push((address.of(family), dial.targets[0].port()).into());
        let answers = load::ask(&place, &dial, 100, Membership::Inside)?;
        let tally = Tally::of(&answers);
        ensure!((tally.requests, tally.failed) == (100, 0), "{dial:?}: {tally:?}");
        // The table does not change, so neither does the socket's backend of each Service.
        let (of_base, of_outpost): (Vec<&Answer>, Vec<&Answer>) = answers.iter().partition(|a| a.n % 2 == 0);
        ensure!(pods(of_base.iter().copied()).len() == 1, "{answers:?}");
        let of_outpost = pods(of_outpost.iter().copied());
        ensure!(of_outpost.len() == 1 && of_outpost.iter().all(|pod| pod.starts_with("ne-")), "{of_outpost:?}");
    }
    ne.remove_source("outpost.yaml")
}

fn begin(mesh: &mut Mesh, name: &str, node: usize, dial: &Dial) -> Result<Load> {
    let logs = mesh.run().logs();
    let place = mesh.cluster("ne").site.nodes[node].place.clone();
    load::begin(name, &place, dial, &logs)
}

/// The pod of the last answer, once there are some.
fn settled(load: &mut Load) -> Result<(String, String)> {
    load.wait_for("some answers", SOON, |answers| match answers.last() {
        Some(Answer { cluster: Some(cluster), pod: Some(pod), .. }) if answers.len() > 20 => {
            Seen::Ready((cluster.clone(), pod.clone()))
        }
        _ => Seen::NotYet(format!("{} answers", answers.len())),
    })
}

/// The pod goes on answering, so only the news makes the socket leave it.
fn connected(mesh: &mut Mesh) -> Result<()> {
    for frontend in [Frontend::V4, Frontend::V6, Frontend::Mapped] {
        let dial = Dial::new(mesh.cluster("ne").dialled(frontend), Way::Datagram, 100).kept();
        let mut load = begin(mesh, &format!("x-wing-connected-{frontend:?}"), 0, &dial)?;
        let (cluster, pod) = settled(&mut load)?;
        mesh.cluster(&cluster).withdraw(&pod)?;
        load.wait_for("answers over a new socket", SOON, |answers| {
            let renewed = answers.iter().filter(|a| a.socket == 1).count();
            if renewed > 20 { Seen::Ready(()) } else { Seen::NotYet(format!("{renewed}")) }
        })?;
        let answers = load.end()?;
        let tally = Tally::of(&answers);
        ensure!(tally.failed == 0, "{frontend:?}: {tally:?}");
        let (old, new): (Vec<&Answer>, Vec<&Answer>) = answers.iter().partition(|a| a.socket == 0);
        ensure!(pods(old.iter().copied()) == BTreeSet::from([pod.clone()]), "a connected socket moved: {old:?}");
        ensure!(!pods(new.iter().copied()).contains(&pod), "a new socket went to the pod that left: {new:?}");
        mesh.cluster(&cluster).scale(2)?;
        mesh.wait_all_backends(SOON)?;
    }
    Ok(())
}

/// Every pod but its own goes and comes; it moves when its own goes, and does not move back.
fn sticky(mesh: &mut Mesh) -> Result<()> {
    let ne = mesh.cluster("ne");
    ne.stick(Some(600))?;
    let dial = Dial::http(ne.frontend(), 200);
    let mut load = begin(mesh, "x-wing-sticky", 0, &dial)?;
    let (cluster, pod, from) = load.wait_for("one pod alone", SOON, |answers| {
        let last: Vec<_> = answers.iter().rev().take(60).collect();
        match (pods(last.iter().copied()).len(), last.as_slice()) {
            (1, [Answer { cluster: Some(cluster), pod: Some(pod), n, .. }, .., _]) if last.len() == 60 => {
                Seen::Ready((cluster.clone(), pod.clone(), *n))
            }
            (n, _) => Seen::NotYet(format!("{n} pods")),
        }
    })?;

    let others: Vec<_> = ["ne", "we", "fc"].into_iter().filter(|c| *c != cluster).collect();
    for round in 0..10_u8 {
        for other in &others {
            mesh.cluster(other).claim(round % 3)?;
            let_pass(Duration::from_millis(30))?;
        }
    }
    for other in &others {
        mesh.cluster(other).claim(2)?;
    }
    mesh.wait_all_backends(SOON)?;
    let answers = load.answers()?;
    let seen = pods(answers.iter().filter(|a| a.n >= from));
    ensure!(seen == BTreeSet::from([pod.clone()]), "a sticky client moved from {pod}: {seen:?}");

    mesh.cluster(&cluster).withdraw(&pod)?;
    let next = load.wait_for("another pod", SOON, |answers| {
        let last = answers.iter().rev().find_map(|a| a.pod.clone());
        last.filter(|last| *last != pod).map_or_else(|| Seen::NotYet("the old one".into()), Seen::Ready)
    })?;
    mesh.cluster(&cluster).claim(2)?;
    mesh.wait_all_backends(SOON)?;
    let_pass(Duration::from_millis(500))?;
    let answers = load.end()?;
    let tally = Tally::of(&answers);
    ensure!(tally.failed == 0, "{tally:?}");
    let moved = answers.iter().position(|a| a.pod.as_deref() == Some(&next)).context("it moved")?;
    let after = pods(&answers[moved..]);
    ensure!(after == BTreeSet::from([next.clone()]), "a sticky client moved back from {next}: {after:?}");
    // By IPv6 it has another frontend, and sticks there as well.
    let ne = mesh.cluster("ne");
    let v6 = load::ask(&ne.site.nodes[0].place, &Dial::http(ne.dialled(Frontend::V6), 200), 60, Membership::Inside)?;
    ensure!(Tally::of(&v6).failed == 0 && pods(&v6).len() == 1, "{:?}", pods(&v6));
    Ok(())
}
