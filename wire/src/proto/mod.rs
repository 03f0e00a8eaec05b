//! The generated protobuf types, and how they become core's values. Nothing here leaves the crate.
//!
//! A value that this release does not know (an enum's number, an id out of range) is an error naming the field: an
//! unknown *field* is ignored, an unknown *meaning* is not guessed.

pub(crate) mod convert;
mod generated;

#[cfg(test)]
pub(crate) mod arbitrary;

pub(crate) use convert::{EnumField, cluster_id, policy};
#[cfg(feature = "admin")]
pub(crate) use convert::{cluster_name, port_number};
pub(crate) use generated::*;

/// A field whose value is missing or has no meaning here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is missing or not understood")]
pub(crate) struct Bad(pub(crate) &'static str);

/// A value of core's with its message. A trait of our own: the standard conversions would show the messages outside.
pub(crate) trait Wire: Sized {
    /// The generated type.
    type Message;

    /// The value's message.
    fn message(&self) -> Self::Message;
    /// The message's value.
    fn value(message: Self::Message) -> Result<Self, Bad>;
}

/// The value of a message field that must be there.
pub(crate) fn must<T: Wire>(field: Option<T::Message>, name: &'static str) -> Result<T, Bad> {
    T::value(field.ok_or(Bad(name))?)
}

/// The values of a repeated field.
pub(crate) fn all<T: Wire>(fields: Vec<T::Message>) -> Result<Vec<T>, Bad> {
    fields.into_iter().map(T::value).collect()
}

/// The messages of values.
pub(crate) fn messages<T: Wire>(values: &[T]) -> Vec<T::Message> {
    values.iter().map(T::message).collect()
}
