//! Warning Events on Services: what a person who looks at the Service should be told there.
//!
//! One Event per Service and reason, told again while it stands so that it does not grow too old to be shown, and sooner
//! when it says something else. All together are few: a broken peer must not fill the API server with Events.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ObjectReference, Service};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tombolo_core::id::{Millis, ServiceKey};

use crate::lease::Role;
use crate::status::MANAGER;

/// How often it is looked for what is to be told.
const ROUND: Duration = Duration::from_secs(2);
/// An Event that stands is told again after this long: a server forgets Events after an hour.
const AGAIN_MS: u64 = 50 * 60_000;
/// One Service and reason are told at most this often, whatever they say.
const QUIET_MS: u64 = 5 * 60_000;
/// So many Events may be told at once, and one more in each [`REFILL_MS`].
const BURST: u64 = 25;
const REFILL_MS: u64 = 3_000;
/// The longest note that the API takes is 1,024 bytes.
const NOTE: usize = 1_000;

/// Something to be told of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// The Service.
    pub service: ServiceKey,
    /// In one word, for programs: `BadAnnotation`.
    pub reason: &'static str,
    /// What is wrong and what applies, for people.
    pub note: String,
}

/// Tells warnings while this replica is the writer, until `role` is closed. `holder` is this replica's name.
pub async fn run(client: Client, holder: String, mut role: watch::Receiver<Role>, warnings: impl Fn() -> Vec<Warning>) {
    let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(holder) };
    let recorder = Recorder::new(client.clone(), reporter);
    let (mut said, started) = (Said::default(), Instant::now());
    loop {
        if *role.borrow_and_update() == Role::Writer {
            let now = Millis(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
            for warning in said.due(warnings(), now) {
                if let Err(error) = tell(&client, &recorder, &warning).await {
                    tracing::warn!(service = %warning.service, %error, "event");
                    said.forget(&warning);
                }
            }
        }
        tokio::select! {
            changed = role.changed() => if changed.is_err() { return },
            () = sleep(ROUND) => {}
        }
    }
}

async fn tell(client: &Client, recorder: &Recorder, warning: &Warning) -> Result<(), kube::Error> {
    let services: Api<Service> = Api::namespaced(client.clone(), &warning.service.namespace);
    // `kubectl describe` asks for the Events of this uid. A Service that is gone needs none.
    let Some(service) = services.get_metadata_opt(&warning.service.name).await? else { return Ok(()) };
    let regarding = ObjectReference {
        api_version: Some(Service::api_version(&()).into_owned()),
        kind: Some(Service::kind(&()).into_owned()),
        name: Some(warning.service.name.to_string()),
        namespace: Some(warning.service.namespace.to_string()),
        uid: service.metadata.uid,
        ..ObjectReference::default()
    };
    let event = Event {
        type_: EventType::Warning,
        reason: warning.reason.to_owned(),
        note: Some(warning.note.clone()),
        action: "Mesh".to_owned(),
        secondary: None,
    };
    recorder.publish(&event, &regarding).await
}

/// What was told, and when.
#[derive(Debug, Default)]
struct Said {
    told: BTreeMap<(ServiceKey, &'static str), (Millis, String)>,
    /// How many Events were told that are not yet made up for, and when that was counted.
    spent: u64,
    counted: Millis,
}

impl Said {
    /// What of this is to be told now.
    fn due(&mut self, warnings: Vec<Warning>, now: Millis) -> Vec<Warning> {
        let refilled = now.since(self.counted) / REFILL_MS;
        self.spent = self.spent.saturating_sub(refilled);
        self.counted = self.counted.after(refilled * REFILL_MS);
        let mut standing: BTreeMap<(ServiceKey, &'static str), Vec<String>> = BTreeMap::new();
        for warning in warnings {
            standing.entry((warning.service, warning.reason)).or_default().push(warning.note);
        }
        // What no longer stands is news when it comes back, but not sooner than others would be.
        self.told.retain(|key, (at, _)| standing.contains_key(key) || now.since(*at) < QUIET_MS);
        let mut due = Vec::new();
        for (key, mut notes) in standing {
            notes.sort();
            notes.dedup();
            let note = shorten(notes.join("; "));
            let wanted = self.told.get(&key).is_none_or(|(at, before)| {
                let age = now.since(*at);
                age >= AGAIN_MS || (*before != note && age >= QUIET_MS)
            });
            if wanted && self.spent < BURST {
                self.spent += 1;
                self.told.insert(key.clone(), (now, note.clone()));
                due.push(Warning { service: key.0, reason: key.1, note });
            }
        }
        due
    }

    /// It was not told after all.
    fn forget(&mut self, warning: &Warning) {
        self.told.remove(&(warning.service.clone(), warning.reason));
    }
}

fn shorten(mut note: String) -> String {
    if note.len() > NOTE {
        let end = (0..=NOTE).rev().find(|at| note.is_char_boundary(*at)).unwrap_or(0);
        note.truncate(end);
        note.push('…');
    }
    note
}
