//! One change at a time, with rest between.

use std::time::{Duration, Instant};

use anyhow::Result;
use tombolo_e2e::clock::{let_pass, watch_for};
use tombolo_e2e::cluster::SERVICE;
use tombolo_e2e::mesh::Mesh;
use tombolo_e2e::observe::AgentWindow;

/// How often the agent is asked.
const EVERY: Duration = Duration::from_micros(500);

/// Rest between changes; no divisor of the heartbeat's 5 s, so that heartbeats fall anywhere.
const REST: Duration = Duration::from_millis(37);

/// Milliseconds of each change: `ne` has one endpoint and two in turn.
pub(crate) fn measure(mesh: &mut Mesh, changes: usize) -> Result<Vec<f64>> {
    let mut window = AgentWindow::open(mesh.cluster("we"), 0)?;
    let mut samples = Vec::with_capacity(changes);
    for n in 0..changes {
        let count = if n % 2 == 0 { 2 } else { 1 };
        let begun = Instant::now();
        mesh.cluster("ne").claim(count)?;
        let expected = mesh.all_backends();
        let took = watch_for("one change in the map", EVERY, Duration::from_secs(10), || {
            Ok((window.table(SERVICE)?.as_ref() == Some(&expected)).then(|| begun.elapsed()))
        })?;
        samples.push(took.as_secs_f64() * 1000.0);
        let_pass(REST)?;
    }
    Ok(samples)
}
