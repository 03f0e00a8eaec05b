//! A place to dial a service in, and what dials and answers there.

pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod kernel;
pub(crate) mod lab;
pub(crate) mod plans;
pub(crate) mod role;
pub(crate) mod trace;
