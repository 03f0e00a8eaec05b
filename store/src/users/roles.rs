//! The users and roles of one cluster's store, and the steps from any others to them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use tombolo_core::id::ClusterName;
use tombolo_wire::cilium::key;
use tombolo_wire::own;

use super::Others;

const ROOT: &str = "root";
const LOCAL: &str = "local";
const REMOTE: &str = "remote";
/// Users of this form are peers': those that are no longer peers are removed.
const PEER_PREFIX: &str = "remote-";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Access {
    Read,
    Write,
    ReadWrite,
}

/// A right to the keys from `key` to before `end`; to the one key without `end`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Grant {
    pub(super) key: String,
    pub(super) end: String,
    pub(super) access: Access,
}

/// Roles with their grants, and users with their roles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Users {
    pub(super) roles: BTreeMap<String, BTreeSet<Grant>>,
    pub(super) users: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    AddRole { role: String },
    Revoke { role: String, grant: Grant },
    Grant { role: String, grant: Grant },
    AddUser { user: String },
    TakeRole { user: String, role: String },
    GiveRole { user: String, role: String },
    DeleteUser { user: String },
}

impl Users {
    /// Cilium's (`clustermesh-apiserver/etcdinit`), and Tombolo's own prefix for the local role.
    pub(super) fn wanted(cluster: &ClusterName, peers: &BTreeSet<ClusterName>) -> Self {
        let synced = format!("cilium/synced/{cluster}/");
        let reports = format!("{}reports/", own::CONTROL);
        let read = |prefix: &str| Grant::prefix(prefix, Access::Read);
        let local = [
            read(key::HEARTBEAT),
            read("cilium/cache/"),
            read("cilium/cluster-config/"),
            read("cilium/synced/"),
            read(own::ROOT),
            Grant::prefix(&reports, Access::Write),
        ];
        let config = Grant { key: key::cluster_config(cluster), end: String::new(), access: Access::Read };
        let remote = [read(key::HEARTBEAT), read(key::STATE), config, read(&synced)];
        let roles = [(ROOT, BTreeSet::new()), (LOCAL, local.into()), (REMOTE, remote.into())];
        let fixed = [
            (ROOT.to_owned(), ROOT),
            (format!("admin-{cluster}"), ROOT),
            (format!("local-{cluster}"), LOCAL),
            (REMOTE.to_owned(), REMOTE),
        ];
        let remotes = peers.iter().map(|peer| (format!("{PEER_PREFIX}{peer}"), REMOTE));
        let users = fixed.into_iter().chain(remotes);
        Self {
            roles: roles.into_iter().map(|(role, grants)| (role.to_owned(), grants)).collect(),
            users: users.map(|(user, role)| (user, BTreeSet::from([role.to_owned()]))).collect(),
        }
    }
}

impl Grant {
    fn prefix(prefix: &str, access: Access) -> Self {
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().expect("no prefix is empty") += 1;
        Self { key: prefix.into(), end: String::from_utf8(end).expect("prefixes end in ASCII below ~"), access }
    }

    /// etcd keeps one access for a range: granting it anew replaces it.
    fn same_range(&self, other: &Self) -> bool {
        (&self.key, &self.end) == (&other.key, &other.end)
    }
}

