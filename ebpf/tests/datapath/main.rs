//! The programs under traffic: each test has a network namespace with nothing but its loopback, a child cgroup with the
//! programs attached, and clients and servers that are this binary again.
//!
//! Needs root, cgroup v2 and bpf(2). Without them a test says SKIPPED, or fails where `TOMBOLO_FORBID_SKIPS=1`.
//! `TOMBOLO_BPF_OBJECT` names another object than the committed one.

#![expect(clippy::unwrap_used, reason = "every function here is part of a test")]

mod flows;
mod kills;
mod life;
mod sockets;
mod sticky;
mod support;
mod switches;
mod tables;
mod traffic;
mod udp;

/// Not a test: what the binary does when a test starts it as a client or a server.
#[test]
fn role() {
    support::role::play();
}
