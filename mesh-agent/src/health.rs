//! `/livez`, `/readyz` with named blockers, and `/metrics`.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, oneshot};

use crate::driver::Question;
use crate::metrics::LastScraped;

/// What the encoder writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long a scrape waits for the driver; then it has what was told last.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(2);

/// What keeps the agent from being ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// One a line; empty when it is ready.
    pub blockers: Vec<String>,
}

/// What the driver counts.
#[derive(Clone)]
pub struct Metrics {
    /// Plans carried out.
    pub plans: Counter,
    /// Operations in them.
    pub operations: Counter,
    /// Seconds from the dirty services to the plan carried out.
    pub plan_seconds: Histogram,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        // 100 µs to 1.6 s.
        let plan_seconds = Histogram::new(exponential_buckets(0.000_1, 4.0, 8));
        let metrics = Self { plans: Counter::default(), operations: Counter::default(), plan_seconds };
        registry.register("plans", "Plans carried out", metrics.plans.clone());
        registry.register("plan_operations", "Operations of the plans carried out", metrics.operations.clone());
        let help = "From what has changed to a plan carried out";
        registry.register("plan_duration_seconds", help, metrics.plan_seconds.clone());
        metrics
    }
}

#[derive(Clone)]
struct Shared {
    readiness: Arc<ArcSwap<Readiness>>,
    registry: Arc<Mutex<Registry>>,
    ask: mpsc::Sender<Question>,
    last: LastScraped,
    answered: Gauge,
}

/// The health endpoints.
pub fn router(readiness: Arc<ArcSwap<Readiness>>, mut registry: Registry, ask: mpsc::Sender<Question>) -> Router {
    let (last, answered) = (LastScraped::default(), Gauge::default());
    registry.register_collector(Box::new(last.clone()));
    let help = "1 when what the agent's task tells is of this scrape, 0 when it is what it told last";
    registry.register("answered", help, answered.clone());
    let shared = Shared { readiness, registry: Arc::new(Mutex::new(registry)), ask, last, answered };
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(shared)
}

async fn readyz(State(shared): State<Shared>) -> (StatusCode, String) {
    let blockers = shared.readiness.load().blockers.clone();
    if blockers.is_empty() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, blockers.join("\n") + "\n")
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let answered = tokio::time::timeout(SCRAPE_TIMEOUT, scrape(&shared)).await.ok().flatten();
    shared.answered.set(answered.is_some().into());
    let mut text = String::new();
    match encode(&mut text, &shared.registry.lock()) {
        Ok(()) => ([(CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Asks the driver; `None` when it is gone.
async fn scrape(shared: &Shared) -> Option<()> {
    let (reply, scraped) = oneshot::channel();
    shared.ask.send(Question::Scrape(reply)).await.ok()?;
    shared.last.0.store(Some(Arc::new(scraped.await.ok()?)));
    Some(())
}
