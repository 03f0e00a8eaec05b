//! Answers the CLI: every question goes to the driver, which answers between two batches; flows have a log of their own.

use tokio::sync::{mpsc, oneshot};
use tombolo_core::id::ServiceKey;
use tombolo_core::report::{AgentStatus, Explanation, FlowsRequest, ServiceView};
use tombolo_wire::admin::{AgentAdmin, Stopping};

use crate::driver::Question;
use crate::flows::{FlowLog, FlowStream};

/// Hands questions to the driver; flows it reads itself.
pub struct Admin {
    /// Where the driver takes questions.
    pub ask: mpsc::Sender<Question>,
    /// The last flows.
    pub flows: FlowLog,
}

impl Admin {
    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Result<T, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.ask.send(question(reply)).await.map_err(|_| Stopping)?;
        answer.await.map_err(|_| Stopping)
    }
}

impl AgentAdmin for Admin {
    type Flows = FlowStream;

    async fn status(&self) -> Result<AgentStatus, Stopping> {
        self.ask(Question::Status).await
    }

    async fn services(&self) -> Result<Vec<ServiceView>, Stopping> {
        self.ask(Question::Services).await
    }

    async fn explain(&self, service: &ServiceKey) -> Result<Option<Explanation>, Stopping> {
        self.ask(|reply| Question::Explain(service.clone(), reply)).await
    }

    async fn flows(&self, request: FlowsRequest) -> Result<FlowStream, Stopping> {
        Ok(self.flows.read(&request))
    }
}
