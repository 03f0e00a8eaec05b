//! Answers the CLI: every question goes to the driver, which answers between two batches.

use tokio::sync::{mpsc, oneshot};
use tombolo_core::id::ServiceKey;
use tombolo_core::report::{AgentStatus, Explanation, ServiceView};
use tombolo_wire::admin::{AgentAdmin, Unavailable};

use crate::driver::Question;

/// Hands questions to the driver.
pub struct Admin(pub mpsc::Sender<Question>);

impl Admin {
    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Result<T, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.0.send(question(reply)).await.map_err(|_| Unavailable)?;
        answer.await.map_err(|_| Unavailable)
    }
}

impl AgentAdmin for Admin {
    async fn status(&self) -> Result<AgentStatus, Unavailable> {
        self.ask(Question::Status).await
    }

    async fn services(&self) -> Result<Vec<ServiceView>, Unavailable> {
        self.ask(Question::Services).await
    }

    async fn explain(&self, service: &ServiceKey) -> Result<Option<Explanation>, Unavailable> {
        self.ask(|reply| Question::Explain(service.clone(), reply)).await
    }
}
