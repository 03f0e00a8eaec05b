//! Builds Helm, which the module in `manifests/helm` pins.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::go::Module;

/// Helm's own program, from Helm's own module.
pub(crate) const MODULE: Module = Module {
    name: "helm",
    folder: "manifests/helm",
    package: "helm.sh/helm/v3/cmd/helm",
    tags: "",
    set: &[],
    takes: "four minutes",
};

/// Helm; nothing where Go is missing and that may be skipped.
pub(crate) fn provide(root: &Path) -> Result<Option<PathBuf>> {
    MODULE.provide(root)?.or_skip("rendering the chart")
}
