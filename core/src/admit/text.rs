//! Kubernetes' limits for the texts of a record.

use alloc::format;
use alloc::string::String;

use super::{Refusal, Rule};
use crate::object::Labels;

/// Longest DNS label, label value, port name, zone.
const LABEL: usize = 63;
/// Longest DNS subdomain: names of EndpointSlices and Nodes, prefixes of label keys.
const SUBDOMAIN: usize = 253;
/// All annotations of one object together.
const ANNOTATIONS: usize = 256 * 1024;
/// Zone hints of one endpoint.
const HINTS: usize = 8;

type Checked = Result<(), Refusal>;

/// A DNS label: the name of a Namespace, a Service, a host, a port.
pub(super) fn label(what: &str, text: &str) -> Checked {
    require(is_label(text), what, text, "a DNS label of at most 63 characters")
}

/// A DNS subdomain: the name of an EndpointSlice or a Node.
pub(super) fn subdomain(what: &str, text: &str) -> Checked {
    let ok = text.len() <= SUBDOMAIN && text.split('.').all(|part| part.len() <= SUBDOMAIN && is_dns(part));
    require(ok, what, text, "a DNS subdomain of at most 253 characters")
}

/// A port's name: empty, or a DNS label.
pub(super) fn port_name(text: &str) -> Checked {
    if text.is_empty() { Ok(()) } else { label("port name", text) }
}

/// A zone: a label's value.
pub(super) fn zone(text: &str) -> Checked {
    require(is_value(text), "zone", text, "a label value of at most 63 characters")
}

/// An endpoint's zone hints.
pub(super) fn hints<'a>(zones: impl ExactSizeIterator<Item = &'a String>) -> Checked {
    if zones.len() > HINTS {
        return Err(Refusal::new(Rule::TextLimit, &format!("{} zone hints: at most {HINTS}", zones.len())));
    }
    zones.into_iter().try_for_each(|text| zone(text))
}

/// Labels, or a selector.
pub(super) fn labels(labels: &Labels) -> Checked {
    labels.iter().try_for_each(|(key, value)| {
        self::key("label key", key)?;
        require(is_value(value), "label value", value, "a label value of at most 63 characters")
    })
}

/// Annotations: their keys as labels', their size together.
pub(super) fn annotations(annotations: &Labels) -> Checked {
    let size: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > ANNOTATIONS {
        return Err(Refusal::new(Rule::TextLimit, &format!("annotations of {size} bytes: at most {ANNOTATIONS}")));
    }
    annotations.keys().try_for_each(|key| self::key("annotation key", key))
}

/// A label's value.
pub(super) fn value(what: &str, text: &str) -> Checked {
    require(is_value(text), what, text, "a label value of at most 63 characters")
}

/// `[prefix/]name`, the prefix a DNS subdomain.
pub(super) fn key(what: &str, text: &str) -> Checked {
    let (prefix, name) = text.rsplit_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let prefix_ok = prefix.is_none_or(|p| p.len() <= SUBDOMAIN && !p.is_empty() && !p.contains('/'));
    require(prefix_ok && !name.is_empty() && is_value(name), what, text, "a qualified name")
}

fn is_label(text: &str) -> bool {
    text.len() <= LABEL && is_dns(text)
}

/// Lower-case letters, digits and inner hyphens.
fn is_dns(text: &str) -> bool {
    edges(text, |b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Empty, or letters, digits and inner `-_.`.
fn is_value(text: &str) -> bool {
    text.is_empty()
        || (text.len() <= LABEL
            && edges(text, |b| b.is_ascii_alphanumeric())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)))
}

fn edges(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|b| allowed(*b)) && bytes.last().is_some_and(|b| allowed(*b))
}

fn require(ok: bool, what: &str, text: &str, expected: &str) -> Checked {
    if ok {
        return Ok(());
    }
    Err(Refusal::new(Rule::TextLimit, &format!("{what} is not {expected}: {text:?}")))
}
