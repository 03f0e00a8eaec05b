//! The questions, over an established channel.

use tombolo_core::id::ServiceKey;
use tombolo_core::report::{AgentStatus, ApiserverStatus, Explanation, Flow, FlowsRequest, ServiceView};
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::StdError;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::proto::agent_admin_client::AgentAdminClient;
use crate::proto::apiserver_admin_client::ApiserverAdminClient;
use crate::proto::{self, Bad, Wire};

/// A service of the largest size explains itself in far less.
const MAX_ANSWER: usize = 64 << 20;

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The call failed.
    #[error("{code:?}: {message}")]
    Call {
        /// The gRPC code.
        code: tonic::Code,
        /// The server's or the transport's text.
        message: String,
    },
    /// The answer has a value this program does not know.
    #[error("the answer's {0} is missing or not understood: this program may be older than the server")]
    Answer(&'static str),
}

impl From<Status> for AdminError {
    fn from(status: Status) -> Self {
        Self::Call { code: status.code(), message: text(&status) }
    }
}

impl From<Bad> for AdminError {
    fn from(Bad(field): Bad) -> Self {
        Self::Answer(field)
    }
}

/// The status's message, then its causes: tonic's own text of a broken transport says nothing.
fn text(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = if text.is_empty() { more } else { format!("{text}: {more}") };
        }
        cause = error.source();
    }
    text
}

/// Asks an apiserver. The transport is a channel, or in a test the service itself.
#[derive(Clone, Debug)]
pub struct ApiserverClient<T = Channel>(ApiserverAdminClient<T>);

impl<T> ApiserverClient<T>
where
    T: GrpcService<Body, ResponseBody = Body>,
    T::Error: Into<StdError>,
{
    /// A client over an established channel.
    pub fn new(channel: T) -> Self {
        Self(ApiserverAdminClient::new(channel).max_decoding_message_size(MAX_ANSWER))
    }

    /// Its status, now.
    pub async fn status(&mut self) -> Result<ApiserverStatus, AdminError> {
        Ok(Wire::value(self.0.status(proto::StatusRequest {}).await?.into_inner())?)
    }
}

/// Asks an agent. The transport is a channel, or in a test the service itself.
#[derive(Clone, Debug)]
pub struct AgentClient<T = Channel>(AgentAdminClient<T>);

impl<T> AgentClient<T>
where
    T: GrpcService<Body, ResponseBody = Body>,
    T::Error: Into<StdError>,
{
    /// A client over an established channel.
    pub fn new(channel: T) -> Self {
        Self(AgentAdminClient::new(channel).max_decoding_message_size(MAX_ANSWER))
    }

    /// Its status, now.
    pub async fn status(&mut self) -> Result<AgentStatus, AdminError> {
        Ok(Wire::value(self.0.status(proto::StatusRequest {}).await?.into_inner())?)
    }

    /// Every global service with its tables.
    pub async fn services(&mut self) -> Result<Vec<ServiceView>, AdminError> {
        let mut stream = self.0.services(proto::ServicesRequest {}).await?.into_inner();
        let mut views = Vec::new();
        while let Some(view) = stream.message().await? {
            views.push(Wire::value(view)?);
        }
        Ok(views)
    }

    /// Why one service's tables are what they are; `None` when it is no global service there.
    pub async fn explain(&mut self, service: &ServiceKey) -> Result<Option<Explanation>, AdminError> {
        let request = proto::ExplainRequest { service: Some(service.message()) };
        let answer = self.0.explain(request).await?.into_inner();
        Ok(answer.explanation.map(Explanation::value).transpose()?)
    }

    /// Its flows.
    pub async fn flows(&mut self, request: &FlowsRequest) -> Result<Flows, AdminError> {
        Ok(Flows(self.0.flows(request.message()).await?.into_inner()))
    }
}

/// An agent's flows, one after the other.
#[derive(Debug)]
pub struct Flows(Streaming<proto::Flow>);

impl Flows {
    /// The next one; `None` after the last. A follower waits for those to come.
    pub async fn next(&mut self) -> Result<Option<Flow>, AdminError> {
        Ok(self.0.message().await?.map(Flow::value).transpose()?)
    }
}
