//! Conditions as Kubernetes knows them, and the status that has nothing else.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// Whether the effect of a drain or a grant is in force.
pub const HONOURED: &str = "Honoured";

/// A condition's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody knows.
    Unknown,
}

/// What is known of an object whose only question is whether it is in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HonouredStatus {
    /// `Honoured`: whether the mesh acts by this object.
    #[serde(default)]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// The generation of the object that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

impl ConditionStatus {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A condition that begins at `unix_ms`.
pub fn condition(
    kind: &str,
    (status, reason): (ConditionStatus, &str),
    message: impl Into<String>,
    generation: Option<i64>,
    unix_ms: u64,
) -> Condition {
    // The API has seconds. A time outside its range can only come of a clock that is wrong.
    let seconds = i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX);
    Condition {
        type_: kind.to_owned(),
        status: status.as_str().to_owned(),
        reason: reason.to_owned(),
        message: message.into(),
        last_transition_time: Time(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)),
        observed_generation: generation,
    }
}

/// Puts a condition among others. One whose status stays keeps the time since when it is so.
pub fn set_condition(conditions: &mut Vec<Condition>, mut new: Condition) {
    match conditions.iter_mut().find(|old| old.type_ == new.type_) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time = old.last_transition_time.clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}

/// Whether two say the same, whenever they began.
pub fn same_but_time(a: &Condition, b: &Condition) -> bool {
    let said = |c: &Condition| (c.type_.clone(), c.status.clone(), c.reason.clone(), c.message.clone());
    said(a) == said(b) && a.observed_generation == b.observed_generation
}

/// The schema of a list of conditions: one per type, so that several writers may each own theirs.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": { "type": "string", "maxLength": 316, "description": "What this is about." },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it is so." },
                "reason": {
                    "type": "string", "minLength": 1, "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                    "description": "Why, in one word for programs."
                },
                "message": { "type": "string", "maxLength": 32768, "description": "Why, and what to do, for people." },
                "lastTransitionTime": { "type": "string", "format": "date-time", "description": "Since when it is so." },
                "observedGeneration": {
                    "type": "integer", "format": "int64", "minimum": 0,
                    "description": "The generation of the object that this speaks of."
                }
            }
        }
    })
}

/// The schema of a number of things: the API knows no unsigned formats.
pub(super) fn count(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int64", "minimum": 0, "maximum": u32::MAX })
}
