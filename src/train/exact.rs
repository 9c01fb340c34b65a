//! Floats in JSON that come back bit for bit: serde_json reads numbers to within one unit in the last place, Rust reads text exactly.

use serde::{Deserialize, Deserializer, Serializer};

/// Writes the shortest text that reads back as `value`.
pub(crate) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

/// Reads that text, or a plain number.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Text(String),
        Number(f64),
    }
    match Form::deserialize(deserializer)? {
        Form::Text(text) => text.parse().map_err(serde::de::Error::custom),
        Form::Number(number) => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Wrapped(#[serde(with = "super")] f64);

    #[test]
    fn every_bit_returns_and_plain_numbers_are_read() {
        let mut value = 0.0;
        for i in 0..20_000 {
            value += 0.01 * f64::from(i % 7) + 1e-9;
            let text = serde_json::to_string(&Wrapped(value)).unwrap();
            assert_eq!(serde_json::from_str::<Wrapped>(&text).unwrap().0.to_bits(), f64::to_bits(value), "{text}");
        }
        assert_eq!(serde_json::from_str::<Wrapped>("2.5").unwrap().0, 2.5);
        assert!(serde_json::from_str::<Wrapped>("\"two\"").is_err());
    }
}
