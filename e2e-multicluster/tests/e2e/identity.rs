//! Names and ids: two clusters that claim the same one.

use std::time::Duration;

use anyhow::{Result, ensure};
use tombolo_core::own::PeerSession;
use tombolo_e2e::clock::{Seen, wait_until};
use tombolo_e2e::cluster::Datapath;
use tombolo_e2e::mesh::{Mesh, Plan};
use tombolo_e2e::{observe, operator};

use crate::harness::{Body, Case, janitor};

pub(crate) const CASES: &[Case] =
    &[Case { name: "identity: of two peers with one id one is refused, naming both", body: Body::Alone(one_id) }];

fn one_id() -> Result<()> {
    let clusters = [("ne", 1), ("we", 2), ("fc", 2)];
    let mut mesh =
        Mesh::lay_out(&Plan { clusters: &clusters, nodes: 1, pods: 0, datapath: Datapath::None, janitor: janitor() })?;

    // The CLI will not connect the two with each other.
    let dirs: Vec<_> = mesh.clusters.iter().map(|c| c.dir.clone()).collect();
    let args =
        ["connect".as_ref(), "--cluster".as_ref(), dirs[1].as_os_str(), "--destination".as_ref(), dirs[2].as_os_str()];
    let said = operator::try_tombolo(&args)?;
    ensure!(!said.well && said.err.contains("we") && said.err.contains("fc") && said.err.contains('2'), "{said:?}");

    // Nor both with a third at once; one after the other it cannot know. The third's apiserver does.
    ensure!(operator::connect(&dirs[0], &[&dirs[1], &dirs[2]]).is_err(), "two destinations of one id were connected");
    operator::connect(&dirs[0], &[&dirs[1]])?;
    operator::connect(&dirs[0], &[&dirs[2]])?;
    for cluster in &mut mesh.clusters {
        cluster.etcd.start()?;
        cluster.start_apiserver()?;
    }
    let ne = mesh.cluster("ne");
    let refused = wait_until("one of the two to be refused", Duration::from_secs(30), || {
        ne.alive()?;
        let status = match observe::apiserver_status(ne) {
            Ok(status) => status,
            Err(error) => return Ok(Seen::NotYet(format!("{error:#}"))),
        };
        let with = |session| status.peers.iter().filter(move |p| p.state.session == session);
        let text = format!("{:?}", status.peers);
        Ok(match (with(PeerSession::Ready).count(), with(PeerSession::Refused).next()) {
            (1, Some(refused)) => Seen::Ready(refused.state.detail.clone()),
            _ => Seen::NotYet(text),
        })
    })?;
    ensure!(refused.contains("we") && refused.contains("fc"), "the refusal does not name both: {refused}");
    Ok(())
}
