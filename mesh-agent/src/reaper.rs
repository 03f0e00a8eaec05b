//! Ends the sockets of backends that left, so that their owners notice and dial again.
//!
//! A connected UDP socket would go on sending to a backend that is gone for as long as it lives, so it is ended at once.
//! TCP notices by itself; its connections are ended only when the operator says so, after a grace, and only if the
//! backend did not come back. Whatever fails here is counted and logged, and never fatal.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tombolo_core::id::Millis;
use tombolo_core::model::{BackendKey, Frontend, Protocol};
use tombolo_core::plan::Tables;
use tombolo_ebpf::{DatapathError, Destroyed, Sockets};

/// Frontends with backends that left them.
pub type Pairs = BTreeSet<(Frontend, BackendKey)>;

/// How long a reaper that is busy is left alone.
const BUSY_MS: u64 = 500;

/// Who left, and when their sockets are to be ended. Decides; [`reap`] does.
#[derive(Debug)]
pub struct Leavers {
    close_tcp_after: Option<Duration>,
    since: BTreeMap<(Frontend, BackendKey), Millis>,
    due: BTreeSet<(Millis, (Frontend, BackendKey))>,
    /// The reaper was busy: not before then.
    not_before: Millis,
}

impl Leavers {
    /// Nobody left yet. Without a grace for TCP its connections are left alone.
    pub fn new(close_tcp_after: Option<Duration>) -> Self {
        Self { close_tcp_after, since: BTreeMap::new(), due: BTreeSet::new(), not_before: Millis(0) }
    }

    /// These left by a plan that was carried out now.
    pub fn left(&mut self, pairs: &[(Frontend, BackendKey)], now: Millis) {
        for pair in pairs {
            let grace = match (pair.0.protocol, self.close_tcp_after) {
                (Protocol::Udp, _) => Duration::ZERO,
                (Protocol::Tcp, Some(grace)) => grace,
                (Protocol::Tcp, None) | (Protocol::Sctp, _) => continue,
            };
            let at = now.after(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
            if let Some(before) = self.since.insert(*pair, at) {
                self.due.remove(&(before, *pair));
            }
            self.due.insert((at, *pair));
        }
    }

    /// When the next sockets are to be ended.
    pub fn deadline(&self) -> Option<Millis> {
        self.due.first().map(|(at, _)| self.not_before.max(*at))
    }

    /// Hands over whose time has come and who is not back; a busy reaper is given them later.
    pub fn hand_over(&mut self, now: Millis, tables: &Tables, reap: &mpsc::Sender<Pairs>) {
        if self.deadline().is_none_or(|at| at > now) {
            return;
        }
        let Ok(permit) = reap.try_reserve() else {
            self.not_before = now.after(BUSY_MS);
            return;
        };
        let mut pairs = Pairs::new();
        while let Some((at, pair)) = self.due.pop_first() {
            if at > now {
                self.due.insert((at, pair));
                break;
            }
            self.since.remove(&pair);
            if !is_back(tables, &pair) {
                pairs.insert(pair);
            }
        }
        if !pairs.is_empty() {
            permit.send(pairs);
        }
    }
}

fn is_back(tables: &Tables, (frontend, backend): &(Frontend, BackendKey)) -> bool {
    let installed = tables.installed(frontend);
    installed.is_some_and(|installed| installed.table.backends.binary_search_by_key(backend, |(key, _)| *key).is_ok())
}

/// What the reaper counts.
#[derive(Clone, Default)]
pub struct Metrics {
    /// Sockets ended.
    ended: Counter,
    /// Searches that failed.
    failed: Counter,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("sockets_ended", "Sockets ended because their backend left", metrics.ended.clone());
        registry.register("socket_searches_failed", "Searches for such sockets that failed", metrics.failed.clone());
        metrics
    }
}

/// Ends sockets as they are handed over, until nobody hands over any more. Without a kernel datapath there are none.
pub async fn reap(sockets: Option<Sockets>, mut handed: mpsc::Receiver<Pairs>, metrics: Metrics) {
    while let Some(mut pairs) = handed.recv().await {
        while let Ok(more) = handed.try_recv() {
            pairs.extend(more);
        }
        let Some(sockets) = sockets.clone() else { continue };
        let outcome = tokio::task::spawn_blocking(move || end(&sockets, &pairs)).await;
        match outcome {
            Ok(Ok(done)) => {
                metrics.ended.inc_by(done.destroyed as u64);
                if done.wanted > 0 {
                    tracing::info!(wanted = done.wanted, ended = done.destroyed, "sockets of backends that left");
                }
            }
            Ok(Err(error)) => {
                metrics.failed.inc();
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "sockets of backends that left go on");
            }
            Err(_) => drop(metrics.failed.inc()),
        }
    }
}

