//! A task message's headers (`celery/app/amqp.py: as_task_v2`, and what tracers put among them): from JSON, or from an AMQP table.

use std::borrow::Cow;

use super::envelope::Text;
use super::json::{NotThat, Reader};
use super::traceparent::TraceParent;
use crate::wire::amqp::{Field, Table};

/// The headers that are read. A text that is null is none.
#[derive(Debug, Default)]
pub struct Headers<'a> {
    pub(super) task: Option<Text<'a>>,
    pub(super) id: Option<Text<'a>>,
    pub(super) root_id: Option<Text<'a>>,
    pub(super) parent_id: Option<Text<'a>>,
    pub(super) group: Option<Text<'a>>,
    pub(super) retries: Option<u32>,
    pub(super) eta: Option<Text<'a>>,
    pub(super) expires: Option<Text<'a>>,
    pub(super) origin: Option<Text<'a>>,
    pub(super) ignore_result: Option<bool>,
    pub(super) replaced_task_nesting: Option<u32>,
    pub(super) compression: Option<Text<'a>>,
    pub(super) traceparent: Option<Text<'a>>,
    pub(super) tracestate: Option<Text<'a>>,
    pub(super) b3: Option<Text<'a>>,
    pub(super) b3_trace_id: Option<Text<'a>>,
    pub(super) b3_span_id: Option<Text<'a>>,
    pub(super) b3_sampled: Option<Text<'a>>,
    /// As a JSON object.
    pub(super) stamps: Option<Cow<'a, str>>,
    pub(super) hostname: Option<Text<'a>>,
    pub(super) argsrepr: Option<Text<'a>>,
    pub(super) kwargsrepr: Option<Text<'a>>,
}

impl<'a> Headers<'a> {
    /// From JSON.
    pub(super) fn read(json: &mut Reader<'a>) -> Result<Self, NotThat> {
        let mut headers = Self::default();
        json.members(|name, value| {
            match name {
                "retries" => headers.retries = value.number()?,
                "replaced_task_nesting" => headers.replaced_task_nesting = value.number()?,
                "ignore_result" => headers.ignore_result = value.bool()?,
                "stamps" => {
                    headers.stamps = Some(Cow::Borrowed(value.raw()?)).filter(|json| json != "null");
                }
                name => match headers.text(name) {
                    Some(slot) => *slot = value.text()?,
                    None => value.skip()?,
                },
            }
            Ok(())
        })?;
        Ok(headers)
    }

    /// The same headers from an AMQP table, in whatever order: a broker that dead-letters a message sorts them.
    pub(super) fn of_table(table: &Table<'a>) -> Result<Self, NotThat> {
        let mut headers = Self::default();
        for (name, field) in table.fields() {
            match name {
                "retries" => headers.retries = number(field)?,
                "replaced_task_nesting" => headers.replaced_task_nesting = number(field)?,
                "ignore_result" => {
                    headers.ignore_result = match field {
                        Field::Bool(ignore) => Some(ignore),
                        Field::Void => None,
                        _ => return Err(NotThat),
                    };
                }
                "stamps" => {
                    if let Field::Table(stamps) = field {
                        headers.stamps = Some(Cow::Owned(stamps_json(&stamps)));
                    }
                }
                name => {
                    if let Some(slot) = headers.text(name) {
                        *slot = match field {
                            Field::Void => None,
                            field => Some(Text(Cow::Borrowed(field.text().ok_or(NotThat)?))),
                        };
                    }
                }
            }
        }
        Ok(headers)
    }

    /// Where the header of this name is kept, if it is a text that is.
    fn text(&mut self, name: &str) -> Option<&mut Option<Text<'a>>> {
        Some(match name {
            "task" => &mut self.task,
            "id" => &mut self.id,
            "root_id" => &mut self.root_id,
            "parent_id" => &mut self.parent_id,
            "group" => &mut self.group,
            "eta" => &mut self.eta,
            "expires" => &mut self.expires,
            "origin" => &mut self.origin,
            "compression" => &mut self.compression,
            "traceparent" => &mut self.traceparent,
            "tracestate" => &mut self.tracestate,
            "b3" => &mut self.b3,
            "x-b3-traceid" | "X-B3-TraceId" => &mut self.b3_trace_id,
            "x-b3-spanid" | "X-B3-SpanId" => &mut self.b3_span_id,
            "x-b3-sampled" | "X-B3-Sampled" => &mut self.b3_sampled,
            "hostname" => &mut self.hostname,
            "argsrepr" => &mut self.argsrepr,
            "kwargsrepr" => &mut self.kwargsrepr,
            _ => return None,
        })
    }
}

impl Headers<'_> {
    /// The sender's trace context: W3C's before B3's.
    pub(super) fn context(&self) -> Option<TraceParent> {
        let w3c = || TraceParent::parse(self.traceparent.as_ref()?.as_str());
        let single = || TraceParent::parse_b3(self.b3.as_ref()?.as_str());
        let several = || {
            TraceParent::parse_b3_fields(
                self.b3_trace_id.as_ref()?.as_str(),
                self.b3_span_id.as_ref()?.as_str(),
                self.b3_sampled.as_ref().map(Text::as_str),
            )
        };
        w3c().or_else(single).or_else(several)
    }
}

fn number(field: Field<'_>) -> Result<Option<u32>, NotThat> {
    match field {
        Field::Int(n) => u32::try_from(n).map(Some).map_err(|_| NotThat),
        Field::Void => Ok(None),
        _ => Err(NotThat),
    }
}

/// Stamps as they would stand in JSON: texts, numbers and lists of them; others are left out.
fn stamps_json(table: &Table<'_>) -> String {
    let scalar = |field: &Field<'_>| match field {
        Field::Int(n) => Some((*n).into()),
        Field::Bool(b) => Some((*b).into()),
        field => field.text().map(serde_json::Value::from),
    };
    let value = |field: Field<'_>| match field {
        Field::Array(array) => Some(array.values().filter_map(|field| scalar(&field)).collect()),
        field => scalar(&field),
    };
    let stamps: serde_json::Map<_, _> = table
        .fields()
        .filter_map(|(name, field)| Some((name.to_owned(), value(field)?)))
        .collect();
    serde_json::Value::Object(stamps).to_string()
}
