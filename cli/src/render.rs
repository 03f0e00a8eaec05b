//! Reports in words.

mod certs;
mod connect;
mod explain;
pub(crate) mod flow;
mod kube;
mod services;
mod status;

use comfy_table::{Table, presets};
use tombolo_core::model::{Affinity, InternalTrafficPolicy, NoBackend, OnStale, Policy, Reach};

/// A table without lines: a header, rows, columns two spaces apart, every line indented.
struct Columns {
    table: Table,
    indent: usize,
}

impl Columns {
    fn new<const N: usize>(indent: usize, header: [&str; N]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(header.to_vec());
        Self { table, indent }
    }

    fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.table.add_row(Vec::from(cells));
    }

    fn text(mut self) -> String {
        for column in self.table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let indent = " ".repeat(self.indent);
        self.table.lines().map(|line| format!("{indent}{}\n", line.trim_end())).collect()
    }
}

/// A duration in its two largest units.
fn ago(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// A number with its noun.
fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// What is absent.
fn or_dash(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or("-").into()
}

/// A policy, what is default left out.
fn policy(policy: &Policy) -> String {
    let mut words: Vec<String> = vec![
        match policy.reach {
            Reach::Cluster => "this cluster only",
            Reach::Import => "global, not shared",
            Reach::Mesh => "global",
        }
        .into(),
    ];
    match policy.affinity {
        Affinity::None => {}
        Affinity::Local => words.push("affinity local".into()),
        Affinity::Remote => words.push("affinity remote".into()),
    }
    if policy.internal_traffic_policy == InternalTrafficPolicy::Local {
        words.push("internalTrafficPolicy Local".into());
    }
    if policy.no_backend == NoBackend::Pass {
        words.push("no backend: pass".into());
    }
    match policy.on_stale {
        OnStale::LastResort => {}
        OnStale::Keep => words.push("on stale: keep".into()),
        OnStale::Drop => words.push("on stale: drop".into()),
    }
    words.extend(policy.stale_after_ms.map(|ms| format!("stale after {}", ago(ms / 1000))));
    if policy.publish_not_ready {
        words.push("not ready counts as ready".into());
    }
    words.extend(policy.client_ip_seconds.map(|seconds| format!("ClientIP for {}", ago(seconds.into()))));
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        assert_eq!([0, 59, 60, 3599, 3600, 90_061].map(ago), ["0s", "59s", "1m0s", "59m59s", "1h0m", "1d1h"]);
    }
}