/// A connect that was being decided when the table changed is found too, once no program can still hold the old table.
fn end(sockets: &Sockets, pairs: &Pairs) -> Result<Destroyed, DatapathError> {
    tombolo_ebpf::grace_period()?;
    sockets.destroy(pairs)
}

#[cfg(test)]
mod tests {
    use tombolo_core::id::{Addr, ClusterId, MaxClusters, ServiceKey};
    use tombolo_core::model::NoBackend;
    use tombolo_core::tables::{BackendId, Desired, FrontendTable, Limits};

    use super::*;

    fn frontend(protocol: Protocol) -> Frontend {
        Frontend { addr: "10.96.0.10".parse().unwrap(), port: 53, protocol }
    }

    fn backend(n: u8, protocol: Protocol) -> BackendKey {
        let cluster = ClusterId::new(1, MaxClusters::C255).unwrap();
        BackendKey { addr: Addr::from(std::net::Ipv4Addr::new(10, 1, 0, n)), port: 53, protocol, cluster }
    }

    /// Two frontends, of TCP and UDP, and who stands behind both.
    struct Bed {
        tables: Tables,
        leavers: Leavers,
        reap: mpsc::Sender<Pairs>,
        handed: mpsc::Receiver<Pairs>,
    }

    impl Bed {
        fn new(close_tcp_after: Option<Duration>) -> Self {
            let (reap, handed) = mpsc::channel(1);
            let tables = Tables::new(Limits::default(), BackendId(1));
            Self { tables, leavers: Leavers::new(close_tcp_after), reap, handed }
        }

        fn plan(&mut self, backends: &[u8], now: u64) {
            let table = |protocol| FrontendTable {
                backends: backends.iter().map(|n| (backend(*n, protocol), 1)).collect(),
                no_backend: NoBackend::Refuse,
                affinity_seconds: 0,
            };
            let frontends = [Protocol::Tcp, Protocol::Udp].map(|p| (frontend(p), table(p))).to_vec();
            let desired = Desired { service: ServiceKey::new("default", "dns"), frontends };
            let plan = self.tables.plan(&[desired]).unwrap();
            self.leavers.left(&plan.left, Millis(now));
        }

        fn handed(&mut self, now: u64) -> Vec<String> {
            self.leavers.hand_over(Millis(now), &self.tables, &self.reap);
            let pairs = self.handed.try_recv().unwrap_or_default();
            pairs.iter().map(|(_, backend)| backend.to_string()).collect()
        }
    }

    #[test]
    fn udp_goes_at_once_and_tcp_stays() {
        let mut bed = Bed::new(None);
        bed.plan(&[1, 2], 0);
        assert_eq!(bed.leavers.deadline(), None);
        bed.plan(&[2], 10);
        assert_eq!(bed.handed(10), ["10.1.0.1:53/UDP"]);
        assert_eq!((bed.leavers.deadline(), bed.handed(1_000_000)), (None, vec![]));
    }

    #[test]
    fn tcp_has_its_grace_and_who_comes_back_is_spared() {
        let mut bed = Bed::new(Some(Duration::from_secs(30)));
        bed.plan(&[1, 2, 3], 0);
        bed.plan(&[3], 1_000);
        assert_eq!(bed.handed(1_000).len(), 2, "the UDP ones");
        bed.plan(&[2, 3], 2_000);
        assert_eq!(bed.leavers.deadline(), Some(Millis(31_000)));
        assert_eq!(bed.handed(30_999), [""; 0]);
        assert_eq!(bed.handed(31_000), ["10.1.0.1:53/TCP"]);
        assert_eq!(bed.leavers.deadline(), None);
    }

    #[test]
    fn who_leaves_twice_has_a_new_grace() {
        let mut bed = Bed::new(Some(Duration::from_secs(30)));
        bed.plan(&[1, 2], 0);
        bed.plan(&[2], 0);
        bed.handed(0);
        bed.plan(&[1, 2], 10_000);
        bed.plan(&[2], 20_000);
        assert_eq!(bed.handed(20_000), ["10.1.0.1:53/UDP"]);
        assert_eq!(bed.handed(49_999), [""; 0]);
        assert_eq!(bed.handed(50_000), ["10.1.0.1:53/TCP"]);
    }

    #[test]
    fn a_busy_reaper_is_given_them_later() {
        let mut bed = Bed::new(None);
        bed.reap.try_send(Pairs::new()).unwrap();
        bed.plan(&[1, 2], 0);
        bed.plan(&[2], 10);
        bed.leavers.hand_over(Millis(10), &bed.tables, &bed.reap);
        assert_eq!(bed.leavers.deadline(), Some(Millis(10 + BUSY_MS)), "the driver does not spin");
        assert_eq!(bed.handed.try_recv(), Ok(Pairs::new()));
        assert_eq!(bed.handed(10 + BUSY_MS), ["10.1.0.1:53/UDP"]);
    }
}
