//! YAML, by its library, which bounds depth and how often aliases are followed, but not what they repeat.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::room::Room;

/// The document; `None` where it is none, has keys that JSON has not, or is too large.
pub(super) fn read(bytes: &[u8]) -> Option<Value> {
    let document = serde_yaml_ng::Deserializer::from_slice(bytes);
    Reader(&mut Room::new()).deserialize(document).ok()
}

/// Reads one value.
struct Reader<'r>(&'r mut Room);

fn too_large<E: Error>() -> E {
    E::custom("too large")
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.0.value().ok_or_else(too_large)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what JSON has")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, n: i64) -> Result<Value, E> {
        Ok(n.into())
    }

    fn visit_u64<E: Error>(self, n: u64) -> Result<Value, E> {
        Ok(n.into())
    }

    fn visit_f64<E: Error>(self, n: f64) -> Result<Value, E> {
        Ok(n.into())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.0.text(text).map(Value::String).ok_or_else(too_large)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Reader(self.0))? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(Value::String(key)) = pairs.next_key_seed(Key(self.0))? {
            map.insert(key, pairs.next_value_seed(Reader(self.0))?);
        }
        Ok(map.into())
    }
}

/// Reads a key: a text.
struct Key<'r>(&'r mut Room);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_str(Reader(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: scalars of every kind, lists, mappings, and a list that stands twice.
    /// Guarantees: what JSON would say; what it can't is refused.
    #[test]
    fn values() {
        let read_str = |text: &str| read(text.as_bytes());
        let want = serde_json::json!({"a": [1, -2, 1.5, null, true, "x"], "b": {"c": "1"}});
        assert_eq!(read_str("a: [1, -2, 1.5, ~, true, x]\nb: {c: '1'}"), Some(want));
        let want = serde_json::json!([[1, 2], [1, 2]]);
        assert_eq!(read_str("- &l [1, 2]\n- *l\n"), Some(want));
        assert_eq!(read_str("? [a]\n: 1\n"), None);
        assert_eq!(read_str("- ]"), None);
    }

    /// Scenario: a text of half a MiB that is referred to 10,000 times, as an item and as a key.
    /// Guarantees: given up, without the 5 GB that it stands for.
    #[test]
    fn repetition() {
        let text = "x".repeat(500_000);
        let items = format!("- &a {text}\n{}", "- *a\n".repeat(10_000));
        assert_eq!(read(items.as_bytes()), None);
        let keys = format!("- &a {text}\n{}", "- {*a : 1}\n".repeat(10_000));
        assert_eq!(read(keys.as_bytes()), None);
    }
}
