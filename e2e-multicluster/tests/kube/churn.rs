//! Many Services with many endpoints that change all the time: nothing that stays is ever missing from the store, and the
//! apiserver's memory does not grow.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use tombolo_e2e::clock::{Seen, wait_until};
use tombolo_e2e::kube::Api;
use tombolo_e2e::recorder::{Backends, service_key};
use tombolo_e2e::story;
use tombolo_kube::objects::{Grace, How, Kind, Objects, Part};

use crate::lab::{Case, Lab};

pub(crate) const CASES: &[Case] = &[Case {
    name: "churn: 1,000 Services and 10,000 endpoints change, and nothing that stays is missed",
    body: churn,
}];

/// Services: the first of them stay, the others come and go.
const SERVICES: u32 = 1000;
/// Those that stay.
const STAYING: u32 = 900;
/// Endpoints of each.
const ENDPOINTS: u32 = 10;
/// Requests at a time.
const AT_ONCE: usize = 16;
/// How long it goes on; `TOMBOLO_E2E_CHURN` has other seconds.
const SECONDS: u64 = 20;
/// How long until the store has everything.
const SETTLED: Duration = Duration::from_secs(120);
/// What memory may grow by while as many objects as before are there: allocators keep what a burst took.
const GROWTH: u64 = 48 << 20;

const NAMESPACE: &str = "churn";

fn churn(lab: &mut Lab) -> Result<()> {
    let seconds = std::env::var("TOMBOLO_E2E_CHURN").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let api = lab.cluster.admin();
    lab.member()?;
    api.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}).to_string())?;
    let begun = Instant::now();
    api.run(async |objects| each(0..SERVICES, |n| create(objects.clone(), n)).await)?;
    let mut generations = vec![0; SERVICES as usize];
    settled(lab, &generations).context("after the Services were made")?;
    story::say(&format!("   {SERVICES} Services are in the store: {} ms", begun.elapsed().as_millis()));

    lab.member()?.recorder.mark();
    let before = resident(lab)?;
    let (changes, most) = change_for(lab, &api, &mut generations, Duration::from_secs(seconds))?;
    settled(lab, &generations).context("after the changes")?;
    let after = resident(lab)?;
    story::say(&format!(
        "   {changes} changes in {seconds} s; resident {} MiB before, at most {} MiB, {} MiB after",
        before >> 20,
        most >> 20,
        after >> 20
    ));
    ensure!(changes > u64::from(SERVICES), "only {changes} changes");
    // A slice is replaced at once, so a Service that stays has all its endpoints at any time.
    lab.member()?.recorder.nothing_lost(&format!("{NAMESPACE}/stays-"), ENDPOINTS as usize)?;
    ensure!(most.max(after) < before + GROWTH, "memory grew from {before} to {most}, {after} after it");
    api.run(async |objects| each(0..SERVICES, |n| remove(objects.clone(), n)).await)?;
    wait_until("the store to be as before", SETTLED, || {
        let left = lab.member()?.recorder.keys().into_iter().filter(|key| key.contains("/churn/")).count();
        Ok(if left == 0 { Seen::Ready(()) } else { Seen::NotYet(format!("{left} keys")) })
    })
}

/// Changes things for so long; gives how many changes there were and the most memory that was seen.
fn change_for(lab: &mut Lab, api: &Api, generations: &mut [u32], time: Duration) -> Result<(u64, u64)> {
    let until = Instant::now() + time;
    let (mut changes, mut most, mut round) = (0, 0, 0_u32);
    while Instant::now() < until {
        // Every fifth of those that stay gets other endpoints; a tenth of the others goes and comes again.
        let staying: Vec<u32> = (0..STAYING).filter(|n| n % 5 == round % 5).collect();
        let passing: Vec<u32> = (STAYING..SERVICES).filter(|n| n % 10 == round % 10).collect();
        for n in &staying {
            generations[*n as usize] += 1;
        }
        changes += (staying.len() + 2 * passing.len()) as u64;
        let now: Vec<(u32, u32)> = staying.iter().map(|n| (*n, generations[*n as usize])).collect();
        api.run(async |objects| {
            each(now, |(n, generation)| replace(objects.clone(), n, generation)).await?;
            each(passing.clone(), |n| remove(objects.clone(), n)).await?;
            each(passing, |n| create(objects.clone(), n)).await
        })?;
        most = most.max(resident(lab)?);
        lab.cluster.alive()?;
        round += 1;
    }
    Ok((changes, most))
}

/// Waits until the store has the endpoints of every Service.
fn settled(lab: &mut Lab, generations: &[u32]) -> Result<()> {
    let recorder = &lab.member()?.recorder;
    let wanted = |n: u32| (key(n), endpoints(n, generations[n as usize]).into_iter().collect::<Backends>());
    wait_until("the store to have every Service", SETTLED, || {
        let wrong: Vec<_> =
            (0..SERVICES).map(wanted).filter(|(key, w)| recorder.backends(key).as_ref() != Some(w)).collect();
        Ok(match wrong.first() {
            None => Seen::Ready(()),
            Some((key, _)) => {
                Seen::NotYet(format!("{} are not right, {key} has {:?}", wrong.len(), recorder.backends(key)))
            }
        })
    })
}

fn resident(lab: &mut Lab) -> Result<u64> {
    lab.member()?.mesh.apiserver().context("the apiserver runs")?.resident()
}

/// Does something for each, several at a time.
async fn each<T, F>(all: impl IntoIterator<Item = T>, work: impl Fn(T) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    futures_util::stream::iter(all).map(work).buffer_unordered(AT_ONCE).try_collect().await
}

fn name(n: u32) -> String {
    if n < STAYING { format!("stays-{n}") } else { format!("passes-{n}") }
}

fn key(n: u32) -> String {
    service_key("ne", NAMESPACE, &name(n))
}

/// Addresses outside every range of the mesh's own; those of two generations share all but one.
fn endpoints(n: u32, generation: u32) -> Vec<String> {
    let address = |m: u32| format!("10.{}.{}.{}", 200 + n / 250, n % 250, 1 + m % 250);
    (generation..generation + ENDPOINTS).map(address).collect()
}

fn slice(n: u32, generation: u32) -> Value {
    let endpoints: Vec<Value> = endpoints(n, generation)
        .into_iter()
        .map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}, "nodeName": "ne-1"}))
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name(n), "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": name(n)}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
    })
}

fn service() -> Kind {
    Kind::new("v1", "Service")
}

fn slices() -> Kind {
    Kind::new("discovery.k8s.io/v1", "EndpointSlice")
}

async fn create(objects: Objects, n: u32) -> Result<()> {
    let object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name(n), "namespace": NAMESPACE, "annotations": {"service.cilium.io/global": "true"}},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    });
    objects.apply(&slices().named(NAMESPACE, &name(n)), &slice(n, 0), How::Write).await?;
    objects.apply(&service().named(NAMESPACE, &name(n)), &object, How::Write).await?;
    Ok(())
}

async fn replace(objects: Objects, n: u32, generation: u32) -> Result<()> {
    let change = json!({"endpoints": slice(n, generation)["endpoints"]});
    objects.merge(&slices().named(NAMESPACE, &name(n)), Part::Main, &change).await?;
    Ok(())
}

async fn remove(objects: Objects, n: u32) -> Result<()> {
    objects.delete(&service().named(NAMESPACE, &name(n)), Grace::Usual).await?;
    objects.delete(&slices().named(NAMESPACE, &name(n)), Grace::Usual).await?;
    Ok(())
}
