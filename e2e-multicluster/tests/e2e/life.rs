//! An agent's life: killed while the mesh changes, replaced by one with other tables, uninstalled.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tombolo_e2e::answers::{Answer, Tally};
use tombolo_e2e::clock::{Seen, let_pass, wait_until, watch_for};
use tombolo_e2e::cluster::{Cluster, Frontend, SERVICE};
use tombolo_e2e::load::{self, Dial, Load, Way};
use tombolo_e2e::mesh::Mesh;
use tombolo_e2e::observe::{self, Table};
use tombolo_e2e::process::{Membership, Spec};
use tombolo_e2e::scenario::CONVERGED;
use tombolo_e2e::{programs, story};
use tombolo_ebpf::Census;

use crate::harness::{Body, Case};

pub(crate) const CASES: &[Case] = &[
    Case { name: "agent: killed while endpoints change, it is right within a second", body: Body::Shared(killed) },
    Case { name: "agent: an upgrade to another layout, and nobody notices", body: Body::Shared(upgraded) },
    Case { name: "agent: processes of a skipped cgroup are left alone", body: Body::Shared(skipped) },
    Case { name: "agent: uninstall leaves no trace", body: Body::Shared(uninstalled) },
];

const SOON: Duration = Duration::from_secs(20);

/// Load from the first node of `ne`, of several kinds at once.
fn begin(mesh: &mut Mesh, case: &str, dials: &[Dial]) -> Result<Vec<Load>> {
    let logs = mesh.run().logs();
    let place = mesh.cluster("ne").site.nodes[0].place.clone();
    let one = |(n, dial)| load::begin(&format!("x-wing-{case}-{n}"), &place, dial, &logs);
    dials.iter().enumerate().map(one).collect()
}

/// Ends loads; not one request may have failed.
fn end(loads: Vec<Load>) -> Result<Vec<Vec<Answer>>> {
    let all: Vec<_> = loads.into_iter().map(Load::end).collect::<Result<_>>()?;
    for (n, answers) in all.iter().enumerate() {
        let tally = Tally::of(answers);
        ensure!(tally.failed == 0 && tally.requests > 0, "load {n}: {tally:?}");
    }
    Ok(all)
}

/// Waits until the other node's agent, which lives, has carried something out.
fn wait_other(ne: &mut Cluster, expected: &Table) -> Result<()> {
    watch_for("the change on the other node", Duration::from_millis(5), SOON, || {
        Ok((observe::table(ne, 1, SERVICE)?.as_ref() == Some(expected)).then_some(()))
    })
}

/// Three times: the agent is killed, endpoints of two clusters go and come meanwhile, and it returns.
fn killed(mesh: &mut Mesh) -> Result<()> {
    let ne = mesh.cluster("ne");
    let dials = [Dial::http(ne.frontend(), 200), Dial::new(ne.dialled(Frontend::V6), Way::Dns, 100)];
    let loads = begin(mesh, "killed", &dials)?;
    for (we, fc) in [(1, 2), (2, 1), (0, 2)] {
        mesh.cluster("ne").kill_agent(0)?;
        // More than one change, of which the last are not the first undone.
        mesh.cluster("we").claim(0)?;
        mesh.cluster("fc").claim(fc)?;
        mesh.cluster("we").claim(we)?;
        let expected = mesh.all_backends();
        wait_other(mesh.cluster("ne"), &expected)?;
        let_pass(Duration::from_millis(300))?;
        let returned = observe::start_agent(mesh.cluster("ne"), 0, SERVICE, &expected, SOON)?;
        story::say(&format!("     right {} ms after its start", returned.took.as_millis()));
        ensure!(returned.own() <= CONVERGED, "its tables were right too late: {returned:?}");
        let_pass(Duration::from_millis(300))?;
    }
    end(loads).map(drop)
}

