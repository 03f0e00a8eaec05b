//! Thousands of endpoints that change within a second.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::Result;
use tombolo_core::id::Family;
use tombolo_core::model::{Port, Protocol};
use tombolo_e2e::clock::{until, watch_for};
use tombolo_e2e::cluster::{Cluster, GLOBAL};
use tombolo_e2e::manifest::{Endpoint, Readiness, Service};
use tombolo_e2e::mesh::Mesh;
use tombolo_e2e::observe::AgentWindow;

/// How often the agent is asked. Its answer is 5,000 backends long, and asking too often would be the load.
const EVERY: Duration = Duration::from_millis(20);

/// Services they belong to.
pub(crate) const SERVICES: usize = 50;
/// Slices, in turn of each service.
pub(crate) const SLICES: usize = 500;
/// Endpoints of each slice.
pub(crate) const ENDPOINTS: usize = 10;

/// The time over which one burst's changes are spread.
const SPREAD: Duration = Duration::from_secs(1);

/// How long a whole burst may take to arrive.
const ARRIVED: Duration = Duration::from_secs(60);

/// Milliseconds of each slice's change: all its endpoints get other addresses.
pub(crate) fn measure(mesh: &mut Mesh, bursts: usize) -> Result<Vec<f64>> {
    for name in ["ne", "we"] {
        let cluster = mesh.cluster(name);
        let manifests: Vec<_> = (0..SERVICES).map(|n| service(cluster, n).manifest()).collect();
        cluster.write_source("bench-services.yaml", &manifests.join("---\n"))?;
    }
    let mut window = AgentWindow::open(mesh.cluster("we"), 0)?;
    let ne = mesh.cluster("ne");
    // The first round makes the slices and is not counted.
    one_burst(ne, &mut window, 0)?;
    let mut samples = Vec::new();
    for round in 1..=bursts {
        samples.extend(one_burst(ne, &mut window, round)?);
    }
    Ok(samples)
}

fn one_burst(ne: &Cluster, window: &mut AgentWindow, round: usize) -> Result<Vec<f64>> {
    let services: Vec<_> = (0..SERVICES).map(|n| service(ne, n)).collect();
    let texts: Vec<_> = (0..SLICES)
        .map(|n| {
            let endpoints: Vec<_> = (0..ENDPOINTS).map(|e| endpoint(ne, address(round, n, e))).collect();
            services[n % SERVICES].slice(&format!("bench-{n}"), Family::V4, &endpoints)
        })
        .collect();
    let start = Instant::now();
    let due = |n: usize| start + SPREAD * u32::try_from(n).expect("few slices") / u32::try_from(SLICES).expect("few");
    std::thread::scope(|scope| {
        let writer = std::thread::Builder::new().name("source".into()).spawn_scoped(scope, || {
            (0..SLICES).map(|n| change(ne, n, &texts[n], due(n))).collect::<Result<Vec<Instant>>>()
        })?;
        let arrivals = arrivals(window, round)?;
        let begun = writer.join().map_err(|_| anyhow::anyhow!("writing the source panicked"))??;
        let ms = |(arrived, begun): (Instant, Instant)| arrived.saturating_duration_since(begun).as_secs_f64() * 1000.0;
        Ok(arrivals.into_iter().zip(begun).map(ms).collect())
    })
}

/// Writes one slice when it is due, and gives the time at which it did.
fn change(ne: &Cluster, n: usize, text: &str, due: Instant) -> Result<Instant> {
    until(due)?;
    let begun = Instant::now();
    ne.write_source(&format!("bench-slice-{n}.yaml"), text)?;
    Ok(begun)
}

/// When the map first had all endpoints of each slice.
fn arrivals(window: &mut AgentWindow, round: usize) -> Result<Vec<Instant>> {
    let mut arrived: Vec<Option<Instant>> = vec![None; SLICES];
    watch_for("a whole burst in the map", EVERY, ARRIVED, || {
        let views = window.services()?;
        let now = Instant::now();
        let slots = views.iter().flat_map(|view| &view.frontends).flat_map(|frontend| &frontend.backends);
        let there: BTreeSet<IpAddr> = slots.map(|slot| slot.backend.addr.ip()).collect();
        for (n, slot) in arrived.iter_mut().enumerate().filter(|(_, slot)| slot.is_none()) {
            let all = (0..ENDPOINTS).all(|e| there.contains(&IpAddr::V4(address(round, n, e))));
            *slot = all.then_some(now);
        }
        Ok(arrived.iter().copied().collect::<Option<Vec<_>>>())
    })
}

fn service(cluster: &Cluster, n: usize) -> Service {
    Service {
        namespace: "default".into(),
        name: format!("bench-{n}"),
        addresses: vec![cluster.site.service(u16::try_from(1000 + n).expect("few services")).v4.into()],
        ports: vec![Port { name: "http".into(), protocol: Protocol::Tcp, number: 80 }],
        client_ip_seconds: None,
        annotations: [(GLOBAL.to_owned(), "true".to_owned())].into(),
    }
}

fn endpoint(ne: &Cluster, address: Ipv4Addr) -> Endpoint {
    Endpoint { address: address.into(), node: ne.site.nodes[0].name.clone(), readiness: Readiness::Ready }
}

/// Another address for each endpoint and round, in a range that nobody has: nothing is ever sent there.
fn address(round: usize, slice: usize, endpoint: usize) -> Ipv4Addr {
    let n = u32::try_from((round * SLICES + slice) * ENDPOINTS + endpoint).expect("few endpoints");
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 200, 0, 0)) + n)
}
