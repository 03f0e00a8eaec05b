//! What build.rs generates from `proto/`.
#![expect(unreachable_pub, reason = "generated code, private to the crate")]
#![cfg_attr(
    feature = "admin",
    expect(
        unused_qualifications,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        reason = "generated code"
    )
)]

include!(concat!(env!("OUT_DIR"), "/tombolo.v1.rs"));
