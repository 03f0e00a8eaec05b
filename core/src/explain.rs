//! Why a service's tables are what they are, from the very values the tables got.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::id::{Millis, ServiceKey};
use crate::merge::Candidate;
use crate::mesh::{Mesh, Stale};
use crate::model::{BackendKey, Frontend, OnStale, Policy};
use crate::plan::Tables;
use crate::report::{BackendExplanation, Explanation, FrontendExplanation, FrontendView, ServiceView, SlotView};
use crate::select::{FrontendSelection, Selection, Verdict};
use crate::tables::Installed;

/// The round of a frontend whose table is empty.
const NOTHING_SERVES: &str = "nothing can serve";

/// Explains one service on this node; `None` when no local Service has that name.
pub fn explain(mesh: &Mesh, tables: &Tables, service: &ServiceKey, now: Millis) -> Option<Explanation> {
    let selection = mesh.select(service)?;
    Some(Explanation {
        service: service.clone(),
        node: mesh.node().clone(),
        cluster: mesh.cluster().clone(),
        policy: selection.spec.policy.clone(),
        frontends: selection.frontends.iter().map(|f| frontend(&selection, f, tables, now)).collect(),
        notes: notes(mesh, service, &selection, now),
    })
}

/// All services with their installed tables, ascending; the counters are left to whoever can read them.
pub fn services(mesh: &Mesh, tables: &Tables) -> Vec<ServiceView> {
    mesh.services()
        .map(|spec| ServiceView {
            service: spec.key.clone(),
            policy: spec.policy.clone(),
            frontends: frontend_views(mesh, tables, &spec.key),
        })
        .collect()
}

fn frontend_views(mesh: &Mesh, tables: &Tables, service: &ServiceKey) -> Vec<FrontendView> {
    let slot_view = |(key, slots): &(BackendKey, u32)| {
        let cluster = mesh.cluster_name(key.cluster)?.clone();
        Some(SlotView { backend: *key, cluster, slots: *slots, connects: None })
    };
    let view = |(frontend, installed): (&Frontend, Installed<'_>)| FrontendView {
        frontend: *frontend,
        switch: installed.switch,
        backends: installed.table.backends.iter().filter_map(slot_view).collect(),
        connects: None,
        refused: None,
    };
    let owned: Vec<FrontendView> = tables.frontends_of(service).map(view).collect();
    if !owned.is_empty() {
        return owned;
    }
    // Adopted tables are nobody's yet.
    let wanted = mesh.desired(service).frontends;
    let adopted = |frontend| Some((frontend, tables.installed(frontend).filter(|i| i.service.is_none())?));
    wanted.iter().filter_map(|(frontend, _)| adopted(frontend)).map(view).collect()
}

fn frontend(selection: &Selection, f: &FrontendSelection, tables: &Tables, now: Millis) -> FrontendExplanation {
    let total = f.slots();
    let desired = selection.table(f);
    let installed = tables.installed(&f.frontend);
    FrontendExplanation {
        frontend: f.frontend,
        round: if total == 0 { NOTHING_SERVES.into() } else { f.round.as_str().into() },
        backends: selection
            .candidates
            .iter()
            .zip(&f.verdicts)
            .map(|(c, verdict)| backend(c, *verdict, total, &selection.spec.policy, now))
            .collect(),
        installed: installed.is_some_and(|i| i.service.is_none_or(|s| *s == selection.spec.key) && *i.table == desired),
    }
}

fn backend(c: &Candidate, verdict: Verdict, total: u64, policy: &Policy, now: Millis) -> BackendExplanation {
    BackendExplanation {
        backend: c.key,
        cluster: c.cluster.clone(),
        state: c.state_under(policy),
        node: c.node.clone(),
        zone: c.zone.clone(),
        doubtful: c.doubtful,
        rule: verdict.rule.as_str().into(),
        share: if total == 0 { 0.0 } else { f64::from(verdict.slots) / total as f64 },
        revision: c.revision,
        age_ms: now.since(c.since),
    }
}

/// What the tables do not show: silent peers, addresses claimed twice, here and elsewhere, and frontends that another
/// Service has.
fn notes(mesh: &Mesh, service: &ServiceKey, selection: &Selection, now: Millis) -> Vec<String> {
    let policy = &selection.spec.policy;
    let stale = mesh.stale(service, now).map(|stale| stale_note(&stale, policy.on_stale));
    let raised = mesh.peers_of(service).filter_map(|(peer, state)| {
        let asked = policy.stale_after_ms.filter(|asked| *asked < state.least_stale_ms)?;
        let (asked, least) = (Seconds(asked), Seconds(state.least_stale_ms));
        Some(format!("stale-after is {least} for {peer}, not {asked}: that is two and a half of its heartbeats"))
    });
    let conflicts = selection.candidates.iter().filter_map(|c| {
        let winner = c.lost_to.as_ref()?;
        Some(format!("conflict: {} is claimed by {} and by {winner}, which has precedence", c.key, c.cluster))
    });
    let taken = selection.taken.iter().map(|(frontend, holder)| {
        format!("frontend {frontend} is also that of {holder}, whose name is lower: it has no table here")
    });
    let elsewhere = mesh
        .listed_elsewhere(service)
        .into_iter()
        .map(|(addr, other, cluster)| format!("address {addr} is also listed by {cluster} for {other}"));
    stale.chain(raised).chain(conflicts).chain(taken).chain(elsewhere).collect()
}

fn stale_note(stale: &Stale<'_>, on_stale: OnStale) -> String {
    let Stale { cluster, silent_ms, stale_after_ms } = *stale;
    let silence = silent_ms.map_or("its heartbeat is gone".into(), |ms| format!("silent for {}", Seconds(ms)));
    let bears = Seconds(stale_after_ms);
    let effect = match on_stale {
        OnStale::Keep => "kept as they are",
        OnStale::LastResort => "a last resort",
        OnStale::Drop => "dropped",
    };
    format!("{cluster} is stale for this service: {silence} (stale after {bears}); its backends are {effect}")
}

/// Milliseconds, printed as seconds with what they need behind the point.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, millis) = (self.0 / 1000, self.0 % 1000);
        let behind = format!("{millis:03}");
        match behind.trim_end_matches('0') {
            "" => write!(f, "{whole} s"),
            behind => write!(f, "{whole}.{behind} s"),
        }
    }
}
