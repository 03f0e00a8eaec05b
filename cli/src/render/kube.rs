//! Clusters in Kubernetes in words, after the manner of `cilium clustermesh`.

use std::fmt::Write as _;

use tombolo_certs::{Severity, rfc3339};
use tombolo_kube::install::Outcome;

use super::{Columns, ago, count, or_dash};
use crate::kube::Put;
use crate::kube::connect::{Checked, Connected, Disconnected, Side};
use crate::kube::disable::Disabled;
use crate::kube::enable::{Enabled, Origin};
use crate::kube::facts::Facts;
use crate::kube::status::{Ending, Peer, Pods, SiteStatus, SitesStatus};
use crate::output::Report;

impl Report for Enabled {
    fn text(&self) -> String {
        let Self { cluster, id, context, authority, .. } = self;
        let profile = format!("{:?}", self.profile).to_lowercase();
        let mut out = format!("✅ {cluster} (id {id}) is enabled in context {context}, profile {profile}\n");
        let from = match &authority.from {
            Origin::Kept => "as before".to_owned(),
            Origin::Made => "made now".to_owned(),
            Origin::Directory(dir) => format!("from {dir}"),
            Origin::Context(other) => format!("shared with context {other}"),
        };
        let _ = writeln!(out, "   🔑 authority {}, {from}", authority.subject);
        for leaf in &self.leaves {
            let until = rfc3339(leaf.not_after);
            let _ = match &leaf.issued {
                Some(why) => writeln!(out, "      {} issued, valid until {until}: {why}", leaf.secret),
                None => writeln!(out, "      {} kept, valid until {until}", leaf.secret),
            };
        }
        out + &objects(&self.objects)
    }
}

impl Report for Disabled {
    fn text(&self) -> String {
        let mut out = format!("✅ context {} is rid of Tombolo\n", self.context);
        match self.nodes {
            Some(nodes) => {
                let _ =
                    writeln!(out, "   the agents took their programs from {}", count(nodes as usize, "node", "nodes"));
            }
            None => out += "   nothing was done on nodes\n",
        }
        out + &objects(&self.objects)
    }
}

impl Report for Checked {
    fn text(&self) -> String {
        let mut out = format!("🔍 {} and {}\n", self.left.cluster, self.right.cluster);
        out += &facts(&self.left);
        out += &facts(&self.right);
        for finding in &self.findings {
            let mark = if finding.severity() == Severity::Error { "❌" } else { "⚠️ " };
            let _ = writeln!(out, "   {mark} {finding}");
        }
        if self.findings.is_empty() {
            out += "   ✅ nothing is in the way\n";
        }
        out
    }

    fn ok(&self) -> bool {
        self.good()
    }
}

impl Report for Connected {
    /// What was found was said before.
    fn text(&self) -> String {
        let errors = self.checked.iter().filter(|checked| !checked.good()).count();
        if errors > 0 {
            let pairs = count(errors, "pair", "pairs");
            return format!("❌ {pairs} cannot be connected, nothing was changed\n");
        }
        if self.dry_run {
            return "✅ nothing was changed: --dry-run\n".into();
        }
        self.sides.iter().map(side).collect()
    }

    fn ok(&self) -> bool {
        self.checked.iter().all(Checked::good)
    }
}

impl Report for Disconnected {
    fn text(&self) -> String {
        self.sides.iter().map(side).collect()
    }
}

fn facts(facts: &Facts) -> String {
    let Facts { cluster, id, context, .. } = facts;
    let mut out = format!("   {cluster} (id {id} of {}), context {context}\n", facts.max);
    let store = match &facts.endpoint {
        Ok(endpoint) => endpoint.shown(),
        Err(_) => "not reachable".into(),
    };
    let _ = writeln!(out, "      store     {store}");
    let list = |ranges: Vec<String>| or_dash(Some(&ranges.join(", ")));
    let _ = writeln!(out, "      pods      {}", list(facts.pods.iter().map(ToString::to_string).collect()));
    let _ = writeln!(out, "      services  {}", list(facts.services.iter().map(ToString::to_string).collect()));
    let _ = writeln!(out, "      nodes     {}", facts.nodes.len());
    let _ = writeln!(out, "      peers     {}", list(facts.peers.keys().map(ToString::to_string).collect()));
    out
}

