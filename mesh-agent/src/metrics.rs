//! What `/metrics` tells besides plain counters: one moment of the agent, asked for at each scrape.
//!
//! Labels are bounded: services up to `--metrics-services`, the others summed under `_other`; clusters by name; the rest
//! are words of this file. docs/metrics.md says what each is for.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use smol_str::SmolStr;
use tombolo_core::id::ClusterName;
use tombolo_core::model::Policy;
use tombolo_core::own::{PeerSession, PeerState};
use tombolo_core::plan::Counts;
use tombolo_core::tables::Limits;
use tombolo_ebpf::Faults;

use crate::accounts::{ServiceCounts, Services};

/// The services that have no name of their own. No Service is called that: a name has no underscore.
const OTHERS: &str = "_other";

/// One moment of the agent.
#[derive(Clone, Debug)]
pub struct Scraped {
    /// The node, its cluster and its datapath's kind.
    pub who: [(&'static str, SmolStr); 3],
    /// Nothing keeps it from being ready.
    pub ready: bool,
    /// The session with the own store is up.
    pub connected: bool,
    /// Milliseconds since the own apiserver's last heartbeat.
    pub heartbeat_age_ms: Option<u64>,
    /// What the services counted.
    pub services: Services,
    /// How many global services there are.
    pub service_count: usize,
    /// What was sent to each cluster.
    pub clusters: Vec<(ClusterName, u64)>,
    /// What should not happen.
    pub faults: Faults,
    /// The peers.
    pub peers: Vec<(ClusterName, PeerState)>,
    /// What the tables hold.
    pub used: Counts,
    /// What they take.
    pub limits: Limits,
}

/// The last moment that was asked for; nothing before the first.
#[derive(Clone, Default)]
pub struct LastScraped(pub Arc<ArcSwapOption<Scraped>>);

impl fmt::Debug for LastScraped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LastScraped")
    }
}

impl Collector for LastScraped {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        match &*self.0.load() {
            Some(scraped) => scraped.encode(&mut Out(encoder)),
            None => Ok(()),
        }
    }
}

impl Scraped {
    fn encode(&self, out: &mut Out<'_>) -> fmt::Result {
        let who: Vec<(&str, &str)> = self.who.iter().map(|(label, value)| (*label, value.as_str())).collect();
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        let labels: Vec<_> = who.into_iter().chain(version).collect();
        let mut info = out.0.encode_descriptor("info", "This agent: always 1", None, MetricType::Gauge)?;
        ConstGauge::new(1_i64).encode(info.encode_family(&labels)?)?;
        out.gauge("ready", "1 when nothing keeps the agent from being ready", self.ready.into())?;
        out.gauge("store_connected", "1 while the own store is connected", self.connected.into())?;
        if let Some(age) = self.heartbeat_age_ms {
            out.gauge("heartbeat_age_seconds", "Time since the own apiserver's last heartbeat", seconds(age))?;
        }
        self.traffic(out)?;
        self.peers(out)?;
        self.tables(out)
    }

    fn traffic(&self, out: &mut Out<'_>) -> fmt::Result {
        out.gauge("services", "Global services", self.service_count as f64)?;
        let named = self.services.named.iter().map(|(service, counts)| (service.to_string(), *counts));
        let services: Vec<(String, ServiceCounts)> = named.chain([(OTHERS.to_owned(), self.services.others)]).collect();
        let of = |value: fn(&ServiceCounts) -> u64| services.iter().map(move |(name, c)| (name.as_str(), value(c)));
        let help = "Connections and first datagrams that were given a backend";
        out.counters("service_connects", help, "service", of(|c| c.counts.connects))?;
        out.counters("service_refused", "Those that found none", "service", of(|c| c.counts.refused))?;
        let rounds = services.iter().map(|(name, counts)| (name.as_str(), f64::from(counts.round)));
        let help = "How far the selection had to go: 0 sure backends, 1 doubtful ones, 2 none serves";
        out.gauges("service_round", help, "service", rounds)?;
        let clusters = self.clusters.iter().map(|(name, connects)| (name.as_str(), *connects));
        out.counters(
            "cluster_connects",
            "Connections and first datagrams, by the backend's cluster",
            "cluster",
            clusters,
        )?;
        let Faults { broken_tables, reverse_full, unconnected_full, affinity_full, events_lost } = self.faults;
        let faults = [
            ("broken_table", broken_tables),
            ("reverse_full", reverse_full),
            ("unconnected_full", unconnected_full),
            ("affinity_full", affinity_full),
            ("event_lost", events_lost),
        ];
        out.counters("datapath_faults", "What correct tables and large enough maps never let happen", "kind", faults)
    }

    fn peers(&self, out: &mut Out<'_>) -> fmt::Result {
        let of = |value: fn(&PeerState) -> f64| self.peers.iter().map(move |(name, s)| (name.as_str(), value(s)));
        let ready = of(|state| (state.session == PeerSession::Ready).into());
        out.gauges("peer_ready", "1 while the mirror has the peer listed and watched", "cluster", ready)?;
        let stale = of(|state| state.is_stale_for(&Policy::default()).into());
        out.gauges("peer_stale", "1 while the peer is stale for Services that set no time", "cluster", stale)?;
        let silent = of(|state| if state.silent_ms == u64::MAX { f64::INFINITY } else { seconds(state.silent_ms) });
        let help = "The peer's silence when it last crossed a threshold that a Service uses; 0 while it is fresh";
        out.gauges("peer_silent_seconds", help, "cluster", silent)
    }

    fn tables(&self, out: &mut Out<'_>) -> fmt::Result {
        let Counts { frontends, backends, slots, members } = self.used;
        let used = [("services", frontends), ("backends", backends), ("slots", slots), ("members", members)];
        let used = used.map(|(table, n)| (table, f64::from(n)));
        out.gauges("table_entries", "Entries in use, those that wait for a grace period included", "table", used)?;
        let Limits { services, backends, slots, members } = self.limits;
        let limits = [("services", services), ("backends", backends), ("slots", slots), ("members", members)];
        out.gauges("table_limit", "Entries there is room for", "table", limits.map(|(table, n)| (table, f64::from(n))))
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

/// Writes metrics.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(encoder)
    }

    fn gauges<'v>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'v str, f64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        values.into_iter().try_for_each(|(name, value)| one(&mut family, label, name, &ConstGauge::new(value)))
    }

    fn counters<'v>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'v str, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        values.into_iter().try_for_each(|(name, value)| one(&mut family, label, name, &ConstCounter::new(value)))
    }
}

fn one(family: &mut MetricEncoder<'_>, label: &str, name: &str, value: &impl EncodeMetric) -> fmt::Result {
    value.encode(family.encode_family(&[(label, name)])?)
}

#[cfg(test)]
mod tests;
