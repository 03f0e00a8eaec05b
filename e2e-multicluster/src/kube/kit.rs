//! Where `kubekit` is.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use crate::programs;

/// Finds kubekit: `TOMBOLO_KUBEKIT`, else the one that `cargo xtask setup --all` built.
///
/// # Errors
/// It was not built, or `TOMBOLO_KUBEKIT` names no file.
pub fn locate() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("TOMBOLO_KUBEKIT").map(PathBuf::from) {
        ensure!(given.is_file(), "TOMBOLO_KUBEKIT: {} is not there", given.display());
        return Ok(given);
    }
    let folder = programs::folder()?;
    let mut built = folder.ancestors().map(|dir| dir.join("tools/kubekit"));
    built.find(|path| path.is_file()).context("kubekit was not built: run `cargo xtask setup --all` (needs Go)")
}
