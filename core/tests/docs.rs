//! The page that explains the rules names every one of them.

use tombolo_core::{admit, select};

#[test]
fn every_rule_is_explained() {
    let page = include_str!("../../docs/explain.md");
    let names =
        select::Rule::ALL.iter().map(|rule| rule.as_str()).chain(admit::Rule::ALL.iter().map(|rule| rule.name()));
    let missing: Vec<_> = names.filter(|name| !page.contains(&format!("| `{name}` |"))).collect();
    assert_eq!(missing, Vec::<&str>::new(), "docs/explain.md lacks these rules");
}
