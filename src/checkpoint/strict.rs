//! The last check of a strict file: serde's `deny_unknown_fields` lets anything stand beside the `kind` of a variant without fields.

use serde::Serialize;
use serde_json::Value;

/// Refuses keys of `given` that `read`, the configuration made of it, does not write.
///
/// # Errors
/// The first such key with its place, or what cannot be written as JSON.
pub fn no_unknown_keys(given: &impl Serialize, read: &impl Serialize) -> Result<(), String> {
    let value = |v: serde_json::Result<Value>| v.map_err(|e| e.to_string());
    let (given, read) = (value(serde_json::to_value(given))?, value(serde_json::to_value(read))?);
    first_unknown(&given, &read, "").map_or(Ok(()), Err)
}

fn first_unknown(given: &Value, read: &Value, place: &str) -> Option<String> {
    match (given, read) {
        (Value::Object(given), Value::Object(read)) => given.iter().find_map(|(key, value)| match read.get(key) {
            Some(known) => first_unknown(value, known, &if place.is_empty() { key.clone() } else { format!("{place}.{key}") }),
            None => Some(format!("unknown field `{key}` in `{place}`")),
        }),
        (Value::Array(given), Value::Array(read)) => given.iter().zip(read).find_map(|(a, b)| first_unknown(a, b, place)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_the_first_key_that_was_not_read() {
        let read = json!({"a": {"kind": "x"}, "b": [{"c": 1}], "d": null});
        assert_eq!(no_unknown_keys(&json!({"a": {"kind": "x"}, "b": [{"c": 2}]}), &read), Ok(()));
        let refused = |given: Value| no_unknown_keys(&given, &read).unwrap_err();
        assert_eq!(refused(json!({"a": {"kind": "x", "base": 3}})), "unknown field `base` in `a`");
        assert_eq!(refused(json!({"b": [{"c": 1, "e": 2}]})), "unknown field `e` in `b`");
    }
}
