//! The configuration file.

use std::path::{Path, PathBuf};

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};

use super::UsageError;

/// The configuration file: a TOML table whose keys are the long flags of all commands.
#[derive(Debug, Default)]
pub struct File {
    pub(super) path: PathBuf,
    pub(super) table: toml::Table,
}

impl File {
    /// Reads the file, or is empty when there is none to read.
    ///
    /// # Errors
    /// It can't be read, is not TOML, or has a key that is not in `keys`.
    pub fn read(path: Option<&Path>, keys: &[String]) -> Result<Self, UsageError> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| UsageError(format!("can't read config file {shown}: {error}")))?;
        let table: toml::Table = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| {
                1 + text[..span.start.min(text.len())].matches('\n').count()
            });
            UsageError(format!("config file {shown}, line {line}: {}", error.message()))
        })?;
        if let Some(key) = table.keys().find(|key| !keys.contains(key)) {
            return Err(UsageError(format!(
                "config file {shown}: unknown key `{}`; known are {}",
                key.escape_default(),
                keys.join(", ")
            )));
        }
        Ok(Self {
            path: path.to_owned(),
            table,
        })
    }

    pub(crate) fn group<T: DeserializeOwned>(&self) -> Result<T, UsageError> {
        // Key by key, so that the error can say which one is wrong.
        T::deserialize(toml::Value::Table(self.table.clone())).map_err(|error| {
            let culprit = self.table.iter().find(|(key, value)| {
                let one = toml::Table::from_iter([((*key).clone(), (*value).clone())]);
                T::deserialize(toml::Value::Table(one)).is_err()
            });
            let key = culprit.map_or("", |(key, _)| key);
            UsageError(format!(
                "config file {}, key `{key}`: {}",
                self.path.display(),
                error.message()
            ))
        })
    }
}

/// A list, or its only element without brackets.
pub(super) fn one_or_many<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let many = match toml::Value::deserialize(deserializer)? {
        toml::Value::Array(many) => many,
        one => vec![one],
    };
    let many: Result<Vec<T>, _> = many.into_iter().map(T::deserialize).collect();
    many.map(Some).map_err(|error| D::Error::custom(error.message()))
}
