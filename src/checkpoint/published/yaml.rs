//! YAML configurations as JSON values, with bounds on depth and size: repeated parts (`*name`) cannot grow without limit.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// Values in a file, repeated parts counted each time. A configuration with a vocabulary of 250,000 pieces has that many.
const MOST_VALUES: usize = 1_000_000;
/// Tables and lists within one another.
const MOST_DEPTH: usize = 64;

/// A table or list that is not complete yet.
enum Open {
    List(Vec<Value>, usize),
    Table(Map<String, Value>, Option<String>, usize),
}

/// The one document of a file.
///
/// # Errors
/// What is wrong, in words, with the line.
pub(super) fn read(text: &str) -> Result<Value, String> {
    let mut open: Vec<Open> = Vec::new();
    let mut anchors: HashMap<usize, (Value, usize)> = HashMap::new();
    let mut values = 0usize;
    let mut document = None;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| e.to_string())?;
        let at = |what: &str| format!("line {}: {what}", span.start.line());
        let before = values;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                values += 1;
                (if style == ScalarStyle::Plain { plain(&text) } else { Value::String(text.into_owned()) }, anchor)
            }
            Event::Alias(anchor) => {
                let (value, size) = anchors.get(&anchor).ok_or_else(|| at("an alias of nothing before it"))?;
                values = values.saturating_add(*size);
                if values > MOST_VALUES {
                    return Err(at("too many values"));
                }
                (value.clone(), 0)
            }
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) if open.len() >= MOST_DEPTH => {
                return Err(at(&format!("more than {MOST_DEPTH} tables within one another (anchor {anchor})")));
            }
            Event::SequenceStart(anchor, _) => {
                open.push(Open::List(Vec::new(), anchor));
                continue;
            }
            Event::MappingStart(anchor, _) => {
                open.push(Open::Table(Map::new(), None, anchor));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(list, anchor)) => (Value::Array(list), anchor),
                Some(Open::Table(table, None, anchor)) => (Value::Object(table), anchor),
                _ => return Err(at("a table that ends within an entry")),
            },
            _ => continue,
        };
        if values > MOST_VALUES {
            return Err(at("too many values"));
        }
        if anchor > 0 {
            // Its own size: counted again, since tables end long after they begin.
            let size = if values == before + 1 { 1 } else { count(&value) };
            anchors.insert(anchor, (value.clone(), size));
        }
        match open.last_mut() {
            Some(Open::List(list, _)) => list.push(value),
            Some(Open::Table(table, key, _)) => match key.take() {
                None => *key = Some(value.as_str().map_or_else(|| value.to_string(), str::to_string)),
                Some(key) => {
                    table.insert(key, value);
                }
            },
            None if document.is_none() => document = Some(value),
            None => return Err(at("a second document")),
        }
    }
    document.ok_or_else(|| "nothing in it".into())
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(count).sum::<usize>(),
        Value::Object(table) => 1 + table.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

/// A scalar without quotes, as YAML 1.2 and PyYAML understand it alike.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    if let Ok(number) = text.parse::<i64>() {
        return number.into();
    }
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) && text.contains(|c: char| c.is_ascii_digit());
    match text.parse::<f64>() {
        Ok(number) if numeric && number.is_finite() => number.into(),
        _ => Value::String(text.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_lists_and_scalars() {
        let text = "a:\n  b: 1\n  c: [x, 'true', true, 1.0e-05, -1, null]\nd:\n- ▁the\n- ''''\ne: &l [1, 2]\nf: *l\ng: {}\n";
        let expected = serde_json::json!({
            "a": {"b": 1, "c": ["x", "true", true, 1e-5, -1, null]}, "d": ["▁the", "'"], "e": [1, 2], "f": [1, 2], "g": {},
        });
        assert_eq!(read(text).unwrap(), expected);
    }

    #[test]
    fn bombs_are_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_string();
        for i in 1..12 {
            bomb += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(", "));
        }
        assert!(read(&bomb).unwrap_err().contains("too many"));
        assert!(read(&"[".repeat(10_000)).is_err());
        assert!(read("a: b: c").is_err() && read("").is_err() && read("*x").is_err());
    }
}
