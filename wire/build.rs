//! Generates the private protobuf types: own records always, the admin services with the feature `admin`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let admin = std::env::var_os("CARGO_FEATURE_ADMIN").is_some();
    let files: &[&str] = if admin { &["proto/own.proto", "proto/admin.proto"] } else { &["proto/own.proto"] };
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
