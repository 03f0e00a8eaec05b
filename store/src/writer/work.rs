//! What the planner asks for, and the answers.

use std::sync::Arc;

use bytes::Bytes;

use super::leases::Group;

pub(crate) type Key = Arc<str>;

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Put { key: Key, value: Bytes, lease: i64 },
    Delete { key: Key },
}

/// The next thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Txn(Vec<Op>),
    Grant(Group),
    Renew(i64),
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Written {
        revision: i64,
    },
    /// A lease of the transaction is gone.
    LeaseGone,
    /// The store will never take this transaction as it is.
    Rejected {
        reason: String,
    },
    /// `ttl_s`: how long the lease lives, as the store decided.
    Granted {
        id: i64,
        group: Group,
        ttl_s: i64,
    },
    /// `ttl_s` None: the lease is gone.
    Renewed {
        id: i64,
        ttl_s: Option<i64>,
    },
}

impl Op {
    pub(crate) fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    pub(crate) fn lease(&self) -> Option<i64> {
        match self {
            Self::Put { lease, .. } => Some(*lease),
            Self::Delete { .. } => None,
        }
    }

    /// Bytes it adds to a request, about.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.len() + value.len(),
            Self::Delete { key } => key.len(),
        }
    }
}
