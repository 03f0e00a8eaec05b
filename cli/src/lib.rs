//! The command line of Tombolo.
//!
//! A command is a function from arguments to a report; `output` prints reports, in words (`render`) or as
//! JSON (the values of `tombolo_core::report`). A cluster is a directory, whose apiserver and agents are asked over the
//! admin protocol, or a context of a kubeconfig (`kube`).

mod app;
mod args;
mod certs;
mod clock;
mod cluster;
mod connect;
mod flows;
mod init;
mod kube;
mod output;
mod query;
mod render;
mod status;

pub use app::run;
pub use args::Cli;
