//! Which replica writes what all of them know: the holder of one `coordination.k8s.io` Lease.
//!
//! Every replica has sessions of its own with the peers, so two of them never say quite the same of one peer. Applying
//! the same fields by one manager would therefore make them take turns in overwriting each other; one writer is simpler
//! and right. It decides only who writes to Kubernetes: what agents and peers get never depends on it.
//!
//! As in Kubernetes' own clients a lease is judged by this program's clock alone: it is free when its record has not
//! changed for its duration, whatever times are written in it.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// How long a holder that is not heard of keeps the lease.
const DURATION: Duration = Duration::from_secs(15);
/// How often the holder says that it lives, and the others look.
const ROUND: Duration = Duration::from_secs(4);
/// How long one request may take. Two rounds and a request are less than the duration.
const REQUEST: Duration = Duration::from_secs(5);

/// Whether this replica is the one that writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is.
    Writer,
    /// Another is, or nobody knows.
    Reader,
}

/// Takes part until nobody listens to `role`. `holder` is this replica's name, unlike every other's.
pub async fn run(
    client: Client,
    (namespace, name): (String, String),
    holder: String,
    unix_ms: fn() -> u64,
    role: watch::Sender<Role>,
) {
    let leases: Api<Lease> = Api::namespaced(client, &namespace);
    let mut seen = Seen::default();
    let mut held: Option<Instant> = None;
    loop {
        let asked = Instant::now();
        match timeout(REQUEST, round(&leases, &name, &holder, unix_ms(), &mut seen)).await {
            Ok(Ok(Role::Writer)) => held = Some(asked),
            Ok(Ok(Role::Reader)) => held = None,
            Ok(Err(error)) => tracing::debug!(%error, "lease"),
            Err(_) => tracing::debug!("lease: no answer in time"),
        }
        // A holder that cannot say that it lives stops before another begins.
        let now =
            if held.is_some_and(|since| since.elapsed() + ROUND < DURATION) { Role::Writer } else { Role::Reader };
        role.send_if_modified(|role| {
            let changed = *role != now;
            *role = now;
            changed
        });
        tokio::select! {
            () = role.closed() => return,
            () = sleep(ROUND) => {}
        }
    }
}

/// One look at the lease, and what follows from it.
async fn round(
    leases: &Api<Lease>,
    name: &str,
    holder: &str,
    unix_ms: u64,
    seen: &mut Seen,
) -> Result<Role, kube::Error> {
    let found = leases.get_opt(name).await?;
    let written = match judge(found.as_ref(), holder, seen, Instant::now()) {
        Judgement::Leave => return Ok(Role::Reader),
        Judgement::Create => {
            let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(spec(None, holder, unix_ms)) };
            leases.create(&PostParams::default(), &lease).await
        }
        Judgement::Write => {
            let mut lease = found.unwrap_or_default();
            lease.spec = Some(spec(lease.spec.as_ref(), holder, unix_ms));
            // With its resourceVersion: of two who write at once one is told of a conflict.
            leases.replace(name, &PostParams::default(), &lease).await
        }
    };
    match written {
        Ok(_) => Ok(Role::Writer),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Role::Reader),
        Err(error) => Err(error),
    }
}

/// What was seen of the lease last, and since when it is so.
#[derive(Debug, Default)]
struct Seen {
    version: Option<String>,
    since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    /// It is another's.
    Leave,
    /// There is none.
    Create,
    /// It is ours, or free.
    Write,
}

fn judge(lease: Option<&Lease>, holder: &str, seen: &mut Seen, now: Instant) -> Judgement {
    let Some(lease) = lease else { return Judgement::Create };
    if seen.since.is_none() || seen.version != lease.metadata.resource_version {
        *seen = Seen { version: lease.metadata.resource_version.clone(), since: Some(now) };
    }
    let spec = lease.spec.as_ref();
    let by = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
    let said = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|s| u64::try_from(s).ok());
    let duration = said.map_or(DURATION, Duration::from_secs);
    let old = seen.since.is_some_and(|since| now.duration_since(since) >= duration);
    if by == holder || by.is_empty() || old { Judgement::Write } else { Judgement::Leave }
}

fn spec(before: Option<&LeaseSpec>, holder: &str, unix_ms: u64) -> LeaseSpec {
    let now = i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).map(MicroTime);
    let mine = before.filter(|spec| spec.holder_identity.as_deref() == Some(holder));
    let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
    LeaseSpec {
        holder_identity: Some(holder.to_owned()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        acquire_time: mine.map_or_else(|| now.clone(), |spec| spec.acquire_time.clone()),
        renew_time: now,
        lease_transitions: Some(if mine.is_some() || before.is_none() { transitions } else { transitions + 1 }),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(by: &str, version: &str) -> Lease {
        let metadata = ObjectMeta { resource_version: Some(version.into()), ..ObjectMeta::default() };
        Lease { metadata, spec: Some(spec(None, by, 0)) }
    }

    #[test]
    fn a_lease_is_free_when_it_has_not_changed_for_its_duration_by_this_clock() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut seen = Seen::default();
        assert_eq!(judge(None, "me", &mut seen, at(0)), Judgement::Create);
        assert_eq!(judge(Some(&lease("other", "1")), "me", &mut seen, at(0)), Judgement::Leave);
        assert_eq!(judge(Some(&lease("other", "1")), "me", &mut seen, at(14)), Judgement::Leave);
        // It was renewed: its time begins anew, whatever it says.
        assert_eq!(judge(Some(&lease("other", "2")), "me", &mut seen, at(16)), Judgement::Leave);
        assert_eq!(judge(Some(&lease("other", "2")), "me", &mut seen, at(30)), Judgement::Leave);
        assert_eq!(judge(Some(&lease("other", "2")), "me", &mut seen, at(31)), Judgement::Write);
        assert_eq!(judge(Some(&lease("me", "3")), "me", &mut seen, at(31)), Judgement::Write);
        assert_eq!(judge(Some(&lease("", "4")), "me", &mut seen, at(31)), Judgement::Write);
    }

    #[test]
    fn a_change_of_hands_is_counted_and_a_renewal_is_none() {
        let first = spec(None, "a", 1_000);
        let renewed = spec(Some(&first), "a", 5_000);
        assert_eq!((renewed.lease_transitions, &renewed.acquire_time), (Some(0), &first.acquire_time));
        assert_ne!(renewed.renew_time, first.renew_time);
        let taken = spec(Some(&renewed), "b", 9_000);
        assert_eq!((taken.lease_transitions, &taken.acquire_time), (Some(1), &taken.renew_time));
    }
}
