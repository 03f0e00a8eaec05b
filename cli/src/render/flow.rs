//! A flow in words: a line of columns, which are as wide as their usual content, since they are printed one by one.

use tombolo_core::flows::Sampling;
use tombolo_core::report::{Flow, FlowBackend};

use crate::flows::NodeFlow;

const DAY_MS: u64 = 86_400_000;

/// The names of the columns.
pub(crate) fn header() -> String {
    let columns = ["TIME (UTC)", "NODE", "VERDICT", "SERVICE", "FRONTEND", "BACKEND", "CLUSTER", "PROCESS"];
    columns_of(&columns.map(String::from), "CGROUP")
}

/// A flow; before it a line that says what its reader missed, if anything.
pub(crate) fn lines(told: &NodeFlow) -> String {
    let Flow { missed, .. } = told.flow;
    let missed = match missed {
        0 => String::new(),
        n => format!("… {n} flows of node {} left out: this reader is too slow\n", told.node),
    };
    missed + &line(told)
}

fn line(NodeFlow { cluster, node, flow }: &NodeFlow) -> String {
    let dash = || "-".to_string();
    let (backend, of) = flow.backend.as_ref().map_or_else(|| (dash(), dash()), place);
    let process = &flow.process;
    let cells = [
        time(flow.unix_ms),
        format!("{cluster}/{node}"),
        flow.verdict.as_str().into(),
        flow.service.as_ref().map_or_else(dash, ToString::to_string),
        flow.frontend.to_string(),
        backend,
        of,
        format!("{}[{}]", process.command, process.pid),
    ];
    let gone = || format!("(gone, id {})", process.cgroup_id);
    let cgroup = process.cgroup.clone().unwrap_or_else(gone);
    columns_of(&cells, &(cgroup + &sampled(flow.sampling)))
}

fn columns_of(cells: &[String; 8], last: &str) -> String {
    let widths = [12, 10, 14, 26, 22, 22, 12, 22];
    let cells = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}  "));
    cells.collect::<String>() + last
}

/// Its address and port, and its cluster with the node.
fn place(backend: &FlowBackend) -> (String, String) {
    let cluster =
        backend.cluster.as_ref().map_or_else(|| format!("id {}", backend.backend.cluster), ToString::to_string);
    let node = backend.node.as_ref().map(|node| format!("/{node}")).unwrap_or_default();
    (backend.backend.to_string(), cluster + &node)
}

/// What a flow stands for when not all are told.
fn sampled(sampling: Sampling) -> String {
    if sampling == Sampling::ALL { String::new() } else { format!("  (1 in {:.0})", sampling.one_in()) }
}

fn time(unix_ms: u64) -> String {
    let ms = unix_ms % DAY_MS;
    let (seconds, ms) = (ms / 1_000, ms % 1_000);
    format!("{:02}:{:02}:{:02}.{ms:03}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use tombolo_core::id::{ClusterId, ClusterName, MaxClusters, ServiceKey};
    use tombolo_core::model::{BackendKey, Frontend, Protocol};
    use tombolo_core::report::{FlowProcess, FlowVerdict};

    use super::*;

    fn flow(verdict: FlowVerdict, sampling: Sampling, missed: u64) -> NodeFlow {
        let name = |text| ClusterName::new(text).unwrap();
        let cluster = ClusterId::new(2, MaxClusters::C255).unwrap();
        let backend = BackendKey { addr: "10.2.0.5".parse().unwrap(), port: 8080, protocol: Protocol::Tcp, cluster };
        let sent = verdict == FlowVerdict::Connected;
        NodeFlow {
            cluster: name("ne"),
            node: "n1".into(),
            flow: Flow {
                unix_ms: 1_800_000_000_123,
                verdict,
                service: sent.then(|| ServiceKey::new("default", "rebel-base")),
                frontend: Frontend { addr: "10.96.0.10".parse().unwrap(), port: 80, protocol: Protocol::Tcp },
                backend: sent.then(|| FlowBackend { backend, cluster: Some(name("we")), node: Some("w1".into()) }),
                process: FlowProcess {
                    pid: 4711,
                    command: "curl".into(),
                    cgroup_id: 99,
                    cgroup: sent.then(|| "/kubepods/pod1".into()),
                },
                sampling,
                missed,
            },
        }
    }

    #[test]
    fn a_line_each() {
        let flows = [
            flow(FlowVerdict::Connected, Sampling::ALL, 0),
            flow(FlowVerdict::Connected, Sampling::FIRST, 7),
            flow(FlowVerdict::Refused, Sampling::ALL, 0),
        ];
        let text: String = flows.iter().map(|flow| lines(flow) + "\n").collect();
        expect![[r#"
            TIME (UTC)    NODE        VERDICT         SERVICE                     FRONTEND                BACKEND                 CLUSTER       PROCESS                 CGROUP
            08:00:00.123  ne/n1       connected       default/rebel-base          10.96.0.10:80/TCP       10.2.0.5:8080/TCP       we/w1         curl[4711]              /kubepods/pod1
            … 7 flows of node n1 left out: this reader is too slow
            08:00:00.123  ne/n1       connected       default/rebel-base          10.96.0.10:80/TCP       10.2.0.5:8080/TCP       we/w1         curl[4711]              /kubepods/pod1  (1 in 64)
            08:00:00.123  ne/n1       refused         -                           10.96.0.10:80/TCP       -                       -             curl[4711]              (gone, id 99)
        "#]].assert_eq(&(header() + "\n" + &text));
    }
}
