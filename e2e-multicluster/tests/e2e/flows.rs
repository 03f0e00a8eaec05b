//! What `tombolo flows` tells of connections that were really made.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tombolo_e2e::clock::{Seen, wait_until};
use tombolo_e2e::cluster::{Frontend, SERVICE};
use tombolo_e2e::load::{self, Dial, Way};
use tombolo_e2e::mesh::Mesh;
use tombolo_e2e::operator;
use tombolo_e2e::process::Membership;

use crate::harness::{Body, Case};

pub(crate) const CASES: &[Case] =
    &[Case { name: "flows: connections and datagrams are told with backend and process", body: Body::Shared(told) }];

const SOON: Duration = Duration::from_secs(10);

fn told(mesh: &mut Mesh) -> Result<()> {
    let ne = mesh.cluster("ne");
    let (place, node) = (ne.site.nodes[0].place.clone(), ne.site.nodes[0].name.clone());
    let flags = ["flows", "--service", SERVICE, "-o", "json", "--node", &node, "--cluster"].map(Into::into);
    let mut args: Vec<std::ffi::OsString> = flags.to_vec();
    args.push(ne.dir.clone().into());
    wait_until("flows of both kinds", SOON, || {
        load::ask(&place, &Dial::http(ne.frontend(), 200), 20, Membership::Inside)?;
        load::ask(&place, &Dial::new(ne.dialled(Frontend::V6), Way::Dns, 200), 20, Membership::Inside)?;
        let out = operator::tombolo(&args)?;
        let flows: Vec<Value> = out.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let kinds = ["TCP", "UDP"].map(|protocol| flows.iter().find(|f| f["frontend"]["protocol"] == protocol));
        let [Some(tcp), Some(udp)] = kinds else { return Ok(Seen::NotYet(format!("{} flows", flows.len()))) };
        [tcp, udp].into_iter().try_for_each(check)?;
        Ok(Seen::Ready(()))
    })
}

fn check(flow: &Value) -> Result<()> {
    let why = || format!("a flow lacks something: {flow}");
    ensure!(flow["node"] == "ne-1" && flow["process"]["command"] == "x-wing", "{}", why());
    let cgroup = flow["process"]["cgroup"].as_str().with_context(why)?;
    ensure!(cgroup.contains("tombolo-"), "{}", why());
    let cluster = flow["backend"]["cluster"].as_str().with_context(why)?;
    ensure!(["ne", "we", "fc"].contains(&cluster), "{}", why());
    Ok(())
}
