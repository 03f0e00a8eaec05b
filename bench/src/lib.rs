//! What measurements share: [`figures`] for all of them, and for those of the datapath a [`ground`] to stand on, services
//! as [`tables`], [`rounds`] that take turns, and a [`clock`].
//!
//! A measurement is no test: it asserts that it measured what it says, and never a time.

pub mod clock;
pub mod figures;
pub mod ground;
pub mod rounds;
pub mod tables;
