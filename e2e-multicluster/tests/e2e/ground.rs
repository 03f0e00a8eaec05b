//! What the harness itself stands on: the fabric, processes in places, etcd, load, and cleaning up.

use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tombolo_e2e::answers::{Answer, Tally};
use tombolo_e2e::clock::{Seen, wait_until};
use tombolo_e2e::cluster::Datapath;
use tombolo_e2e::etcd::Server;
use tombolo_e2e::load::{self, Dial, Sockets, Way};
use tombolo_e2e::mesh::{Mesh, Plan};
use tombolo_e2e::process::{Membership, Process, Spec};
use tombolo_e2e::run::{self, Run};
use tombolo_e2e::topology::{self, Link, Place, Site};
use tombolo_e2e::{netns, programs};

use crate::harness::{Body, Case, janitor};

pub(crate) const CASES: &[Case] = &[
    Case { name: "ground: the fabric joins places and leads nowhere else", body: Body::Alone(fabric) },
    Case { name: "ground: a pod is asked in every way and by every family", body: Body::Alone(ways) },
    Case { name: "ground: load is open loop and counts late answers as failed", body: Body::Alone(open_loop) },
    Case { name: "ground: a process that dies is noticed, with the end of its log", body: Body::Alone(death) },
    Case {
        name: "ground: directories are laid out and etcd serves them, killed and restarted",
        body: Body::Alone(stores),
    },
    Case { name: "ground: a killed owner leaves nothing behind", body: Body::Alone(killed_owner) },
];

const SOON: Duration = Duration::from_secs(10);

fn two_sites() -> Result<(Run, Vec<Site>)> {
    let run = Run::begin(janitor())?;
    let sites = topology::build(&run, &[("ne", 1), ("we", 2)], 2)?;
    Ok((run, sites))
}

fn base(run: &Run, site: &Site, node: usize) -> Result<(Process, [SocketAddr; 2])> {
    let (name, pod) = (site.nodes[node].pod_name(1), site.nodes[node].pod(1));
    topology::add_pod(&site.nodes[node], pod)?;
    let listen = pod.both().map(|ip| SocketAddr::from((ip, 8080)));
    let spec = Spec::new(format!("base-{name}"), programs::program("rebel-base")?, &site.nodes[node].place);
    let spec = listen.iter().fold(spec, |spec, listen| spec.flag("--listen", listen.to_string()));
    let process = spec.flag("--cluster", &site.name).flag("--pod", name).start(&run.logs())?;
    wait_until("rebel-base to listen", SOON, || {
        let seen = netns::inside(&site.nodes[node].place.netns, || Ok(TcpStream::connect(listen[1])?));
        Ok(seen.map_or_else(|e| Seen::NotYet(e.to_string()), |_| Seen::Ready(())))
    })?;
    Ok((process, listen))
}

fn fabric() -> Result<()> {
    let begun = Instant::now();
    let (run, sites) = two_sites()?;
    ensure!(begun.elapsed() < Duration::from_secs(5), "a fabric takes {} ms", begun.elapsed().as_millis());
    let (_process, pods) = base(&run, &sites[1], 1)?;
    let from: Vec<&Place> = [&sites[0].control, &sites[0].nodes[0].place, &sites[1].nodes[0].place].to_vec();
    for place in from {
        let reach = |pod| TcpStream::connect_timeout(&pod, SOON).context("a pod is reached from everywhere").map(drop);
        netns::inside(&place.netns, || pods.into_iter().try_for_each(reach))?;
        for nowhere in sites[0].service(10).both() {
            let nowhere = SocketAddr::from((nowhere, 80));
            let dialled = netns::inside(&place.netns, || Ok(TcpStream::connect(nowhere).map(drop)))?;
            let refused = dialled.err().context("a service address was reached without an agent")?;
            ensure!(refused.kind() == std::io::ErrorKind::NetworkUnreachable, "not without a route, but: {refused}");
        }
    }
    let reaches = |from: &Place| {
        let dial = |pod| TcpStream::connect_timeout(&pod, Duration::from_millis(200)).is_ok();
        netns::inside(&from.netns, || Ok(pods.map(dial)))
    };
    let (own, other) = (&sites[1].control, &sites[0].control);
    topology::set_trunk(&sites[1], Link::Down)?;
    ensure!(reaches(other)? == [false; 2], "a cut trunk still carries");
    ensure!(reaches(own)? == [true; 2], "a cut trunk cuts inside the site");
    topology::set_trunk(&sites[1], Link::Up)?;
    wait_until("the trunk to carry again", SOON, || {
        Ok(if reaches(other)? == [true; 2] { Seen::Ready(()) } else { Seen::NotYet("not both families".into()) })
    })?;
    topology::set_link(&sites[1].nodes[1].place, Link::Down)?;
    ensure!(reaches(own)? == [false; 2], "a cut link still carries");
    Ok(())
}

/// Every way of asking a pod of each family, without an agent between.
fn ways() -> Result<()> {
    let (run, sites) = two_sites()?;
    let (_process, pods) = base(&run, &sites[1], 0)?;
    let client = &sites[0].nodes[0].place;
    let SocketAddr::V4(v4) = pods[0] else { bail!("a pod's first address is IPv4") };
    let mapped = SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port()));
    for target in [pods[0], pods[1], mapped] {
        for way in [Way::Http, Way::Dns, Way::Datagram] {
            for dial in [Dial::new(target, way, 100), Dial::new(target, way, 100).kept()] {
                let answers = load::ask(client, &dial, 10, Membership::Inside)?;
                let right = |a: &Answer| a.pod.as_deref() == Some("we-1-1") && a.cluster.as_deref() == Some("we");
                ensure!(answers.len() == 10 && answers.iter().all(right), "{dial:?}: {answers:?}");
                let sockets = answers.iter().map(|a| a.socket).max();
                ensure!(sockets == Some(if dial.sockets == Sockets::Kept { 0 } else { 9 }), "{dial:?}: {answers:?}");
            }
        }
    }
    Ok(())
}

