//! The writer's IO: the session on its own prefixes, and the planner's work on the same connection.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, LeaseTimeToLiveOptions, PutOptions, Txn, TxnOp};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::timeout;
use tonic::Code;

use super::leases::Group;
use super::work::{Done, Op, Work};
use super::{Shared, WriterStatus};
use crate::clock;
use crate::session::SessionError;
use crate::session::connection::explain;
use crate::session::driver::Driver;
use crate::session::fsm::{CALL_TIMEOUT_MS, Command};

type Answer = Result<Done, SessionError>;

/// A writer's whole life.
pub(super) async fn run(shared: Arc<Shared>, mut driver: Driver, ttl_s: i64) {
    let mut works: FuturesUnordered<BoxFuture<'static, Answer>> = FuturesUnordered::new();
    loop {
        if let Some(client) = driver.client() {
            while let Some(work) = shared.planner.lock().next(clock::now(), clock::unix_ms()) {
                works.push(Box::pin(carry_out(client.clone(), work, ttl_s)));
            }
        }
        let deadline = shared.publish();
        tokio::select! {
            biased;
            Some(answer) = works.next() => match answer {
                Ok(done) => shared.planner.lock().done(done, clock::now()),
                Err(reason) => driver.fail(reason),
            },
            output = driver.next() => {
                if matches!(output, Command::Emit(crate::session::SessionEvent::Lost { .. })) {
                    works.clear();
                }
                shared.planner.lock().hear(output, clock::now());
            }
            () = shared.wake.notified() => {}
            () = clock::sleep_until(deadline) => {}
        }
    }
}

impl Shared {
    /// Tells watchers where the writer stands; returns the planner's deadline.
    fn publish(&self) -> Option<tombolo_core::id::Millis> {
        // The planner is let go first: a reader of the status may ask the writer while it holds the status.
        let (status, deadline): (WriterStatus, _) = {
            let planner = self.planner.lock();
            (planner.status(), planner.deadline())
        };
        self.status.send_if_modified(|old| {
            let changed = *old != status;
            *old = status;
            changed
        });
        deadline
    }
}

async fn carry_out(client: Client, work: Work, ttl_s: i64) -> Answer {
    let answer = async {
        match work {
            Work::Txn(ops) => write(client, ops).await,
            Work::Grant(group) => grant(client, group, ttl_s).await,
            Work::Renew(id) => renew(client, id).await,
        }
    };
    timeout(Duration::from_millis(CALL_TIMEOUT_MS), answer).await.unwrap_or(Err(SessionError::TimedOut))
}

async fn write(client: Client, ops: Vec<Op>) -> Answer {
    let ops: Vec<TxnOp> = ops.into_iter().map(txn_op).collect();
    match client.kv_client().txn(Txn::new().and_then(ops)).await {
        Ok(response) => {
            let header = response.header().ok_or_else(|| SessionError::Request("no header".into()))?;
            Ok(Done::Written { revision: header.revision() })
        }
        Err(etcd_client::Error::GRpcStatus(status)) if status.code() == Code::NotFound => Ok(Done::LeaseGone),
        Err(etcd_client::Error::GRpcStatus(status)) if is_rejection(&status) => {
            Ok(Done::Rejected { reason: status.message().into() })
        }
        Err(error) => Err(explain(&error, "write")),
    }
}

/// etcd answers "request is too large" and "too many operations in txn request" as InvalidArgument, gRPC's own limit
/// as ResourceExhausted. "revision of auth store is old" is InvalidArgument too, and passes.
fn is_rejection(status: &tonic::Status) -> bool {
    let text = status.message();
    match status.code() {
        Code::InvalidArgument => !text.contains("auth"),
        Code::ResourceExhausted => text.contains("larger than max"),
        _ => false,
    }
}

fn txn_op(op: Op) -> TxnOp {
    match op {
        Op::Put { key, value, lease } => {
            TxnOp::put(key.as_bytes(), Vec::from(value), Some(PutOptions::new().with_lease(lease)))
        }
        Op::Delete { key } => TxnOp::delete(key.as_bytes(), None),
    }
}

async fn grant(client: Client, group: Group, ttl_s: i64) -> Answer {
    let granted = client.lease_client().grant(ttl_s, None).await.map_err(|e| explain(&e, "lease grant"))?;
    Ok(Done::Granted { id: granted.id(), group, ttl_s: granted.ttl() })
}

/// Renews, then asks for the whole time: a lease taken over from an earlier writer may have another one.
async fn renew(client: Client, id: i64) -> Answer {
    let mut leases = client.lease_client();
    match leases.keep_alive(id).await {
        Ok(_) => {}
        Err(etcd_client::Error::LeaseKeepAliveError(_)) => return Ok(Done::Renewed { id, ttl_s: None }),
        Err(error) => return Err(explain(&error, "lease keep-alive")),
    }
    let asked = leases.time_to_live(id, Some(LeaseTimeToLiveOptions::new())).await;
    let ttl = asked.map_err(|e| explain(&e, "lease time to live"))?;
    Ok(Done::Renewed { id, ttl_s: (ttl.ttl() > 0).then(|| ttl.granted_ttl()) })
}
