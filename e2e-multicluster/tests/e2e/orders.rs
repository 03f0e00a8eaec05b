//! Whatever starts first, the same tables come out.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tombolo_e2e::clock::monotonic_us;
use tombolo_e2e::cluster::Datapath;
use tombolo_e2e::mesh::{DEMO, Mesh, Plan};
use tombolo_e2e::story;

use crate::harness::{Body, Case, janitor};

pub(crate) const CASES: &[Case] =
    &[Case { name: "orders: twenty random orders of starting end in the same tables", body: Body::Alone(orders) }];

const ORDERS: u32 = 20;

/// One thing that is started, by the index of its cluster.
#[derive(Clone, Copy, Debug)]
enum Start {
    Etcd(usize),
    Apiserver(usize),
    Agent(usize),
    Endpoints(usize),
}

fn orders() -> Result<()> {
    let plan = Plan { clusters: &DEMO, nodes: 1, pods: 2, datapath: Datapath::None, janitor: janitor() };
    let mut mesh = Mesh::lay_out(&plan)?;
    mesh.connect_all()?;
    let seed = monotonic_us();
    let mut random = Random(seed | 1);
    for n in 0..ORDERS {
        let order = random.shuffled(everything(mesh.clusters.len()));
        attempt(&mut mesh, &order).with_context(|| format!("order {n} of seed {seed}: {order:?}"))?;
        mesh.forget()?;
    }
    story::say(&format!("     {ORDERS} orders of seed {seed}"));
    Ok(())
}

fn everything(clusters: usize) -> Vec<Start> {
    let of = |c| [Start::Etcd(c), Start::Apiserver(c), Start::Agent(c), Start::Endpoints(c)];
    (0..clusters).flat_map(of).collect()
}

fn attempt(mesh: &mut Mesh, order: &[Start]) -> Result<()> {
    let pods = mesh.pods;
    for start in order {
        match *start {
            Start::Etcd(c) => mesh.clusters[c].etcd.start()?,
            Start::Apiserver(c) => mesh.clusters[c].start_apiserver()?,
            Start::Agent(c) => mesh.clusters[c].start_agent(0)?,
            Start::Endpoints(c) => mesh.clusters[c].claim(pods)?,
        }
    }
    mesh.wait_all_backends(Duration::from_secs(60))
}

/// xorshift: enough to shuffle, and a seed to repeat it.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits fit") % n
    }

    fn shuffled<T>(&mut self, mut items: Vec<T>) -> Vec<T> {
        for n in (1..items.len()).rev() {
            items.swap(n, self.below(n + 1));
        }
        items
    }
}
