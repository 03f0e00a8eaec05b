//! Fixtures, generators, and two deliberately stupid models to test the rules against: [`reference`] answers what should
//! serve, by scanning everything that was said; [`kernel`] is the datapath's maps, with programs that still run.
//!
//! Only ever a dev-dependency, so it may panic: a panic here is a failed test.

pub mod fixture;
pub mod generate;
pub mod kernel;
pub mod reference;
pub mod vectors;