fn side(side: &Side) -> String {
    let Side { cluster, peer, .. } = side;
    let became: Vec<String> =
        side.objects.iter().map(|p| format!("{} {}", p.object, crate::kube::word(p.outcome))).collect();
    let became = became.join(", ");
    match &side.endpoint {
        Some(endpoint) => format!("✅ {cluster} reads {peer} at {} ({became})\n", endpoint.urls.join(", ")),
        None if side.objects.iter().all(|put| put.outcome == Outcome::Absent) => {
            format!("✅ {cluster} did not read {peer} ({became})\n")
        }
        None => format!("✅ {cluster} no longer reads {peer} ({became})\n"),
    }
}

/// How many objects became what.
fn objects(put: &[Put]) -> String {
    let of = |outcome: Outcome| put.iter().filter(|put| put.outcome == outcome).count();
    let all = [Outcome::Created, Outcome::Changed, Outcome::Removed, Outcome::Unchanged, Outcome::Absent];
    let parts = all.into_iter().filter(|outcome| of(*outcome) > 0);
    let parts: Vec<String> = parts.map(|outcome| format!("{} {}", of(outcome), crate::kube::word(outcome))).collect();
    format!("   📦 {}: {}\n", count(put.len(), "object", "objects"), parts.join(", "))
}

impl Report for SitesStatus {
    fn text(&self) -> String {
        let mut out: String = self.clusters.iter().map(site).collect();
        let unwell = self.clusters.iter().filter(|c| !c.problems.is_empty()).count();
        let all = count(self.clusters.len(), "cluster", "clusters");
        let _ = match unwell {
            0 => writeln!(out, "✅ {all} connected"),
            unwell => writeln!(out, "❌ {unwell} of {all} not connected"),
        };
        out
    }

    fn ok(&self) -> bool {
        self.connected
    }
}

fn site(site: &SiteStatus) -> String {
    let name = match (&site.cluster, site.id) {
        (Some(cluster), Some(id)) => format!("{cluster} (id {id}), context {}", site.context),
        _ => format!("context {}", site.context),
    };
    let mut out = format!("🏝  {name}\n");
    for (what, pods) in [("apiserver", &site.apiserver), ("agents", &site.agents)] {
        out += &pods.as_ref().map_or_else(String::new, |pods| workload(what, pods));
    }
    if let Some(store) = &site.store {
        let _ = writeln!(out, "   ✅ store at {store}");
    }
    if site.cluster.is_some() {
        out += &peers(&site.peers);
    }
    for Ending { secret, until, .. } in site.ending.iter().filter(|ending| !ending.over) {
        let again = format!("tombolo enable --context {} issues it again", site.context);
        let _ = writeln!(out, "   ⚠️  Secret {secret} expires at {until}: {again}");
    }
    for warning in &site.warnings {
        let _ = writeln!(out, "   ⚠️  {warning}");
    }
    if !site.problems.is_empty() {
        let _ = writeln!(out, "   ❌ {}:", count(site.problems.len(), "problem", "problems"));
    }
    for problem in &site.problems {
        let _ = writeln!(out, "      {problem}");
    }
    out + "\n"
}

fn workload(what: &str, pods: &Pods) -> String {
    let Pods { wanted, ready, image } = pods;
    let mark = if ready >= wanted && *wanted > 0 { "✅" } else { "❌" };
    format!("   {mark} {what}: {ready} of {wanted} ready ({image})\n")
}

fn peers(peers: &[Peer]) -> String {
    if peers.is_empty() {
        return "   🔌 no peers: `tombolo connect` makes some\n".into();
    }
    let connected = peers.iter().filter(|peer| peer.connected).count();
    let header = ["PEER", "ID", "SESSION", "SILENT", "SERVICES", "ENDPOINTS", "NODES", "REFUSED", "DETAIL"];
    let mut table = Columns::new(6, header);
    for peer in peers {
        let number = |n: Option<u32>| or_dash(n.map(|n| n.to_string()).as_deref());
        table.row([
            peer.name.clone(),
            number(peer.id),
            peer.session.clone(),
            or_dash(peer.silent_s.map(ago).as_deref()),
            number(peer.services),
            number(peer.backends),
            number(peer.nodes),
            number(peer.refused),
            or_dash(Some(&peer.message)),
        ]);
    }
    let all = count(peers.len(), "peer", "peers");
    format!("   🔌 {all} configured, {connected} connected:\n{}", table.text())
}

#[cfg(test)]
mod tests;
