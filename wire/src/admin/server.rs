//! The traits as gRPC services.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::vec;

use tombolo_core::report::{Flow, FlowsRequest};
use tonic::codegen::http::{Request as HttpRequest, Response as HttpResponse};
use tonic::codegen::tokio_stream::adapters::Map;
use tonic::codegen::tokio_stream::{self, StreamExt as _};
use tonic::codegen::{Body, BoxFuture, Service, StdError};
use tonic::server::NamedService;
use tonic::{Request, Response, Status};

use super::{AgentAdmin, ApiserverAdmin, Stopping};
use crate::proto::agent_admin_server::{AgentAdmin as AgentRpc, AgentAdminServer};
use crate::proto::apiserver_admin_server::{ApiserverAdmin as ApiserverRpc, ApiserverAdminServer};
use crate::proto::{self, Wire, messages, must};

/// See [`apiserver_service`](super::apiserver_service). A `tower_service::Service` over HTTP requests.
#[derive(Debug)]
pub struct ApiserverService<A>(ApiserverAdminServer<Answers<A>>);

/// See [`agent_service`](super::agent_service). A `tower_service::Service` over HTTP requests.
#[derive(Debug)]
pub struct AgentService<A>(AgentAdminServer<Answers<A>>);

/// Implements the generated traits, whose types no user of this crate sees.
#[derive(Debug)]
struct Answers<A>(Arc<A>);

/// Flows as the generated code wants them.
type FlowMessages<S> = Map<S, fn(Flow) -> Result<proto::Flow, Status>>;

macro_rules! public_service {
    ($name:ident, $server:ident, $admin:ident) => {
        impl<A: $admin> $name<A> {
            pub(super) fn new(admin: Arc<A>) -> Self {
                Self($server::new(Answers(admin)))
            }
        }

        impl<A> Clone for $name<A> {
            fn clone(&self) -> Self {
                Self(self.0.clone())
            }
        }

        impl<A: $admin, B> Service<HttpRequest<B>> for $name<A>
        where
            B: Body + Send + 'static,
            B::Error: Into<StdError> + Send + 'static,
        {
            type Response = HttpResponse<tonic::body::Body>;
            type Error = Infallible;
            type Future = BoxFuture<Self::Response, Infallible>;

            fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Service::<HttpRequest<B>>::poll_ready(&mut self.0, cx)
            }

            fn call(&mut self, request: HttpRequest<B>) -> Self::Future {
                self.0.call(request)
            }
        }

        impl<A> NamedService for $name<A> {
            const NAME: &'static str = $server::<Answers<A>>::NAME;
        }
    };
}

public_service!(ApiserverService, ApiserverAdminServer, ApiserverAdmin);
public_service!(AgentService, AgentAdminServer, AgentAdmin);

#[tonic::async_trait]
impl<A: ApiserverAdmin> ApiserverRpc for Answers<A> {
    async fn status(
        &self,
        _request: Request<proto::StatusRequest>,
    ) -> Result<Response<proto::ApiserverStatus>, Status> {
        Ok(Response::new(self.0.status().message()))
    }
}

#[tonic::async_trait]
impl<A: AgentAdmin> AgentRpc for Answers<A> {
    async fn status(&self, _request: Request<proto::StatusRequest>) -> Result<Response<proto::AgentStatus>, Status> {
        Ok(Response::new(self.0.status().await.map_err(stopping)?.message()))
    }

    type ServicesStream = tokio_stream::Iter<vec::IntoIter<Result<proto::ServiceView, Status>>>;

    async fn services(
        &self,
        _request: Request<proto::ServicesRequest>,
    ) -> Result<Response<Self::ServicesStream>, Status> {
        let views: Vec<proto::ServiceView> = messages(&self.0.services().await.map_err(stopping)?);
        Ok(Response::new(tokio_stream::iter(views.into_iter().map(Ok).collect::<Vec<_>>())))
    }

    async fn explain(
        &self,
        request: Request<proto::ExplainRequest>,
    ) -> Result<Response<proto::ExplainResponse>, Status> {
        let service =
            must(request.into_inner().service, "service").map_err(|bad| Status::invalid_argument(bad.to_string()))?;
        let explanation = self.0.explain(&service).await.map_err(stopping)?.as_ref().map(Wire::message);
        Ok(Response::new(proto::ExplainResponse { explanation }))
    }

    type FlowsStream = FlowMessages<A::Flows>;

    async fn flows(&self, request: Request<proto::FlowsRequest>) -> Result<Response<Self::FlowsStream>, Status> {
        let request =
            FlowsRequest::value(request.into_inner()).map_err(|bad| Status::invalid_argument(bad.to_string()))?;
        let flows = self.0.flows(request).await.map_err(stopping)?;
        Ok(Response::new(flows.map(|flow| Ok(flow.message()))))
    }
}

fn stopping(error: Stopping) -> Status {
    Status::unavailable(error.to_string())
}
