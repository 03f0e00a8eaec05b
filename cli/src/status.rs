//! `status`: what all apiservers and agents say, and whether that is a connected mesh.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep_until};
use tombolo_core::id::{ClusterId, ClusterName};
use tombolo_core::model::Policy;
use tombolo_core::own::{PeerSession, PeerState};
use tombolo_core::report::{AgentStatus, ApiserverStatus};

use crate::cluster::Cluster;
use crate::query::{self, Answer};

/// How long `--wait` pauses between two rounds of questions.
const WAIT_INTERVAL: Duration = Duration::from_millis(500);

/// The status of the clusters that were asked about.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct MeshStatus {
    /// No cluster has a problem.
    pub connected: bool,
    /// Each cluster.
    pub clusters: Vec<ClusterStatus>,
}

/// The status of one cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ClusterStatus {
    /// Its name.
    pub cluster: ClusterName,
    /// Its id.
    pub id: ClusterId,
    /// Its peers by its directory.
    pub configured_peers: BTreeSet<ClusterName>,
    /// What its apiserver says.
    pub apiserver: Answer<ApiserverStatus>,
    /// What its agents say, by node.
    pub agents: BTreeMap<String, Answer<AgentStatus>>,
    /// What keeps it from being connected, for a person.
    pub problems: Vec<String>,
}

/// Asks once, or until all are connected or the time is over.
pub(crate) async fn status(clusters: &[Cluster], wait: Option<Duration>) -> MeshStatus {
    let deadline = wait.map(|wait| Instant::now() + wait);
    loop {
        let status = ask(clusters).await;
        let next = Instant::now() + WAIT_INTERVAL;
        if status.connected || deadline.is_none_or(|deadline| next > deadline) {
            return status;
        }
        sleep_until(next).await;
    }
}

async fn ask(clusters: &[Cluster]) -> MeshStatus {
    let questions = clusters.iter().cloned().enumerate().map(|(i, cluster)| (i, ask_cluster(cluster)));
    let clusters: Vec<ClusterStatus> = query::all(questions).await.into_values().collect();
    MeshStatus { connected: clusters.iter().all(|c| c.problems.is_empty()), clusters }
}

async fn ask_cluster(cluster: Cluster) -> ClusterStatus {
    let nodes = cluster.nodes.clone();
    let questions = nodes.into_iter().map(|(node, socket)| (node, async move { query::agent_status(&socket).await }));
    let (apiserver, agents) = tokio::join!(query::apiserver_status(&cluster), query::all(questions));
    let configured_peers = cluster.configured_peers();
    judged(ClusterStatus {
        cluster: cluster.name,
        id: cluster.id,
        configured_peers,
        apiserver,
        agents,
        problems: Vec::new(),
    })
}

/// Fills in the problems.
pub(crate) fn judged(mut status: ClusterStatus) -> ClusterStatus {
    let mut problems = match &status.apiserver {
        Answer::Failed(why) => vec![format!("apiserver does not answer: {why}")],
        Answer::Got(apiserver) => apiserver_problems(&status, apiserver),
    };
    problems.extend(node_problems(&status, &problems));
    status.problems = problems;
    status
}

/// What the agents say, each cause once with all its nodes; what their apiserver says already is not said again.
fn node_problems(status: &ClusterStatus, said_already: &[String]) -> Vec<String> {
    let mut by_cause: Vec<(String, Vec<&str>)> = Vec::new();
    for (node, said) in &status.agents {
        let found = match said {
            Answer::Failed(why) => vec![format!("does not answer: {why}")],
            Answer::Got(agent) => agent_problems(status, agent),
        };
        for problem in found.into_iter().filter(|problem| !said_already.contains(problem)) {
            match by_cause.iter_mut().find(|(cause, _)| *cause == problem) {
                Some((_, nodes)) => nodes.push(node),
                None => by_cause.push((problem, vec![node])),
            }
        }
    }
    let told = |(cause, nodes): (String, Vec<&str>)| match &*nodes {
        [node] => format!("node {node}: {cause}"),
        nodes => format!("{} nodes ({}): {cause}", nodes.len(), nodes.join(", ")),
    };
    by_cause.into_iter().map(told).collect()
}

fn apiserver_problems(status: &ClusterStatus, apiserver: &ApiserverStatus) -> Vec<String> {
    let mut problems = Vec::new();
    if (&apiserver.cluster, apiserver.id) != (&status.cluster, status.id) {
        let (name, id) = (&apiserver.cluster, apiserver.id);
        problems.push(format!("apiserver is that of {name} (id {id}): see admin in cluster.yaml"));
    }
    if !apiserver.store_connected {
        problems.push("apiserver has no connection to its store".into());
    }
    problems.extend(apiserver.blockers.iter().map(|blocker| format!("apiserver is not ready: {blocker}")));
    let known: Vec<_> = apiserver.peers.iter().map(|peer| (&peer.name, &peer.state)).collect();
    problems.extend(peer_problems(&status.configured_peers, &known));
    // Only the mirror times a peer: what an agent has is the silence at its last report.
    // A Service that says nothing of its own bears so much.
    let bears = |state: &PeerState| state.stale_after(&Policy::default());
    let silent = known.iter().filter(|(_, s)| s.session == PeerSession::Ready && s.silent_ms >= bears(s));
    problems.extend(silent.map(|(name, s)| format!("peer {name} has been silent for {} s", s.silent_ms / 1000)));
    problems
}

fn agent_problems(status: &ClusterStatus, agent: &AgentStatus) -> Vec<String> {
    let mut problems = Vec::new();
    if agent.cluster != status.cluster {
        problems.push(format!("agent is one of {}: see nodes in cluster.yaml", agent.cluster));
    }
    if !agent.store_connected {
        problems.push("agent has no connection to the store".into());
    }
    if !agent.synced {
        problems.push("agent has not carried out its first complete plan".into());
    }
    problems.extend(agent.blockers.iter().map(|blocker| format!("agent is not ready: {blocker}")));
    let known: Vec<_> = agent.peers.iter().map(|(name, state)| (name, state)).collect();
    problems.extend(peer_problems(&status.configured_peers, &known));
    problems
}

fn peer_problems(configured: &BTreeSet<ClusterName>, known: &[(&ClusterName, &PeerState)]) -> Vec<String> {
    let unknown = configured.iter().filter(|name| known.iter().all(|(known, _)| known != name));
    let unknown = unknown.map(|name| format!("peer {name} is configured, but not known yet"));
    let unready = known.iter().filter(|(_, state)| state.session != PeerSession::Ready);
    let unready = unready.map(|(name, state)| {
        let detail = if state.detail.is_empty() { String::new() } else { format!(": {}", state.detail) };
        format!("peer {name} is {}{detail}", session(state.session))
    });
    unknown.chain(unready).collect()
}

/// Whether an agent sees all peers and is itself up.
pub(crate) fn is_connected(status: &ClusterStatus, agent: &Answer<AgentStatus>) -> bool {
    matches!(agent, Answer::Got(agent) if agent_problems(status, agent).is_empty())
}

/// A session's state in a word.
pub(crate) fn session(session: PeerSession) -> &'static str {
    match session {
        PeerSession::Connecting => "connecting",
        PeerSession::Ready => "ready",
        PeerSession::Lost => "lost",
        PeerSession::Refused => "refused",
    }
}
