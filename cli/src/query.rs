//! Questions to apiservers and agents. Who does not answer is part of the answer.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;
use tombolo_certs::{Role, TlsFiles};
use tombolo_core::id::{ClusterName, ServiceKey};
use tombolo_core::report::{AgentStatus, ApiserverStatus, Explanation, FlowsRequest, ServiceView};
use tombolo_store::{DialError, admin_channel};
use tombolo_wire::admin::{AdminError, AgentClient, ApiserverClient, Flows};

use crate::cluster::Cluster;

/// Connecting and answering together may take this long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// An answer, or why there is none.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) enum Answer<T> {
    /// The answer.
    #[serde(rename = "answer")]
    Got(T),
    /// Why there is none, for a person.
    #[serde(rename = "error")]
    Failed(String),
}

/// One node's answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct FromNode<T> {
    /// The node's cluster.
    pub cluster: ClusterName,
    /// The node.
    pub node: String,
    /// What it said.
    #[serde(flatten)]
    pub said: Answer<T>,
}

/// `services`: each node's tables.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Listed(pub Vec<FromNode<Vec<ServiceView>>>);

/// `explain`: each asked node's explanation.
#[derive(Debug, Serialize)]
pub(crate) struct Explained {
    /// The service.
    pub service: ServiceKey,
    /// Explanations; null where it is no global service.
    pub answers: Vec<FromNode<Option<Explanation>>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum QueryError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error("no answer within {} s", ANSWER_TIMEOUT.as_secs())]
    TimedOut,
}

/// Asks a cluster's apiserver for its status.
pub(crate) async fn apiserver_status(cluster: &Cluster) -> Answer<ApiserverStatus> {
    let asked = in_time(async {
        let tls: TlsFiles = cluster.tls(Role::Admin);
        let channel = admin_channel(&cluster.admin, Some(&tls), Some(&cluster.mesh_name())).await?;
        Ok(ApiserverClient::new(channel).status().await?)
    });
    answer(&cluster.admin, asked.await)
}

/// Asks one agent for its status.
pub(crate) async fn agent_status(socket: &str) -> Answer<AgentStatus> {
    answer(socket, in_time(async { Ok(agent(socket).await?.status().await?) }).await)
}

/// Asks one agent for its services.
pub(crate) async fn services(socket: &str) -> Answer<Vec<ServiceView>> {
    answer(socket, in_time(async { Ok(agent(socket).await?.services().await?) }).await)
}

/// Asks one agent about one service; `None` when it is no global service there.
pub(crate) async fn explain(socket: &str, service: &ServiceKey) -> Answer<Option<Explanation>> {
    answer(socket, in_time(async { Ok(agent(socket).await?.explain(service).await?) }).await)
}

/// Begins to read one agent's flows.
pub(crate) async fn flows(socket: &str, request: &FlowsRequest) -> Result<Flows, String> {
    match answer(socket, in_time(async { Ok(agent(socket).await?.flows(request).await?) }).await) {
        Answer::Got(flows) => Ok(flows),
        Answer::Failed(why) => Err(why),
    }
}

/// Runs one question for each key at the same time, and puts the answers in order.
pub(crate) async fn all<K, T, F>(questions: impl IntoIterator<Item = (K, F)>) -> BTreeMap<K, T>
where
    K: Ord + Send + 'static,
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut asked = JoinSet::new();
    for (key, question) in questions {
        asked.spawn(async move { (key, question.await) });
    }
    asked.join_all().await.into_iter().collect()
}

async fn agent(socket: &str) -> Result<AgentClient, QueryError> {
    Ok(AgentClient::new(admin_channel(socket, None, None).await?))
}

async fn in_time<T>(question: impl Future<Output = Result<T, QueryError>>) -> Result<T, QueryError> {
    tokio::time::timeout(ANSWER_TIMEOUT, question).await.unwrap_or(Err(QueryError::TimedOut))
}

/// The place is in the text exactly once: a dial error has it already.
fn answer<T>(place: &str, result: Result<T, QueryError>) -> Answer<T> {
    match result {
        Ok(value) => Answer::Got(value),
        Err(QueryError::Dial(e)) => Answer::Failed(e.to_string()),
        Err(e) => Answer::Failed(format!("{place}: {e}")),
    }
}
