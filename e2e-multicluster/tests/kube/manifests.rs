//! What the chart renders, as a real API server judges it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use tombolo_kube::apply::{self, Document};
use tombolo_kube::objects::How;

use crate::lab::{Case, Lab};

pub(crate) const CASES: &[Case] =
    &[Case { name: "manifests: an API server takes every profile, and refuses a typo", body: profiles }];

/// The kinds of cert-manager and of the Prometheus operator, as far as the chart uses them.
const FOREIGN: &str = include_str!("data/foreign-crds.yaml");

/// A dry run with strict validation of fields. Namespaces and definitions have to be there before, so those are written.
fn profiles(lab: &mut Lab) -> Result<()> {
    let api = lab.cluster.admin();
    let run = |documents: Vec<Document>, how| {
        api.run(move |objects| async move { Ok(apply::apply(&objects, &documents, how).await?.len()) })
    };
    for text in yaml_files("manifests/crds")?.into_iter().map(|(_, text)| text).chain([FOREIGN.to_owned()]) {
        run(apply::read(&text)?, How::Write)?;
    }
    let plain = yaml_files("manifests/plain")?;
    ensure!(plain.len() == 6, "{} profiles", plain.len());
    for (path, text) in &plain {
        let (namespaces, others): (Vec<_>, Vec<_>) =
            apply::read(text)?.into_iter().partition(|document| document.name.kind.kind == "Namespace");
        ensure!(run(namespaces, How::Write)? == 2, "{}: two Namespaces", path.display());
        run(others, How::DryRun).with_context(|| path.display().to_string())?;
    }
    // That this can fail at all.
    let typo = plain[0].1.replace("readOnlyRootFilesystem", "readonlyRootFilesystem");
    let documents = apply::read(&typo)?.into_iter().filter(|document| document.name.kind.kind == "DaemonSet");
    let refused = run(documents.collect(), How::DryRun).err().context("a misspelt field is refused")?;
    ensure!(format!("{refused:#}").contains("readonlyRootFilesystem"), "{refused:#}");
    Ok(())
}

fn yaml_files(folder: &str) -> Result<Vec<(PathBuf, String)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        files.push((path.clone(), fs::read_to_string(path)?));
    }
    files.sort();
    Ok(files)
}
