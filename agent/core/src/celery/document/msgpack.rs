//! msgpack, by its library.

use rmpv::Value as Packed;
use serde_json::Value;

use super::DEEPEST;

/// The first value in `bytes`, which Python's bytes are left out of; `None` where there is none.
pub(super) fn read(mut bytes: &[u8]) -> Option<Value> {
    rmpv::decode::read_value_with_max_depth(&mut bytes, DEEPEST)
        .ok()
        .map(json)
}

/// As deep as the library read it.
fn json(value: Packed) -> Value {
    match value {
        Packed::Boolean(value) => value.into(),
        Packed::Integer(n) => n.as_i64().map_or_else(|| n.as_u64().into(), Value::from),
        Packed::F32(n) => n.into(),
        Packed::F64(n) => n.into(),
        Packed::String(text) => text.into_str().into(),
        Packed::Array(items) => items.into_iter().map(json).collect(),
        Packed::Map(pairs) => {
            let pair = |(key, value): (Packed, Packed)| Some((key.as_str()?.to_owned(), json(value)));
            Value::Object(pairs.into_iter().filter_map(pair).collect())
        }
        Packed::Nil | Packed::Binary(_) | Packed::Ext(..) => Value::Null,
    }
}
