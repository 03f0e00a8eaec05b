//! The baseline: one put into one etcd, seen by one watcher.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tombolo_certs::{Role, TlsFiles};
use tombolo_e2e::mesh::Mesh;
use tombolo_e2e::netns;
use tombolo_store::{LEASE_TTL, SessionEvent, SessionSpec, StoreConfig, Watch, Writer, WriterSpec, session};

/// A key that nobody else reads.
const KEY: &str = "bench/hop";

/// How long one put may take.
const SOON: Duration = Duration::from_secs(10);

/// Milliseconds from a put until the watcher has it, one after the other.
pub(crate) fn measure(mesh: &mut Mesh, puts: usize) -> Result<Vec<f64>> {
    let ne = mesh.cluster("ne");
    let tls = TlsFiles::of(&ne.dir.join("tls"), Role::Admin);
    let store = StoreConfig { endpoints: vec![ne.etcd.url()], tls, host_aliases: BTreeMap::new() };
    netns::block_on(&ne.site.control.netns, async move {
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let watches = vec![Watch { prefix: KEY.to_owned(), canary: None }];
        let reader = SessionSpec { store: store.clone(), heartbeat: None, first: None, watches };
        let mut events = session(reader, &tasks, cancel.clone());
        let writer = Writer::start(
            WriterSpec {
                store,
                scope_of: Arc::new(|_| None),
                prefixes: vec![KEY.to_owned()],
                heartbeats: Vec::new(),
                every: Duration::from_secs(5),
                lease_ttl: LEASE_TTL,
            },
            &tasks,
            cancel.clone(),
        );
        let mut samples = Vec::with_capacity(puts);
        // The first connects and grants a lease.
        for n in 0..=puts {
            let value = Bytes::from(n.to_string());
            let begun = Instant::now();
            writer.put(KEY, value.clone());
            let seen = async {
                loop {
                    match events.recv().await.context("the session ended")? {
                        SessionEvent::Delta { upserts, .. } if upserts.iter().any(|(_, v)| *v == value) => {
                            return anyhow::Ok(begun.elapsed());
                        }
                        _ => {}
                    }
                }
            };
            let took = timeout(SOON, seen).await.context("a put was not seen")??;
            if n > 0 {
                samples.push(took.as_secs_f64() * 1000.0);
            }
        }
        cancel.cancel();
        Ok(samples)
    })
}
