//! `/livez`, `/readyz` with named blockers, and `/metrics`.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What keeps the agent from being ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// One a line; empty when it is ready.
    pub blockers: Vec<String>,
}

/// What the driver counts.
#[derive(Clone, Default)]
pub struct Metrics {
    /// Plans carried out.
    pub plans: Counter,
    /// Operations in them.
    pub operations: Counter,
    /// Frontends in the maps.
    pub frontends: Gauge,
    /// Backends in the maps, those that wait for a grace period included.
    pub backends: Gauge,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("plans", "Plans carried out", metrics.plans.clone());
        registry.register("plan_operations", "Operations of the plans carried out", metrics.operations.clone());
        registry.register("frontends", "Frontends in the maps", metrics.frontends.clone());
        registry.register("backends", "Backends in the maps", metrics.backends.clone());
        metrics
    }
}

#[derive(Clone)]
struct Shared {
    readiness: Arc<ArcSwap<Readiness>>,
    registry: Arc<Mutex<Registry>>,
}

/// The health endpoints.
pub fn router(readiness: Arc<ArcSwap<Readiness>>, registry: Registry) -> Router {
    let shared = Shared { readiness, registry: Arc::new(Mutex::new(registry)) };
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

async fn metrics(State(shared): State<Shared>) -> (StatusCode, String) {
    let mut text = String::new();
    match encode(&mut text, &shared.registry.lock()) {
        Ok(()) => (StatusCode::OK, text),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, String::new()),
    }
}
