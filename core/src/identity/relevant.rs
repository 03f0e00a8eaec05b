//! Which keys of labels are part of an identity: Cilium's default filter.
//!
//! What changes with every rollout or Pod (hashes, ordinals) must not, or each Pod would have an identity of its own.

/// Beginnings that count although a rule below would leave them out.
const INCLUDED: [&str; 4] = [
    "io.kubernetes.pod.namespace",
    "io.cilium.k8s.namespace.labels",
    "app.kubernetes.io",
    "io.cilium.k8s.policy.cluster",
];

/// Beginnings that do not count.
const IGNORED: [&str; 12] = [
    "io.kubernetes",
    "kubernetes.io",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/controller-uid",
    "k8s.io",
    "pod-template-generation",
    "pod-template-hash",
    "controller-revision-hash",
    "controller-uid",
    "etcd_node",
];

/// A beginning of which the rule reaches to the key's end.
const ANNOTATION: &str = "annotation";
/// Does not count wherever it stands; the rule reaches to its last end.
const BETA: &str = "beta.kubernetes.io";

/// Whether a label of this key is part of an identity: no rule leaves it out, or one that includes it reaches further
/// than the shortest that leaves it out.
///
/// Source: Cilium `pkg/labelsfilter/filter.go` and the documentation's list "Limiting Identity-Relevant Labels".
pub fn is_relevant(key: &str) -> bool {
    let reach = |rule: &&str| key.starts_with(*rule).then_some(rule.len());
    let included = INCLUDED.iter().filter_map(reach).max().unwrap_or(0);
    let annotation = key.starts_with(ANNOTATION).then_some(key.len());
    let beta = key.rfind(BETA).map(|at| at + BETA.len());
    let ignored = IGNORED.iter().filter_map(reach).chain(annotation).chain(beta).min();
    ignored.is_none_or(|ignored| included > ignored)
}

#[cfg(test)]
mod tests {
    use super::is_relevant;

    #[test]
    fn as_cilium_filters_by_default() {
        let relevant = [
            "app",
            "app.kubernetes.io/name",
            "io.kubernetes.pod.namespace",
            "io.cilium.k8s.policy.cluster",
            "io.cilium.k8s.policy.serviceaccount",
            "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name",
            "io.cilium.k8s.namespace.labels.team",
            "topology.kubernetes.io/zone",
            "statefulset.kubernetes.io/other",
            "my-pod-template-hash",
            "batch.kubernetes.io/job-name",
            "x.k8s.io/y",
        ];
        let not = [
            "io.kubernetes.container.name",
            "kubernetes.io/arch",
            "statefulset.kubernetes.io/pod-name",
            "apps.kubernetes.io/pod-index",
            "batch.kubernetes.io/job-completion-index",
            "batch.kubernetes.io/controller-uid",
            "beta.kubernetes.io/os",
            "failure-domain.beta.kubernetes.io/zone",
            "io.cilium.k8s.namespace.labels.beta.kubernetes.io/os",
            "k8s.io/x",
            "pod-template-generation",
            "pod-template-hash",
            "controller-revision-hash",
            "controller-uid",
            "annotation.foo",
            "annotations",
            "etcd_node",
        ];
        for key in relevant {
            assert!(is_relevant(key), "{key}");
        }
        for key in not {
            assert!(!is_relevant(key), "{key}");
        }
    }
}
