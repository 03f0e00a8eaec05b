//! Builds kubekit: the real components of a Kubernetes cluster in one binary, for tests.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::go::Module;

/// The version is in `go.mod` too. The components say it to their clients, so it is set as their own builds set it.
pub(crate) const MODULE: Module = Module {
    name: "kubekit",
    folder: "e2e-multicluster/kubekit",
    package: ".",
    tags: "grpcnotrace",
    set: &[
        ("k8s.io/component-base/version.gitVersion", "v1.36.3"),
        ("k8s.io/component-base/version.gitMajor", "1"),
        ("k8s.io/component-base/version.gitMinor", "36"),
    ],
    takes: "five to ten minutes",
};

/// kubekit; nothing where Go is missing and that may be skipped.
pub(crate) fn provide(root: &Path) -> Result<Option<PathBuf>> {
    MODULE.provide(root)?.or_skip("tests with a Kubernetes API server")
}
