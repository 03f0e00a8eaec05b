//! Who may do what in a store, by certificate CN, as Cilium has it, and nothing of `tombolo/` for peers.
//!
//! The users have no passwords: with `--client-cert-auth` the CN of a verified certificate is the user. What should be
//! and what is are values, their difference a list of steps; a store that has all of it is only read.

mod keep;
mod roles;

use std::collections::BTreeSet;

use etcd_client::{AuthClient, Permission, PermissionType, RoleRevokePermissionOptions, UserAddOptions};
use tombolo_core::id::ClusterName;

pub use self::keep::{PeerUsers, UsersKeeper, UsersState};
use self::roles::{Access, Grant, Step, Users};
use crate::config::StoreConfig;
use crate::session::SessionError;
use crate::session::connection::{connect, explain};

/// Why users could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("users and roles of the store: {0}")]
pub struct UsersError(#[from] pub SessionError);

/// What becomes of peers' users beyond those asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// They go: who is not named is no peer.
    Removed,
    /// They stay: it is not known yet who is a peer.
    Kept,
}

/// Makes users and roles as they should be and switches authentication on; all of it may be there already.
///
/// `store` must carry the certificate `admin-<cluster>` (or `root`). `peers` get a user `remote-<peer>` each; what
/// becomes of users of that form beyond them, `others` says. Returns what had to be done, in order, for logs; empty when all was well, but for
/// authentication, which cannot be asked and is switched on every time.
pub async fn bootstrap_users(
    store: &StoreConfig,
    cluster: &ClusterName,
    peers: &BTreeSet<ClusterName>,
    others: Others,
) -> Result<Vec<String>, UsersError> {
    let mut auth = connect(store).await?.auth_client();
    let wanted = Users::wanted(cluster, peers);
    let found = read(&mut auth, &wanted).await?;
    let steps = roles::steps(&wanted, &found, others);
    for step in &steps {
        carry_out(&mut auth, step).await?;
    }
    auth.auth_enable().await.map_err(|e| explain(&e, "auth enable"))?;
    Ok(steps.iter().map(ToString::to_string).collect())
}

/// Reads roles and users; of other people's only the names.
async fn read(auth: &mut AuthClient, wanted: &Users) -> Result<Users, SessionError> {
    let mut found = Users::default();
    let roles = auth.role_list().await.map_err(|e| explain(&e, "role list"))?;
    for role in roles.roles() {
        let mut grants = BTreeSet::new();
        // root is shown with a grant of everything, which nobody can revoke.
        if wanted.roles.get(role).is_some_and(|grants| !grants.is_empty()) {
            let answer = auth.role_get(role.as_str()).await.map_err(|e| explain(&e, "role get"))?;
            grants = answer.permissions().iter().map(grant_of).collect();
        }
        found.roles.insert(role.clone(), grants);
    }
    let users = auth.user_list().await.map_err(|e| explain(&e, "user list"))?;
    for user in users.users() {
        let mut roles = BTreeSet::new();
        if wanted.users.contains_key(user) {
            let answer = auth.user_get(user.as_str()).await.map_err(|e| explain(&e, "user get"))?;
            roles = answer.roles().iter().cloned().collect();
        }
        found.users.insert(user.clone(), roles);
    }
    Ok(found)
}

fn grant_of(permission: &Permission) -> Grant {
    let access = match permission.get_type() {
        0 => Access::Read,
        1 => Access::Write,
        _ => Access::ReadWrite,
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Grant { key: text(permission.key()), end: text(permission.range_end()), access }
}

async fn carry_out(auth: &mut AuthClient, step: &Step) -> Result<(), SessionError> {
    let done = match step {
        Step::AddRole { role } => auth.role_add(role.as_str()).await.map(drop),
        Step::Grant { role, grant } => auth.role_grant_permission(role.as_str(), permission(grant)).await.map(drop),
        Step::Revoke { role, grant } => {
            let range = RoleRevokePermissionOptions::new();
            let range = if grant.end.is_empty() { range } else { range.with_range_end(grant.end.as_str()) };
            auth.role_revoke_permission(role.as_str(), grant.key.as_str(), Some(range)).await.map(drop)
        }
        Step::AddUser { user } => {
            auth.user_add(user.as_str(), "", Some(UserAddOptions::new().with_no_pwd())).await.map(drop)
        }
        Step::GiveRole { user, role } => auth.user_grant_role(user.as_str(), role.as_str()).await.map(drop),
        Step::TakeRole { user, role } => auth.user_revoke_role(user.as_str(), role.as_str()).await.map(drop),
        Step::DeleteUser { user } => auth.user_delete(user.as_str()).await.map(drop),
    };
    done.map_err(|e| explain(&e, &step.to_string()))
}

fn permission(grant: &Grant) -> Permission {
    let access = match grant.access {
        Access::Read => PermissionType::Read,
        Access::Write => PermissionType::Write,
        Access::ReadWrite => PermissionType::Readwrite,
    };
    let permission = Permission::new(access, grant.key.as_str());
    if grant.end.is_empty() { permission } else { permission.with_range_end(grant.end.as_str()) }
}
