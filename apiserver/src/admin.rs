//! The admin listener: mTLS, and for `admin-<cluster>` alone.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tombolo_core::id::ClusterName;
use tombolo_store::listen::{Listener, Peer};
use tombolo_wire::admin::apiserver_service;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::{Request, Status};

use crate::view::Views;

/// Serves until cancelled.
pub async fn serve(
    listener: Listener,
    cluster: ClusterName,
    views: Views,
    tasks: TaskTracker,
    cancel: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let allowed = format!("admin-{cluster}");
    let only_admin = move |request: Request<()>| admit(&allowed, request);
    let service = InterceptedService::new(apiserver_service(Arc::new(views)), only_admin);
    let incoming = listener.incoming(&tasks, cancel.clone());
    Server::builder().add_service(service).serve_with_incoming_shutdown(incoming, cancel.cancelled_owned()).await
}

fn admit(allowed: &str, request: Request<()>) -> Result<Request<()>, Status> {
    let peer = request.extensions().get::<Peer>();
    match peer.and_then(|peer| peer.common_name.as_deref()) {
        Some(name) if name == allowed => Ok(request),
        Some(name) => Err(Status::permission_denied(format!("{name} may not do this: {allowed} may"))),
        None => Err(Status::unauthenticated(format!("a client certificate of {allowed} is needed"))),
    }
}
