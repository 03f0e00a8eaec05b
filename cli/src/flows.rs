//! `flows`: what the datapaths decide, a line each, from all chosen nodes at once.

use anyhow::Result;
use serde::Serialize;
use tokio::sync::mpsc;
use tombolo_core::id::ClusterName;
use tombolo_core::report::{Flow, FlowsRequest};
use tombolo_wire::admin::Flows;

use crate::args::Format;
use crate::output::{Reader, print_line, print_problem};
use crate::query;
use crate::render::flow;

/// How many flows of all nodes wait to be printed.
const QUEUE: usize = 1_024;

/// A flow with the node that told it. JSON has one a line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct NodeFlow {
    /// The node's cluster.
    pub cluster: ClusterName,
    /// The node.
    pub node: String,
    /// What it told.
    #[serde(flatten)]
    pub flow: Flow,
}

/// A node: its cluster, its name and its agent's socket.
pub(crate) type Node = (ClusterName, String, String);

/// Whether all nodes answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// They did.
    All,
    /// Some did not, which was said.
    Some,
}

/// Prints the flows of these nodes: those that are kept by time; then, for a follower, those to come as they come.
pub(crate) async fn flows(nodes: Vec<Node>, request: FlowsRequest, format: Format) -> Result<Heard> {
    let (told, mut telling) = mpsc::channel(QUEUE);
    let mut heard = Heard::All;
    let mut asked = tokio::task::JoinSet::new();
    for (cluster, node, socket) in nodes {
        match query::flows(&socket, &request).await {
            Ok(stream) => {
                asked.spawn(read(cluster, node, stream, told.clone()));
            }
            Err(why) => {
                print_problem(&format!("{cluster} node {node}: no answer: {why}"));
                heard = Heard::Some;
            }
        }
    }
    drop(told);
    let mut kept = Vec::new();
    if format == Format::Text && print_line(&flow::header()) == Reader::Gone {
        return Ok(heard);
    }
    while let Some(told) = telling.recv().await {
        match told {
            Ok(flow) if request.follow => {
                if print(&flow, format) == Reader::Gone {
                    return Ok(heard);
                }
            }
            Ok(flow) => kept.push(flow),
            Err(why) => {
                print_problem(&why);
                heard = Heard::Some;
            }
        }
    }
    kept.sort_by_key(|flow: &NodeFlow| flow.flow.unix_ms);
    for flow in &kept {
        if print(flow, format) == Reader::Gone {
            break;
        }
    }
    Ok(heard)
}

async fn read(cluster: ClusterName, node: String, mut flows: Flows, told: mpsc::Sender<Result<NodeFlow, String>>) {
    loop {
        let next = match flows.next().await {
            Ok(Some(flow)) => Ok(NodeFlow { cluster: cluster.clone(), node: node.clone(), flow }),
            Ok(None) => return,
            Err(error) => Err(format!("{cluster} node {node}: the flows ended: {error}")),
        };
        let ended = next.is_err();
        if told.send(next).await.is_err() || ended {
            return;
        }
    }
}

fn print(flow: &NodeFlow, format: Format) -> Reader {
    let text = match format {
        Format::Text => flow::lines(flow),
        Format::Json => serde_json::to_string(flow).expect("a flow has string keys and no failing parts"),
    };
    print_line(&text)
}
