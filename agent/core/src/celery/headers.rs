//! A task message's headers (`celery/app/amqp.py: as_task_v2`, and what tracers put among them): from JSON, or from an AMQP table.

use std::borrow::Cow;

use super::json::{Expected, NotThat, Reader, Text};
use super::traceparent::TraceParent;
use crate::wire::amqp::{Field, Table};

mod usual;

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

/// A header's name. What is of no use is named where it comes as a rule.
#[derive(Clone, Copy)]
enum Name {
    Task,
    Id,
    RootId,
    ParentId,
    Group,
    Retries,
    Eta,
    Expires,
    Origin,
    IgnoreResult,
    ReplacedTaskNesting,
    Compression,
    Traceparent,
    Tracestate,
    B3,
    B3TraceId,
    B3SpanId,
    B3Sampled,
    Stamps,
    Hostname,
    Argsrepr,
    Kwargsrepr,
    Unused,
}

/// In Celery's order.
const NAMES: Expected<Name> = Expected::new(&[
    (r#""lang": "#, Name::Unused),
    (r#""task": "#, Name::Task),
    (r#""id": "#, Name::Id),
    (r#""shadow": "#, Name::Unused),
    (r#""eta": "#, Name::Eta),
    (r#""expires": "#, Name::Expires),
    (r#""group": "#, Name::Group),
    (r#""group_index": "#, Name::Unused),
    (r#""retries": "#, Name::Retries),
    (r#""timelimit": "#, Name::Unused),
    (r#""root_id": "#, Name::RootId),
    (r#""parent_id": "#, Name::ParentId),
    (r#""argsrepr": "#, Name::Argsrepr),
    (r#""kwargsrepr": "#, Name::Kwargsrepr),
    (r#""origin": "#, Name::Origin),
    (r#""ignore_result": "#, Name::IgnoreResult),
    (r#""replaced_task_nesting": "#, Name::ReplacedTaskNesting),
    (r#""stamped_headers": "#, Name::Unused),
    (r#""stamps": "#, Name::Stamps),
    (r#""compression": "#, Name::Compression),
    (r#""traceparent": "#, Name::Traceparent),
    (r#""tracestate": "#, Name::Tracestate),
    (r#""hostname": "#, Name::Hostname),
    (r#""b3": "#, Name::B3),
    (r#""x-b3-traceid": "#, Name::B3TraceId),
    (r#""X-B3-TraceId": "#, Name::B3TraceId),
    (r#""x-b3-spanid": "#, Name::B3SpanId),
    (r#""X-B3-SpanId": "#, Name::B3SpanId),
    (r#""x-b3-sampled": "#, Name::B3Sampled),
    (r#""X-B3-Sampled": "#, Name::B3Sampled),
]);

impl<'a> Headers<'a> {
    /// From JSON.
    pub(super) fn read(json: &mut Reader<'a>, headers: &mut Self) -> Result<(), NotThat> {
        let begun = headers.usual(json);
        json.members(begun, NAMES, |name, value| {
            match name {
                Name::Unused => value.skip()?,
                Name::Retries => headers.retries = value.number()?,
                Name::ReplacedTaskNesting => headers.replaced_task_nesting = value.number()?,
                Name::IgnoreResult => headers.ignore_result = value.bool()?,
                Name::Stamps => {
                    headers.stamps = Some(Cow::Borrowed(value.raw()?)).filter(|json| json != "null");
                }
                name => {
                    if let Some(slot) = headers.text(name) {
                        *slot = value.text()?;
                    }
                }
            }
            Ok(())
        })
    }

    /// The same headers from an AMQP table, in whatever order: a broker that dead-letters a message sorts them.
    pub(super) fn read_table(table: &Table<'a>, headers: &mut Self) -> Result<(), NotThat> {
        let mut fields = table.texts();
        headers.usual_fields(&mut fields);
        let mut names = NAMES;
        for (name, field, text) in fields {
            let Some(name) = names.find(name) else { continue };
            match name {
                Name::Unused => {}
                Name::Retries => headers.retries = number(field)?,
                Name::ReplacedTaskNesting => headers.replaced_task_nesting = number(field)?,
                Name::IgnoreResult => {
                    headers.ignore_result = match field {
                        Field::Bool(ignore) => Some(ignore),
                        Field::Void => None,
                        _ => return Err(NotThat),
                    };
                }
                Name::Stamps => {
                    if let Field::Table(stamps) = field {
                        headers.stamps = Some(Cow::Owned(stamps_json(&stamps)));
                    }
                }
                name => {
                    if let Some(slot) = headers.text(name) {
                        *slot = match field {
                            Field::Void => None,
                            _ => Some(Text::plain(text.ok_or(NotThat)?)),
                        };
                    }
                }
            }
        }
        Ok(())
    }

    /// Where the header of this name is kept, if it is a text that is.
    fn text(&mut self, name: Name) -> Option<&mut Option<Text<'a>>> {
        Some(match name {
            Name::Task => &mut self.task,
            Name::Id => &mut self.id,
            Name::RootId => &mut self.root_id,
            Name::ParentId => &mut self.parent_id,
            Name::Group => &mut self.group,
            Name::Eta => &mut self.eta,
            Name::Expires => &mut self.expires,
            Name::Origin => &mut self.origin,
            Name::Compression => &mut self.compression,
            Name::Traceparent => &mut self.traceparent,
            Name::Tracestate => &mut self.tracestate,
            Name::B3 => &mut self.b3,
            Name::B3TraceId => &mut self.b3_trace_id,
            Name::B3SpanId => &mut self.b3_span_id,
            Name::B3Sampled => &mut self.b3_sampled,
            Name::Hostname => &mut self.hostname,
            Name::Argsrepr => &mut self.argsrepr,
            Name::Kwargsrepr => &mut self.kwargsrepr,
            Name::Retries | Name::ReplacedTaskNesting | Name::IgnoreResult | Name::Stamps | Name::Unused => {
                return None;
            }
        })
    }
}

impl Headers<'_> {
    /// The sender's trace context: W3C's before B3's.
    pub(super) fn context(&self) -> Option<TraceParent> {
        let w3c = || TraceParent::parse(&self.traceparent?.get());
        let single = || TraceParent::parse_b3(&self.b3?.get());
        let several = || {
            TraceParent::parse_b3_fields(
                &self.b3_trace_id?.get(),
                &self.b3_span_id?.get(),
                self.b3_sampled.map(Text::get).as_deref(),
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
