//! The admin protocol: what the CLI asks apiservers and agents, over gRPC (`proto/admin.proto`).
//!
//! Who may connect is decided outside, by the listener: mutual TLS for an apiserver, a socket's mode for an agent.

use std::sync::Arc;

use tombolo_core::id::ServiceKey;
use tombolo_core::report::{AgentStatus, ApiserverStatus, Explanation, Flow, FlowsRequest, ServiceView};
use tonic::codegen::tokio_stream::Stream;

mod client;
mod explanation;
mod flow;
mod server;
mod status;
#[cfg(test)]
mod tests;

pub use client::{AdminError, AgentClient, ApiserverClient, Flows};
pub use server::{AgentService, ApiserverService};

/// What an apiserver answers. Called on the server's task: answer from a value that is at hand.
pub trait ApiserverAdmin: Send + Sync + 'static {
    /// Its status, now.
    fn status(&self) -> ApiserverStatus;
}

/// What an agent answers. One task of the agent owns the answers, so asking is a message, and may find that task gone.
pub trait AgentAdmin: Send + Sync + 'static {
    /// Flows as they are told; it ends after those that are kept, or for a follower when the agent stops.
    type Flows: Stream<Item = Flow> + Send + 'static;

    /// Its status, now.
    fn status(&self) -> impl Future<Output = Result<AgentStatus, Stopping>> + Send;
    /// Every global service with its tables.
    fn services(&self) -> impl Future<Output = Result<Vec<ServiceView>, Stopping>> + Send;
    /// Why one service's tables are what they are; `None` when it is no global service here.
    fn explain(&self, service: &ServiceKey) -> impl Future<Output = Result<Option<Explanation>, Stopping>> + Send;
    /// Decisions of the datapath.
    fn flows(&self, request: FlowsRequest) -> impl Future<Output = Result<Self::Flows, Stopping>> + Send;
}

/// The agent is stopping and answers nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the agent is stopping")]
pub struct Stopping;

/// The apiserver's gRPC service: a tower service for any HTTP/2 server, of any body type.
pub fn apiserver_service<A: ApiserverAdmin>(admin: Arc<A>) -> ApiserverService<A> {
    ApiserverService::new(admin)
}

/// The agent's gRPC service.
pub fn agent_service<A: AgentAdmin>(admin: Arc<A>) -> AgentService<A> {
    AgentService::new(admin)
}