fn open_loop() -> Result<()> {
    let (run, sites) = two_sites()?;
    let (process, [pod, _]) = base(&run, &sites[1], 0)?;
    let client = &sites[0].nodes[0].place;
    let tally = Tally::of(&load::ask(client, &Dial::http(pod, 200), 100, Membership::Inside)?);
    ensure!((tally.requests, tally.failed) == (100, 0), "{tally:?}");
    ensure!(tally.by_cluster.get("we") == Some(&100), "{tally:?}");

    // A server that stops answering in mid-load delays no later request's start.
    let mut load = load::begin("x-wing", client, &Dial::http(pod, 100), &run.logs())?;
    load.wait_for(
        "some answers",
        SOON,
        |seen| if seen.len() > 20 { Seen::Ready(()) } else { Seen::NotYet("few".into()) },
    )?;
    let freeze = |signal: &str| Command::new("kill").args([signal, &process.pid().to_string()]).status();
    freeze("-STOP")?;
    load.wait_for("failures", SOON, |seen| match seen.iter().filter(|a| a.cluster.is_none()).count() {
        n if n > 20 => Seen::Ready(()),
        n => Seen::NotYet(format!("{n} failures")),
    })?;
    freeze("-CONT")?;
    let answers = load.end()?;
    let first = answers[0].at_us;
    for answer in &answers {
        ensure!(answer.at_us == first + answer.n * 10_000, "request {} was not due when planned", answer.n);
        let late = answer.took_us > 1_000_000;
        ensure!(!late || answer.cluster.is_none(), "a late answer counts: {answer:?}");
    }
    Ok(())
}

fn death() -> Result<()> {
    let (run, sites) = two_sites()?;
    let place = &sites[0].control;
    let mut doomed =
        Spec::new("doomed", "/bin/sh", place).flag("-c", "echo famous last words; exit 3").start(&run.logs())?;
    let error = wait_until("its death", SOON, || {
        Ok(doomed.alive().err().map_or_else(|| Seen::NotYet("it lives".into()), Seen::Ready))
    })?;
    let text = error.to_string();
    ensure!(text.contains("exit status: 3") && text.contains("famous last words"), "{text}");
    Ok(())
}

fn stores() -> Result<()> {
    let plan =
        Plan { clusters: &[("ne", 1), ("we", 2)], nodes: 1, pods: 0, datapath: Datapath::None, janitor: janitor() };
    let mut mesh = Mesh::lay_out(&plan)?;
    mesh.connect_all()?;
    ensure!(mesh.clusters[0].dir.join("peers/we").exists() && mesh.clusters[1].dir.join("peers/ne").exists());
    let etcd = &mut mesh.clusters[0].etcd;
    let actions: [fn(&mut Server) -> Result<()>; 3] = [Server::start, Server::restart, Server::restart_empty];
    for action in actions {
        action(etcd)?;
        let address = SocketAddr::from((etcd.place().address.v4, tombolo_e2e::etcd::PORT));
        wait_until("etcd to listen", SOON, || {
            etcd.alive()?;
            let seen = netns::inside(&etcd.place().netns, || Ok(TcpStream::connect(address)?));
            Ok(seen.map_or_else(|e| Seen::NotYet(e.to_string()), |_| Seen::Ready(())))
        })?;
    }
    Ok(())
}

/// A second process makes a run and is killed without a chance to clean up.
fn killed_owner() -> Result<()> {
    let mut owner = Command::new(std::env::current_exe()?)
        .env(OWNER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .context("start a second owner")?;
    let dir = wait_until("the other owner's run", SOON, || {
        let all = run::found()?;
        let its = all.into_iter().find(|f| f.state == run::State::Owned(owner.id()) && f.dir.join("ready").exists());
        Ok(its.map_or_else(|| Seen::NotYet("no run".into()), |f| Seen::Ready(f.dir)))
    })?;
    let name = dir.display().to_string().rsplit('-').next().context("a run has a name")?.to_owned();
    let left = || -> Result<usize> {
        let names = std::fs::read_dir("/run/netns")?.filter_map(|e| e.ok()?.file_name().into_string().ok());
        let cgroup = tombolo_e2e::needs::cgroup2()?.join(format!("tombolo-{name}"));
        Ok(names.filter(|n| n.contains(&name)).count() + usize::from(cgroup.exists()) + usize::from(dir.exists()))
    };
    ensure!(left()? > 3, "the run made nothing");
    owner.kill()?;
    owner.wait()?;
    wait_until("the janitor to clean up", SOON, || {
        let n = left()?;
        Ok(if n == 0 { Seen::Ready(()) } else { Seen::NotYet(format!("{n} things are left")) })
    })
}

/// Set in the second owner's environment.
pub(crate) const OWNER: &str = "TOMBOLO_E2E_OWNER";

/// The second owner: makes a run with a process in it, then waits to be killed.
pub(crate) fn own_and_wait() -> Result<()> {
    let (run, sites) = two_sites()?;
    let _process = base(&run, &sites[0], 0)?;
    std::fs::write(run.dir().join("ready"), "")?;
    tombolo_e2e::clock::let_pass(Duration::from_secs(60))
}
