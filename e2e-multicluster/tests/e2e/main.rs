//! End-to-end tests: whole systems on this machine, one case after the other.
//!
//! `cargo test -p tombolo-e2e --test e2e [-- PART_OF_A_NAME…]` runs all cases, or those whose name has such a part.

mod admission;
mod clients;
mod faults;
mod flows;
mod ground;
mod harness;
mod identity;
mod intruder;
mod life;
mod orders;
mod silence;
mod sockets;
mod steps;

use std::process::ExitCode;

use harness::{Case, Harness};

fn main() -> ExitCode {
    if std::env::var_os(ground::OWNER).is_some() {
        return if ground::own_and_wait().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    // Before what else this machine does, and all that is started with it: figures are of the mesh, not of its neighbours.
    tombolo_e2e::clock::go_first();
    let areas = [
        ground::CASES,
        steps::CASES,
        clients::CASES,
        sockets::CASES,
        life::CASES,
        flows::CASES,
        faults::CASES,
        silence::CASES,
        admission::CASES,
        identity::CASES,
        orders::CASES,
    ];
    let cases: Vec<Case> = areas.concat();
    Harness::from_arguments().run(&cases)
}
