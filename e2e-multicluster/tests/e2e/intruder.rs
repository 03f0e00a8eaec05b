//! What somebody with a certificate can do to a store, by the same client code that the programs use.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tombolo_certs::{Role, TlsFiles};
use tombolo_e2e::cluster::Cluster;
use tombolo_e2e::netns;
use tombolo_e2e::topology::Place;
use tombolo_store::{
    LEASE_TTL, SessionError, SessionEvent, SessionSpec, StoreConfig, Watch, Writer, WriterSpec, session,
};
use tombolo_wire::etcd_config;

/// How long a store may take to grant or refuse.
const VERDICT: Duration = Duration::from_secs(20);

/// Somewhere with a certificate.
#[derive(Clone, Debug)]
pub(crate) struct Intruder {
    netns: String,
    store: StoreConfig,
}

impl Intruder {
    /// Who runs in `cluster` and uses its file of a peer.
    pub(crate) fn peer(cluster: &Cluster, peer: &str) -> Result<Self> {
        let text = fs::read_to_string(cluster.dir.join("peers").join(peer)).context("read a peer's file")?;
        let store = etcd_config::parse(&text)?.context("a peer's file names endpoints")?.into();
        Ok(Self { netns: cluster.site.control.netns.clone(), store })
    }

    /// The administrator of a cluster's own store.
    pub(crate) fn admin(cluster: &Cluster) -> Self {
        let tls = TlsFiles::of(&cluster.dir.join("tls"), Role::Admin);
        Self::at(&cluster.site.control, cluster, tls)
    }

    /// Who is somewhere and shows these files to a cluster's store.
    pub(crate) fn at(place: &Place, cluster: &Cluster, tls: TlsFiles) -> Self {
        let store = StoreConfig { endpoints: vec![cluster.etcd.url()], tls, host_aliases: BTreeMap::new() };
        Self { netns: place.netns.clone(), store }
    }

    /// Lists a prefix. The inner error is the store's refusal.
    pub(crate) fn read(&self, prefix: &str) -> Result<Result<BTreeMap<String, Bytes>, SessionError>> {
        let watches = vec![Watch { prefix: prefix.to_owned(), canary: None }];
        let spec = SessionSpec { store: self.store.clone(), heartbeat: None, first: None, watches };
        netns::block_on(&self.netns, async move {
            let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
            let mut events = session(spec, &tasks, cancel.clone());
            let mut found = BTreeMap::new();
            let verdict = timeout(VERDICT, async {
                while let Some(event) = events.recv().await {
                    match event {
                        SessionEvent::Delta { upserts, .. } => found.extend(upserts),
                        SessionEvent::Listed { .. } => return Ok(Ok(())),
                        SessionEvent::Lost { reason } => return Ok(Err(reason)),
                        _ => {}
                    }
                }
                bail!("the session ended")
            });
            let verdict = verdict.await.context("the store neither granted nor refused to read")??;
            cancel.cancel();
            Ok(verdict.map(|()| found))
        })
    }

    /// Writes keys, and leaves them there. The inner error is the store's refusal.
    pub(crate) fn write(&self, records: &[(String, Bytes)]) -> Result<Result<(), SessionError>> {
        let spec = WriterSpec {
            store: self.store.clone(),
            scope_of: Arc::new(|_| None),
            prefixes: records.iter().map(|(key, _)| key.clone()).collect(),
            heartbeats: Vec::new(),
            every: Duration::from_secs(5),
            lease_ttl: LEASE_TTL,
        };
        netns::block_on(&self.netns, async move {
            let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
            let writer = Writer::start(spec, &tasks, cancel.clone());
            records.iter().for_each(|(key, value)| writer.put(key, value.clone()));
            let mut status = writer.subscribe();
            let verdict =
                status.wait_for(|s| s.reason.is_some() || (s.connected && s.pending == 0 && s.revision.0 > 0));
            let verdict =
                timeout(VERDICT, verdict).await.context("the store neither granted nor refused to write")??;
            let refused = verdict.reason.clone();
            drop(verdict);
            cancel.cancel();
            Ok(refused.map_or(Ok(()), Err))
        })
    }
}
