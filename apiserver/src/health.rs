//! `/livez`, `/readyz` and `/metrics` in plain HTTP, for kubelets and scrapers.

use std::fmt::Write as _;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tombolo_core::report::ApiserverStatus;

use crate::metrics::Metrics;
use crate::view::Views;

/// The text format of the metrics.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Faults that `/readyz` names; all are in the status.
const FAULTS: usize = 10;

#[derive(Clone)]
struct Health {
    views: Views,
    metrics: Metrics,
}

/// Serves until cancelled.
pub async fn serve(
    listener: TcpListener,
    views: Views,
    metrics: Metrics,
    cancel: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(show_metrics))
        .with_state(Health { views, metrics });
    axum::serve(listener, router).with_graceful_shutdown(cancel.cancelled_owned()).await
}

async fn readyz(State(health): State<Health>) -> impl IntoResponse {
    let view = health.views.load();
    let code = if view.status.blockers.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, readiness(&view.status))
}

async fn show_metrics(State(health): State<Health>) -> impl IntoResponse {
    match health.metrics.render(&health.views.load()) {
        Ok(text) => ([(CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// What `/readyz` says: `ready`, or a line per blocker; then faults and peers, which block nothing: what was read last is served.
fn readiness(status: &ApiserverStatus) -> String {
    let mut text = String::new();
    if status.blockers.is_empty() {
        text.push_str("ready\n");
    }
    for blocker in &status.blockers {
        let _infallible = writeln!(text, "blocked: {blocker}");
    }
    for fault in status.faults.iter().take(FAULTS) {
        let _infallible = writeln!(text, "fault {}: {}", fault.place, fault.message);
    }
    if let Some(more @ 1..) = status.faults.len().checked_sub(FAULTS) {
        let _infallible = writeln!(text, "faults: {more} more");
    }
    for peer in &status.peers {
        let (name, session) = (&peer.name, format!("{:?}", peer.state.session).to_lowercase());
        let detail = if peer.state.detail.is_empty() { String::new() } else { format!(" ({})", peer.state.detail) };
        let _infallible = writeln!(text, "peer {name}: {session}{detail}");
    }
    text
}
