//! The programs of the workspace, as they were built beside this one.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// The folder with the workspace's binaries: `TOMBOLO_BIN_DIR`, else where this program is (for a test, one above).
///
/// # Errors
/// This program's own path is unknown.
pub fn folder() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("TOMBOLO_BIN_DIR") {
        return Ok(dir.into());
    }
    let exe = std::env::current_exe().context("find this program's own path")?;
    let dir = exe.parent().context("a program is in a folder")?;
    Ok(if dir.ends_with("deps") { dir.parent().unwrap_or(dir).to_owned() } else { dir.to_owned() })
}

/// The path of one of the workspace's programs.
///
/// # Errors
/// It was not built; the message says how to.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = folder()?.join(name);
    if !is_program(&path) {
        bail!("{} is not there: build it with `cargo build --workspace --bins`", path.display());
    }
    Ok(path)
}

/// The first program of that name on PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|p| is_program(p))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
