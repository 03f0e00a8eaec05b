//! The admin protocol: what the CLI asks apiservers and agents, over gRPC (`proto/admin.proto`).
//!
//! Who may connect is decided outside, by the listener: mutual TLS for an apiserver, a socket's mode for an agent.

use std::sync::Arc;

use tombolo_core::id::ServiceKey;
use tombolo_core::report::{AgentStatus, ApiserverStatus, Explanation, ServiceView};

mod client;
mod explanation;
mod server;
mod status;
#[cfg(test)]
mod tests;

pub use client::{AdminError, AgentClient, ApiserverClient};
pub use server::{AgentService, ApiserverService};

/// What an apiserver answers. Called on the server's task: answer from a value that is at hand.
pub trait ApiserverAdmin: Send + Sync + 'static {
    /// Its status, now.
    fn status(&self) -> ApiserverStatus;
}

/// What an agent answers. Called on the server's task: answer from a value that is at hand.
pub trait AgentAdmin: Send + Sync + 'static {
    /// Its status, now.
    fn status(&self) -> AgentStatus;
    /// Every global service with its tables.
    fn services(&self) -> Vec<ServiceView>;
    /// Why one service's tables are what they are; `None` when it is no global service here.
    fn explain(&self, service: &ServiceKey) -> Option<Explanation>;
}

/// The apiserver's gRPC service: a tower service for any HTTP/2 server, of any body type.
pub fn apiserver_service<A: ApiserverAdmin>(admin: Arc<A>) -> ApiserverService<A> {
    ApiserverService::new(admin)
}

/// The agent's gRPC service.
pub fn agent_service<A: AgentAdmin>(admin: Arc<A>) -> AgentService<A> {
    AgentService::new(admin)
}
