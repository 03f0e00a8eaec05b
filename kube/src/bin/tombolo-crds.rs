//! Writes the definitions of the custom resources into a directory: `cargo xtask manifests` runs it.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = PathBuf::from(env::args().nth(1).ok_or("usage: tombolo-crds DIRECTORY")?);
    fs::create_dir_all(&dir)?;
    for (name, yaml) in tombolo_kube::resources::manifests()? {
        fs::write(dir.join(name), yaml)?;
    }
    Ok(())
}
