use expect_test::expect;
use serde_json::json;

use super::*;

#[test]
fn a_transition_time_stays_while_the_status_does() {
    let at = |status, reason, ms| condition(CONNECTED, (status, reason), "m", Some(1), ms);
    let mut conditions = Vec::new();
    let mut told = Vec::new();
    for new in [
        at(ConditionStatus::False, "Connecting", 1_000),
        at(ConditionStatus::False, "Lost", 2_000),
        at(ConditionStatus::True, "Ready", 3_999),
        at(ConditionStatus::True, "Ready", 5_000),
    ] {
        set_condition(&mut conditions, new);
        let [one] = conditions.as_slice() else { panic!("{conditions:?}") };
        told.push(format!("{} {} {}", one.status, one.reason, one.last_transition_time.0));
    }
    expect![[r#"
        False Connecting 1970-01-01T00:00:01Z
        False Lost 1970-01-01T00:00:01Z
        True Ready 1970-01-01T00:00:03Z
        True Ready 1970-01-01T00:00:03Z"#]]
    .assert_eq(&told.join("\n"));
}

#[test]
fn conditions_of_other_types_are_left_alone() {
    let mut conditions = vec![condition("Foreign", (ConditionStatus::True, "Said"), "", None, 0)];
    set_condition(&mut conditions, condition(CONNECTED, (ConditionStatus::True, "Ready"), "", None, 0));
    let types: Vec<&str> = conditions.iter().map(|c| c.type_.as_str()).collect();
    assert_eq!(types, ["Foreign", CONNECTED]);
}

/// What people write reads as what they mean, and is written back without what they did not say.
#[test]
fn objects_are_as_people_write_them() {
    let rows = [
        json!({ "endpoints": ["https://ne:2379"], "secretName": "tombolo-peer-ne" }),
        json!({
            "endpoints": ["https://192.0.2.1:2379"], "serverName": "ne.mesh", "secretName": "s",
            "hostAliases": { "192.0.2.1": ["ne.mesh"] }, "grant": "ne"
        }),
    ];
    for row in rows {
        let spec: MeshPeerSpec = serde_json::from_value(row.clone()).unwrap();
        assert_eq!(serde_json::to_value(spec).unwrap(), row);
    }
    let row = json!({ "cluster": "ne", "over": "10m", "for": "2h", "hard": true });
    let drain: ClusterDrainSpec = serde_json::from_value(row.clone()).unwrap();
    assert_eq!((drain.lasting.as_deref(), drain.until.clone()), (Some("2h"), None));
    assert_eq!(serde_json::to_value(drain).unwrap(), row);
    let row = json!({ "namespaces": [], "limits": { "backendsPerService": 10 } });
    let grant: ClusterGrantSpec = serde_json::from_value(row.clone()).unwrap();
    assert_eq!((grant.namespaces.clone(), grant.services.clone()), (Some(Vec::new()), None));
    assert_eq!(serde_json::to_value(grant).unwrap(), row);
}

/// The table that `kubectl get` prints.
#[test]
fn columns() {
    let mut told = String::new();
    for crd in definitions() {
        let version = &crd.spec.versions[0];
        let columns = version.additional_printer_columns.iter().flatten();
        let wide = |priority: Option<i32>| if priority.unwrap_or(0) > 0 { "+" } else { "" };
        let names: Vec<String> = columns.map(|c| format!("{}{}", wide(c.priority), c.name.to_uppercase())).collect();
        let short = crd.spec.names.short_names.iter().flatten().cloned().collect::<String>();
        told.push_str(&format!("{} ({short}): {}\n", crd.spec.names.plural, names.join(" ")));
        assert_eq!((crd.spec.scope.as_str(), crd.spec.group.as_str()), ("Cluster", GROUP));
    }
    expect![[r#"
        meshpeers (mp): ID CONNECTED SERVICES BACKENDS SILENT AGE MESSAGE +REFUSED +ENDPOINTS
        clusterdrains (cdr): CLUSTER OVER FOR UNTIL HONOURED REASON AGE +MESSAGE
        clustergrants (cgr): NAMESPACES CIDRS IDENTITIES HONOURED REASON AGE +MESSAGE
        meshidentities (mid): NAMESPACE AGE +LABELS
    "#]]
    .assert_eq(&told);
}

/// The API server drops silently what no schema names, and warns of formats it does not know.
#[test]
fn schemas_describe_everything_in_formats_that_the_api_knows() {
    for crd in definitions() {
        let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
        let mut problems = Vec::new();
        walk(&schema["openAPIV3Schema"], &crd.spec.names.kind, &mut problems);
        assert_eq!(problems, Vec::<String>::new());
    }
}

fn walk(schema: &serde_json::Value, path: &str, problems: &mut Vec<String>) {
    let format = schema["format"].as_str();
    if format.is_some_and(|format| !["int32", "int64", "date-time"].contains(&format)) {
        problems.push(format!("{path}: format {format:?}"));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        if property["description"].as_str().is_none_or(str::is_empty) && !["spec", "status"].contains(&name.as_str()) {
            problems.push(format!("{path}: no description"));
        }
        walk(property, &path, problems);
    }
    for below in ["items", "additionalProperties"] {
        if schema[below].is_object() {
            walk(&schema[below], &format!("{path}[]"), problems);
        }
    }
}
