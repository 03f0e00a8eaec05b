//! `cargo xtask bench`: builds what measures, runs it, and puts the figures of all into one file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::shell::{cargo, command, run};
use crate::{demo, etcd, setup};

/// What a measurement needs built.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// The datapath alone.
    Datapath,
    /// All programs of a mesh, and etcd.
    Mesh,
}

/// A measurement.
struct Bench {
    name: &'static str,
    needs: Needs,
    /// Arguments with which it takes a moment, where it can.
    smoke: &'static [&'static str],
}

/// The measurements there are, each a program called `bench-` and its name.
const BENCHES: [Bench; 3] = [
    Bench { name: "connect", needs: Needs::Datapath, smoke: &["--rounds", "1", "--each", "20", "--services", "20"] },
    Bench {
        name: "program",
        needs: Needs::Datapath,
        smoke: &["--rounds", "1", "--services", "100", "--switches", "200"],
    },
    Bench { name: "propagation", needs: Needs::Mesh, smoke: &[] },
];

/// How a measurement says that this machine lacks something, and that it said what.
const LACKING: i32 = 2;

/// Runs one measurement, or all.
pub(crate) fn bench(root: &Path, name: Option<&str>, json: Option<&Path>) -> Result<()> {
    let chosen: Vec<_> = BENCHES.iter().filter(|bench| name.is_none_or(|name| name == bench.name)).collect();
    if chosen.is_empty() {
        let names: Vec<_> = BENCHES.iter().map(|bench| bench.name).collect();
        bail!("no measurement is called {:?}; there are: {}", name.unwrap_or_default(), names.join(", "));
    }
    let mut files = Vec::new();
    for bench in chosen {
        let file = figures_of(root, bench)?;
        let mut program = program(root, bench, "release")?;
        run(program.arg("--json").arg(&file))?;
        files.push(file);
    }
    match json {
        Some(json) => merge(&files, json),
        None => Ok(()),
    }
}

/// A step of `cargo xtask test`: a few operations of each measurement of the datapath, so that none rots. It says nothing
/// about time.
pub(crate) fn smoke(root: &Path) -> Result<()> {
    for bench in BENCHES.iter().filter(|bench| !bench.smoke.is_empty()) {
        let file = figures_of(root, bench)?;
        let mut program = program(root, bench, "dev")?;
        let output = program.args(bench.smoke).arg("--json").arg(&file).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(LACKING) {
            let forbidden = std::env::var_os("TOMBOLO_FORBID_SKIPS").is_some_and(|v| v == "1");
            ensure!(!forbidden, "skips are forbidden: {said}");
            eprintln!("SKIPPED: bench-{}: {}", bench.name, said.trim());
            continue;
        }
        ensure!(output.status.success(), "bench-{}: {}\n{said}", bench.name, output.status);
        let count = read(&file)?["figures"].as_array().map_or(0, Vec::len);
        ensure!(count > 0, "bench-{} has no figures", bench.name);
        println!("bench-{}: {count} figures", bench.name);
    }
    Ok(())
}

/// Where a measurement puts its figures.
fn figures_of(root: &Path, bench: &Bench) -> Result<PathBuf> {
    let folder = root.join("target/bench");
    fs::create_dir_all(&folder)?;
    Ok(folder.join(format!("{}.json", bench.name)))
}

/// Builds a measurement; it may be started.
fn program(root: &Path, bench: &Bench, profile: &str) -> Result<std::process::Command> {
    let name = format!("bench-{}", bench.name);
    match bench.needs {
        Needs::Mesh => {
            let binaries = demo::build(root, profile)?;
            let mut program = command(root, binaries.join(name));
            program.env("TOMBOLO_BIN_DIR", &binaries).env("TOMBOLO_ETCD", etcd::provide(root)?.binary);
            Ok(program)
        }
        Needs::Datapath => {
            setup::build_tools(root)?;
            run(cargo(root).args(["build", "--package", "tombolo-bench", "--bins", "--profile", profile]))?;
            Ok(command(root, demo::binaries(root, profile).join(name)))
        }
    }
}

/// One file with all figures. They are of one machine.
fn merge(files: &[PathBuf], into: &Path) -> Result<()> {
    let mut figures = Vec::new();
    let mut machine = Value::Null;
    for file in files {
        let mut read = read(file)?;
        figures.extend(read["figures"].as_array_mut().map(std::mem::take).unwrap_or_default());
        machine = read["machine"].take();
    }
    let text = serde_json::to_string_pretty(&json!({ "machine": machine, "figures": figures }))? + "\n";
    fs::write(into, text).with_context(|| format!("write {}", into.display()))
}

fn read(file: &Path) -> Result<Value> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no JSON", file.display()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{merge, read};

    #[test]
    fn one_file_has_the_figures_of_all() {
        let folder = std::env::temp_dir().join(format!("tombolo-figures-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let files: Vec<_> = ["a", "b"]
            .into_iter()
            .map(|name| {
                let file = folder.join(name);
                let figures = json!({ "machine": "this", "figures": [{ "name": name }, { "name": "more" }] });
                std::fs::write(&file, figures.to_string()).unwrap();
                file
            })
            .collect();
        let into = folder.join("all.json");
        merge(&files, &into).unwrap();
        let all = read(&into).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let names: Vec<_> = all["figures"].as_array().unwrap().iter().map(|figure| &figure["name"]).collect();
        assert_eq!(names, ["a", "more", "b", "more"]);
        assert_eq!(all["machine"], "this");
    }
}