/// What leads from `found` to `wanted`. Foreign roles and users stay, but for peers that no longer are.
pub(super) fn steps(wanted: &Users, found: &Users, others: Others) -> Vec<Step> {
    let mut steps = Vec::new();
    for (role, grants) in &wanted.roles {
        let none = BTreeSet::new();
        let old = found.roles.get(role).unwrap_or_else(|| {
            steps.push(Step::AddRole { role: role.clone() });
            &none
        });
        let surplus = old.iter().filter(|o| !grants.iter().any(|g| g.same_range(o))).cloned();
        steps.extend(surplus.map(|grant| Step::Revoke { role: role.clone(), grant }));
        let missing = grants.difference(old).cloned();
        steps.extend(missing.map(|grant| Step::Grant { role: role.clone(), grant }));
    }
    for (user, roles) in &wanted.users {
        let none = BTreeSet::new();
        let old = found.users.get(user).unwrap_or_else(|| {
            steps.push(Step::AddUser { user: user.clone() });
            &none
        });
        // root must never lose its role in between.
        let missing = roles.difference(old).cloned();
        steps.extend(missing.map(|role| Step::GiveRole { user: user.clone(), role }));
        let surplus = old.difference(roles).cloned();
        steps.extend(surplus.map(|role| Step::TakeRole { user: user.clone(), role }));
    }
    if others == Others::Removed {
        let gone = found.users.keys().filter(|u| u.starts_with(PEER_PREFIX) && !wanted.users.contains_key(*u)).cloned();
        steps.extend(gone.map(|user| Step::DeleteUser { user }));
    }
    steps
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = match self.access {
            Access::Read => "read",
            Access::Write => "write",
            Access::ReadWrite => "read and write",
        };
        let star = if self.end.is_empty() { "" } else { "*" };
        write!(f, "{access} {}{star}", self.key)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddRole { role } => write!(f, "add role {role}"),
            Self::Revoke { role, grant } => write!(f, "role {role} no longer: {grant}"),
            Self::Grant { role, grant } => write!(f, "role {role}: {grant}"),
            Self::AddUser { user } => write!(f, "add user {user}"),
            Self::TakeRole { user, role } => write!(f, "user {user} no longer: {role}"),
            Self::GiveRole { user, role } => write!(f, "user {user}: {role}"),
            Self::DeleteUser { user } => write!(f, "delete user {user}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn wanted(peers: &[&str]) -> Users {
        let name = |n: &&str| ClusterName::new(n).unwrap();
        Users::wanted(&name(&"we"), &peers.iter().map(name).collect())
    }

    fn check(wanted: &Users, found: &Users, expected: &Expect) {
        let text: Vec<String> = steps(wanted, found, Others::Removed).iter().map(|s| format!("{s}\n")).collect();
        expected.assert_eq(&text.concat());
    }

    #[test]
    fn an_empty_store_gets_all() {
        check(
            &wanted(&["ne"]),
            &Users::default(),
            &expect![[r#"
            add role local
            role local: read cilium/.heartbeat*
            role local: read cilium/cache/*
            role local: read cilium/cluster-config/*
            role local: read cilium/synced/*
            role local: read tombolo/v1/*
            role local: write tombolo/v1/control/reports/*
            add role remote
            role remote: read cilium/.heartbeat*
            role remote: read cilium/cluster-config/we
            role remote: read cilium/state/*
            role remote: read cilium/synced/we/*
            add role root
            add user admin-we
            user admin-we: root
            add user local-we
            user local-we: local
            add user remote
            user remote: remote
            add user remote-ne
            user remote-ne: remote
            add user root
            user root: root
        "#]],
        );
    }

    #[test]
    fn a_store_that_has_all_is_left_alone() {
        check(&wanted(&["ne"]), &wanted(&["ne"]), &expect![[""]]);
    }

    #[test]
    fn peers_come_and_go() {
        check(
            &wanted(&["fc"]),
            &wanted(&["ne"]),
            &expect![[r#"
            add user remote-fc
            user remote-fc: remote
            delete user remote-ne
        "#]],
        );
    }

    #[test]
    fn nobody_goes_while_it_is_not_known_who_is_a_peer() {
        assert_eq!(steps(&wanted(&[]), &wanted(&["ne"]), Others::Kept), []);
    }

    #[test]
    fn tampered_roles_are_put_right() {
        let mut found = wanted(&[]);
        let remote = found.roles.get_mut(REMOTE).unwrap();
        remote.insert(Grant::prefix("tombolo/", Access::Read));
        remote.replace(Grant::prefix(key::STATE, Access::ReadWrite));
        remote.remove(&Grant::prefix(key::STATE, Access::Read));
        found.users.get_mut(REMOTE).unwrap().insert(ROOT.into());
        check(
            &wanted(&[]),
            &found,
            &expect![[r#"
            role remote no longer: read tombolo/*
            role remote: read cilium/state/*
            user remote no longer: root
        "#]],
        );
    }
}
