//! Values out of a foreign configuration, with errors that name the key.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};

/// A table of a foreign configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    path: &'a Path,
    value: &'a Value,
    place: &'a str,
}

impl<'a> Fields<'a> {
    /// The whole file.
    pub fn new(path: &'a Path, value: &'a Value) -> Self {
        Self { path, value, place: "" }
    }

    /// The table under `key`.
    pub fn table(&self, key: &'a str) -> Result<Self> {
        let value = self.value.get(key).filter(|v| v.is_object());
        Ok(Self { path: self.path, value: value.ok_or_else(|| self.error(key, "a table is missing"))?, place: key })
    }

    /// Whether there is something under `key`.
    pub fn has(&self, key: &str) -> bool {
        self.value.get(key).is_some_and(|v| !v.is_null())
    }

    /// An error about `key`.
    pub fn error(&self, key: &str, what: impl std::fmt::Display) -> Error {
        let place = if self.place.is_empty() { key.to_string() } else { format!("{}.{key}", self.place) };
        Error::config(self.path, format!("{place}: {what}"))
    }

    fn read<T>(&self, key: &str, what: &str, default: Option<T>, get: impl Fn(&'a Value) -> Option<T>) -> Result<T> {
        match (self.value.get(key).filter(|v| !v.is_null()), default) {
            (Some(value), _) => get(value).ok_or_else(|| self.error(key, format!("{value}: must be {what}"))),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.error(key, "is missing")),
        }
    }

    /// A size.
    pub fn size(&self, key: &str) -> Result<usize> {
        self.size_or(key, None)
    }

    /// A size, or what it is where nothing is said.
    pub fn size_or(&self, key: &str, default: impl Into<Option<usize>>) -> Result<usize> {
        self.read(key, "a size", default.into(), |v| v.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    /// A number, or what it is where nothing is said.
    pub fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        self.read(key, "a number", Some(default), Value::as_f64)
    }

    /// Yes or no, or what it is where nothing is said.
    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        self.read(key, "true or false", Some(default), Value::as_bool)
    }

    /// A word, or what it is where nothing is said.
    pub fn word_or(&self, key: &str, default: &'a str) -> Result<&'a str> {
        self.read(key, "a word", Some(default), Value::as_str)
    }

    /// A list of sizes.
    pub fn sizes(&self, key: &str) -> Result<Vec<usize>> {
        let sizes = |v: &Value| v.as_array()?.iter().map(|n| n.as_u64().and_then(|n| usize::try_from(n).ok())).collect();
        self.read(key, "a list of sizes", None, sizes)
    }

    /// Refuses any value but `wanted`, which is also what nothing means.
    pub fn must_be(&self, key: &str, wanted: impl Into<Value>) -> Result<()> {
        let wanted = wanted.into();
        let same = |v: &Value| *v == wanted || v.as_f64().is_some_and(|a| wanted.as_f64() == Some(a));
        match self.value.get(key).filter(|v| !v.is_null()) {
            Some(value) if !same(value) => Err(self.error(key, format!("{value}: this build hosts {wanted} only"))),
            _ => Ok(()),
        }
    }
}