/// Sticky clients keep their backend, open sockets stay open and are told what they dialled (the client checks it at
/// every answer), while endpoints change before, between and after.
fn upgraded(mesh: &mut Mesh) -> Result<()> {
    let ne = mesh.cluster("ne");
    ne.stick(Some(600))?;
    wait_sticky(ne)?;
    let v4 = ne.frontend();
    let dials = [
        Dial::http(v4, 200),
        Dial::new(v4, Way::Dns, 100),
        Dial::http(v4, 50).kept(),
        Dial::new(v4, Way::Datagram, 50).kept(),
        Dial::new(ne.dialled(Frontend::Mapped), Way::Http, 50).kept(),
    ];
    let mut loads = begin(mesh, "upgraded", &dials)?;
    let mut used = BTreeSet::new();
    for load in &mut loads {
        used.insert(load.wait_for("a first answer", SOON, |answers| {
            let cluster = answers.iter().find_map(|a| a.cluster.clone());
            cluster.map_or_else(|| Seen::NotYet("none".into()), Seen::Ready)
        })?);
    }
    let idle = ["we", "fc", "ne"].into_iter().find(|c| !used.contains(*c));
    for (round, flags) in [["--max-backends", "4096"], ["--max-backends", "8192"]].into_iter().enumerate() {
        // Where no client is, endpoints may change without moving one.
        if let Some(idle) = idle {
            mesh.cluster(idle).claim(u8::try_from(1 + round)?)?;
        }
        let expected = mesh.all_backends();
        let ne = mesh.cluster("ne");
        ne.stop_agent(0)?;
        ne.set_agent_flags(0, flags);
        observe::start_agent(ne, 0, SERVICE, &expected, SOON)?;
        let_pass(Duration::from_millis(500))?;
    }
    for (answers, dial) in end(loads)?.iter().zip(&dials) {
        let pods: BTreeSet<_> = answers.iter().filter_map(|a| a.pod.clone()).collect();
        ensure!(pods.len() == 1, "{dial:?}: a sticky client moved: {pods:?}");
        let sockets = answers.iter().map(|a| a.socket).max();
        ensure!(dial.sockets == load::Sockets::Fresh || sockets == Some(0), "{dial:?}: an open socket broke");
    }
    Ok(())
}

/// Waits until every agent of a cluster knows that clients are sticky.
fn wait_sticky(cluster: &mut Cluster) -> Result<()> {
    for node in 0..cluster.site.nodes.len() {
        let mut window = observe::AgentWindow::open(cluster, node)?;
        wait_until("the affinity's timeout", SOON, || {
            let views = window.services()?;
            let view = views.iter().find(|v| v.service.to_string() == SERVICE).context("the service is in the maps")?;
            let seconds = view.policy.client_ip_seconds;
            Ok(if seconds.is_some() { Seen::Ready(()) } else { Seen::NotYet("no affinity".into()) })
        })?;
    }
    Ok(())
}

fn tally(mesh: &mut Mesh, membership: Membership) -> Result<Tally> {
    let ne = mesh.cluster("ne");
    let dial = Dial::http(ne.frontend(), 100);
    Ok(Tally::of(&load::ask(&ne.site.nodes[0].place, &dial, 20, membership)?))
}

fn skipped(mesh: &mut Mesh) -> Result<()> {
    let (expected, ne) = (mesh.all_backends(), mesh.cluster("ne"));
    let cgroup = ne.site.nodes[0].place.cgroup.join("sidecar");
    std::fs::create_dir(&cgroup).context("make a cgroup below the node's")?;
    let sidecar = || Membership::Outside(cgroup.clone());
    let before = tally(mesh, sidecar())?;
    ensure!((before.requests, before.failed) == (20, 0), "below the node's cgroup all is translated: {before:?}");

    let ne = mesh.cluster("ne");
    ne.stop_agent(0)?;
    ne.set_agent_flags(0, ["--skip-cgroup".as_ref(), cgroup.as_os_str()]);
    observe::start_agent(ne, 0, SERVICE, &expected, SOON)?;
    let (inside, beside) = (tally(mesh, sidecar())?, tally(mesh, Membership::Inside)?);
    ensure!((inside.requests, inside.failed) == (20, 20), "the skipped cgroup is translated: {inside:?}");
    ensure!((beside.requests, beside.failed) == (20, 0), "others are not: {beside:?}");
    Ok(())
}

fn uninstalled(mesh: &mut Mesh) -> Result<()> {
    let ne = mesh.cluster("ne");
    let place = ne.site.nodes[0].place.clone();
    let (bpffs, state, socket) = (ne.agent_bpffs(0), ne.agent_state(0), ne.agent_socket(0));
    let there = Census::of(&place.cgroup, &bpffs)?;
    ensure!(!there.links.is_empty() && !there.programs.is_empty() && !there.maps.is_empty(), "{there:?}");
    ne.stop_agent(0)?;
    ensure!(there.left() == there, "an agent that ends takes something with it: {:?} of {there:?}", there.left());
    let still = tally(mesh, Membership::Inside)?;
    ensure!((still.requests, still.failed) == (20, 0), "without its agent a node does not go on: {still:?}");

    let uninstall = Spec::new("uninstall", programs::program("tombolo-agent")?, &place).arg("uninstall");
    let said =
        uninstall.flag("--bpffs", &bpffs).flag("--state-dir", &state).flag("--admin-socket", &socket).output()?;
    ensure!(said.status.success(), "uninstall: {}", String::from_utf8_lossy(&said.stderr));
    wait_until("the kernel to let go", SOON, || {
        let left = there.left();
        Ok(if left == Census::default() { Seen::Ready(()) } else { Seen::NotYet(format!("{left:?}")) })
    })?;
    for folder in [&bpffs, &state] {
        let files: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
        ensure!(files.is_empty(), "uninstall left {files:?}");
    }
    let gone = tally(mesh, Membership::Inside)?;
    ensure!((gone.requests, gone.failed) == (20, 20), "still translated: {gone:?}");
    Ok(())
}
