//! Cilium's own agent chose these backends in 300 cases; so must policy, admission, merge and select.

use std::collections::BTreeMap;

use tombolo_core::mesh::Mesh;
use tombolo_core::select::{self, Round, Selection, View};
use tombolo_testkit::vectors::{Chosen, MergeFile};

#[test]
fn all_300_cases_choose_what_cilium_chooses() {
    let file = MergeFile::read();
    assert_eq!(file.cases.len(), 300);
    let differences: Vec<_> = file
        .cases
        .iter()
        .filter_map(|case| {
            let (mesh, key) = file.play(case);
            let ours = mesh.select(&key).map_or_else(Chosen::new, |selection| chosen(&mesh, &selection));
            let cilium = file.expected(case);
            (ours != cilium).then_some((case.case, ours, cilium))
        })
        .collect();
    assert!(differences.is_empty(), "case, ours, Cilium's: {differences:#?}");
}

/// Cilium knows no further rounds, so the first one is compared.
fn chosen(mesh: &Mesh, selection: &Selection) -> Chosen {
    let frontend = |f: &select::FrontendSelection| {
        let port =
            selection.spec.ports.iter().find(|p| (p.number, p.protocol) == (f.frontend.port, f.frontend.protocol));
        let port_name = port.map_or("", |p| p.name.as_str());
        let view = View { frontend: f.frontend, port_name, policy: &selection.spec.policy, node: mesh.node() };
        let verdicts = select::evaluate(view, &selection.candidates, Round::Sure);
        let backends = selection.candidates.iter().zip(verdicts).filter(|(_, v)| v.chosen);
        (f.frontend.to_string(), backends.map(|(c, _)| (c.key.to_string(), c.key.cluster.get())).collect())
    };
    selection.frontends.iter().map(frontend).collect::<BTreeMap<_, _>>()
}
