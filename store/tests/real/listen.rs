//! Listeners and admin channels: who is on the other end.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::os::unix::fs::PermissionsExt;
use std::task::{Context, Poll};

use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tombolo_certs::TlsFiles;
use tombolo_store::admin_channel;
use tombolo_store::dial::{CertificateFault, DialCause};
use tombolo_store::listen::{ListenAddr, ListenError, Listener, Peer};
use tonic::body::Body;
use tonic::transport::{Channel, Server};
use tower_service::Service;

use crate::support::Pki;

/// Answers every call with the caller's CN as the status message.
#[derive(Clone)]
struct WhoAmI;

impl Service<http::Request<Body>> for WhoAmI {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer>().cloned();
        let name = peer.and_then(|p| p.common_name).unwrap_or_else(|| "nobody".into());
        ready(Ok(tonic::Status::unauthenticated(name).into_http()))
    }
}

async fn serve(addr: &ListenAddr, tls: Option<TlsFiles>) -> (Option<u16>, DropGuard) {
    let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
    let listener = Listener::bind(addr, tls).await.unwrap();
    let port = listener.local_addr().map(|a| a.port());
    let incoming = listener.incoming(&tasks, cancel.clone());
    let stopped = cancel.clone();
    tasks.spawn(async move {
        Server::builder().serve_with_incoming_shutdown(WhoAmI, incoming, stopped.cancelled()).await.unwrap();
    });
    (port, cancel.drop_guard())
}

async fn ask(mut channel: Channel) -> String {
    let request = http::Request::post("http://x/test.WhoAmI/Who").body(Body::empty()).unwrap();
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await.unwrap();
    let answer = channel.call(request).await.unwrap();
    answer.headers()["grpc-message"].to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn mtls_over_tcp_and_unix_tells_the_name() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path());
    let admin = pki.files("admin");
    let (port, _stop) = serve(&"127.0.0.1:0".parse().unwrap(), Some(pki.files("server"))).await;
    let url = format!("https://127.0.0.1:{}", port.unwrap());
    assert_eq!(ask(admin_channel(&url, Some(&admin), None).await.unwrap()).await, "admin-we");

    let socket = format!("unix:{}", dir.path().join("admin.sock").display());
    let (_, _stop) = serve(&socket.parse().unwrap(), Some(pki.files("server"))).await;
    let named = admin_channel(&socket, Some(&admin), Some("we.mesh.cilium.io")).await.unwrap();
    assert_eq!(ask(named).await, "admin-we");

    let unnamed = admin_channel(&socket, Some(&admin), None).await.unwrap_err();
    let expected = CertificateFault::OtherName { expected: "localhost".into() };
    assert_eq!(unnamed.cause, DialCause::TheirCertificate(expected));
    let elsewhere = tempfile::tempdir().unwrap();
    let mut stranger = Pki::new(elsewhere.path()).files("admin");
    stranger.ca = admin.ca;
    let refused = admin_channel(&url, Some(&stranger), None).await.unwrap_err();
    assert_eq!(refused.cause, DialCause::OurCertificate(CertificateFault::OtherCa));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_socket_is_the_owners_alone_and_replaces_an_abandoned_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let addr = ListenAddr::Unix(path.clone());
    let (_, _stop) = serve(&addr, None).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(ask(admin_channel(&addr.to_string(), None, None).await.unwrap()).await, "nobody");
    assert!(matches!(Listener::bind(&addr, None).await, Err(ListenError::Bind { .. })), "it is in use");
    assert!(matches!(Listener::bind(&"127.0.0.1:0".parse().unwrap(), None).await, Err(ListenError::NoTls(_))));
}
