//! The admin protocol: what the CLI asks apiservers and agents, over gRPC.

use std::sync::Arc;

use tombolo_core::id::ServiceKey;
use tombolo_core::report::{AgentStatus, ApiserverStatus, Explanation, ServiceView};

/// What an apiserver answers.
pub trait ApiserverAdmin: Send + Sync + 'static {
    /// Its status, now.
    fn status(&self) -> ApiserverStatus;
}

/// What an agent answers.
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
    ApiserverService { _admin: admin }
}

/// The agent's gRPC service.
pub fn agent_service<A: AgentAdmin>(admin: Arc<A>) -> AgentService<A> {
    AgentService { _admin: admin }
}

/// See [`apiserver_service`]. Implements `tower::Service<http::Request<B>>` and `tonic::server::NamedService`.
pub struct ApiserverService<A> {
    _admin: Arc<A>,
}

/// See [`agent_service`]. Implements `tower::Service<http::Request<B>>` and `tonic::server::NamedService`.
pub struct AgentService<A> {
    _admin: Arc<A>,
}

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The call failed.
    #[error("{code}: {message}")]
    Call {
        /// The gRPC code's name.
        code: String,
        /// The server's or the transport's text.
        message: String,
    },
    /// The answer has a value this program does not know; is it older than the server?
    #[error("the answer's {0} is not understood: this program may be older than the server")]
    Answer(&'static str),
}

/// Asks an apiserver.
#[derive(Clone, Debug)]
pub struct ApiserverClient {
    _channel: tonic::transport::Channel,
}

impl ApiserverClient {
    /// A client over an established channel.
    pub fn new(channel: tonic::transport::Channel) -> Self {
        Self { _channel: channel }
    }

    /// Its status, now.
    pub async fn status(&mut self) -> Result<ApiserverStatus, AdminError> {
        unimplemented!()
    }
}

/// Asks an agent.
#[derive(Clone, Debug)]
pub struct AgentClient {
    _channel: tonic::transport::Channel,
}

impl AgentClient {
    /// A client over an established channel.
    pub fn new(channel: tonic::transport::Channel) -> Self {
        Self { _channel: channel }
    }

    /// Its status, now.
    pub async fn status(&mut self) -> Result<AgentStatus, AdminError> {
        unimplemented!()
    }

    /// Every global service with its tables.
    pub async fn services(&mut self) -> Result<Vec<ServiceView>, AdminError> {
        unimplemented!()
    }

    /// Why one service's tables are what they are; `None` when it is no global service there.
    pub async fn explain(&mut self, _service: &ServiceKey) -> Result<Option<Explanation>, AdminError> {
        unimplemented!()
    }
}
