//! Answers the CLI: every question goes to the driver, which answers between two batches.

use tokio::sync::{mpsc, oneshot};
use tombolo_core::id::ServiceKey;
use tombolo_core::report::{AgentStatus, Explanation, ServiceView};
use tombolo_wire::admin::{AgentAdmin, Stopping};

use crate::driver::Question;

/// Hands questions to the driver.
pub struct Admin(pub mpsc::Sender<Question>);

impl Admin {
    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Result<T, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.0.send(question(reply)).await.map_err(|_| Stopping)?;
        answer.await.map_err(|_| Stopping)
    }
}

impl AgentAdmin for Admin {
    async fn status(&self) -> Result<AgentStatus, Stopping> {
        self.ask(Question::Status).await
    }

    async fn services(&self) -> Result<Vec<ServiceView>, Stopping> {
        self.ask(Question::Services).await
    }

    async fn explain(&self, service: &ServiceKey) -> Result<Option<Explanation>, Stopping> {
        self.ask(|reply| Question::Explain(service.clone(), reply)).await
    }
}
