//! Clients that are not ours: their own ways to dial, and their own checks of who answered.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use tombolo_e2e::cluster::Frontend;
use tombolo_e2e::mesh::Mesh;
use tombolo_e2e::process::Spec;
use tombolo_e2e::programs;

use crate::harness::{Body, Case, skip};

pub(crate) const CASES: &[Case] = &[
    Case { name: "clients: curl", body: Body::Shared(curl) },
    Case { name: "clients: Python", body: Body::Shared(python) },
    Case { name: "clients: Go", body: Body::Shared(go) },
];

/// What every answer has.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Base {
    cluster: String,
    pod: String,
}

/// A program's path, if this machine has it.
fn tool(name: &str) -> Result<Option<PathBuf>> {
    let found = programs::on_path(name);
    if found.is_none() {
        skip(&format!("no {name} on PATH"))?;
    }
    Ok(found)
}

/// Runs a client on a node of `ne`. Every line it prints must be an answer of a pod, and there must be this many.
fn run(mesh: &mut Mesh, program: &Path, args: &[String], answers: usize) -> Result<()> {
    let place = mesh.cluster("ne").site.nodes[0].place.clone();
    let spec = args.iter().fold(Spec::new("client", program, &place), Spec::arg);
    let output = spec.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let out = String::from_utf8(output.stdout)?;
    for line in out.lines() {
        let base: Base = serde_json::from_str(line).with_context(|| format!("{line:?} is no answer"))?;
        ensure!(base.pod.starts_with(&base.cluster), "{line}");
    }
    ensure!(out.lines().count() == answers, "{} answers, not {answers}: {out}", out.lines().count());
    Ok(())
}

fn curl(mesh: &mut Mesh) -> Result<()> {
    let Some(curl) = tool("curl")? else { return Ok(()) };
    let ne = mesh.cluster("ne");
    let urls = [Frontend::V4, Frontend::V6, Frontend::Mapped].map(|f| format!("http://{}/", ne.dialled(f)));
    let mut args = ["--silent", "--show-error", "--fail", "--max-time", "3"].map(str::to_owned).to_vec();
    args.extend(urls);
    run(mesh, &curl, &args, 3)
}

fn python(mesh: &mut Mesh) -> Result<()> {
    let Some(python) = tool("python3")? else { return Ok(()) };
    let ne = mesh.cluster("ne");
    let mut args = vec![format!("{}/clients/client.py", env!("CARGO_MANIFEST_DIR"))];
    for frontend in [Frontend::V4, Frontend::V6, Frontend::Mapped] {
        let target = ne.dialled(frontend);
        args.extend([target.ip().to_string(), target.port().to_string()]);
    }
    run(mesh, &python, &args, 9)
}

fn go(mesh: &mut Mesh) -> Result<()> {
    let Some(go) = tool("go")? else { return Ok(()) };
    let client = mesh.run().dir().join("go-client");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/go");
    let mut build = Command::new(go);
    build.current_dir(source).args(["build", "-o"]).arg(&client).arg(".");
    // It needs nothing but Go's own library.
    build.envs([("CGO_ENABLED", "0"), ("GOFLAGS", "-mod=mod"), ("GOPROXY", "off"), ("GOTOOLCHAIN", "local")]);
    let built = build.output()?;
    ensure!(built.status.success(), "go build: {}", String::from_utf8_lossy(&built.stderr));
    let ne = mesh.cluster("ne");
    let targets = [Frontend::V4, Frontend::V6].map(|f| ne.dialled(f).to_string());
    run(mesh, &client, &targets, 6)
}
