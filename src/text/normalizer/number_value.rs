//! A number while it is read: an integer of any size or digits as spoken, both kept as decimal text.

use crate::text::characters::digit_value;

/// The number read so far.
///
/// All multipliers are powers of ten and sums only fill zeros, except where a multiplied remainder overlaps the thousands, so decimal
/// text is both the simplest and the fastest form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NumberValue {
    /// ASCII digits without leading zeros; `0` is zero.
    Integer(String),
    /// Digits as they came: leading zeros, points, digits of other scripts.
    Spoken(String),
}

impl NumberValue {
    /// Reads `digits[.digits]`; whole numbers become integers whatever their spelling (`007`, `2.0`).
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').map_or((text, None), |(w, f)| (w, Some(f)));
        let numeric = |s: &str| !s.is_empty() && s.chars().all(|c| digit_value(c).is_some());
        if !numeric(whole) || fraction.is_some_and(|f| !numeric(f)) {
            return None;
        }
        Some(shifted(text, 0).map_or_else(|| Self::Spoken(text.to_string()), Self::Integer))
    }

    /// 10 to the power of `zeros`.
    pub(super) fn power_of_ten(zeros: usize) -> Self {
        Self::Integer(format!("1{}", "0".repeat(zeros)))
    }

    /// The digits.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Integer(text) | Self::Spoken(text) => text,
        }
    }

    /// Integer zero.
    pub(super) fn is_zero(&self) -> bool {
        matches!(self, Self::Integer(digits) if digits == "0")
    }

    /// The digits for appending more: nothing for integer zero, which gives way to what is said next.
    pub(super) fn spoken(self) -> String {
        match self {
            value if value.is_zero() => String::new(),
            Self::Integer(text) | Self::Spoken(text) => text,
        }
    }

    /// Adds `addend` to an integer that ends in `zeros` zeros; puts it behind the digits otherwise.
    pub(super) fn fill_or_append(self, addend: u32, zeros: usize) -> Self {
        let addend = addend.to_string();
        match self {
            Self::Integer(digits) if digits == "0" => Self::Integer(addend),
            Self::Integer(digits) if digits.bytes().rev().take_while(|b| *b == b'0').count() >= zeros => {
                Self::Integer(digits[..digits.len() - addend.len()].to_string() + &addend)
            }
            Self::Integer(text) | Self::Spoken(text) => Self::Spoken(text + &addend),
        }
    }

    /// The value times 10 to the power of `zeros`; of an integer only what is below a thousand is multiplied ("two thousand three
    /// hundred"). `None` if the result is not whole or the digits are no number.
    pub(super) fn scaled(&self, zeros: usize) -> Option<Self> {
        match self {
            Self::Integer(digits) => {
                let (thousands, rest) = digits.split_at(digits.len().saturating_sub(3));
                let rest = rest.trim_start_matches('0');
                let scaled = if rest.is_empty() { String::new() } else { format!("{rest}{}", "0".repeat(zeros)) };
                Some(Self::Integer(if thousands.is_empty() {
                    if scaled.is_empty() { "0".into() } else { scaled }
                } else {
                    sum(&format!("{thousands}000"), &scaled)
                }))
            }
            Self::Spoken(text) => shifted(text, zeros).map(Self::Integer),
        }
    }
}

/// Decimal text moved `zeros` places to the left, without leading zeros; `None` unless that is whole.
fn shifted(text: &str, zeros: usize) -> Option<String> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits = |s: &str| s.chars().map(|c| digit_value(c).map(|d| char::from(b'0' + d))).collect::<Option<String>>();
    let (whole, fraction) = (digits(whole)?, digits(fraction)?);
    let fraction = fraction.trim_end_matches('0');
    let padding = zeros.checked_sub(fraction.len())?;
    let all = format!("{whole}{fraction}{}", "0".repeat(padding));
    let significant = all.trim_start_matches('0');
    Some(if significant.is_empty() { "0".into() } else { significant.into() })
}

/// Sum of two decimal integers without leading zeros.
fn sum(a: &str, b: &str) -> String {
    let mut carry = 0;
    let digit = |s: &str, place: usize| s.len().checked_sub(place + 1).map_or(0, |i| s.as_bytes()[i] - b'0');
    let mut places: Vec<u8> = (0..a.len().max(b.len()))
        .map(|place| {
            let total = digit(a, place) + digit(b, place) + carry;
            carry = total / 10;
            b'0' + total % 10
        })
        .collect();
    if carry > 0 {
        places.push(b'1');
    }
    places.iter().rev().map(|&b| char::from(b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn integer(digits: &str) -> NumberValue {
        NumberValue::Integer(digits.into())
    }

    #[test]
    fn whole_numbers_are_integers() {
        assert_eq!(NumberValue::parse("0042"), Some(integer("42")));
        assert_eq!(NumberValue::parse("٢.٠"), Some(integer("2")));
        assert_eq!(NumberValue::parse("2.50"), Some(NumberValue::Spoken("2.50".into())));
        assert_eq!(NumberValue::parse("000"), Some(integer("0")));
        for no in ["", ".", "1.", ".5", "1.2.3", "a", "1a"] {
            assert_eq!(NumberValue::parse(no), None, "{no}");
        }
    }

    #[test]
    fn integers_fill_their_zeros() {
        assert_eq!(integer("20").fill_or_append(7, 1), integer("27"));
        assert_eq!(integer("0").fill_or_append(12, 2), integer("12"));
        assert_eq!(integer("110").fill_or_append(12, 2), NumberValue::Spoken("11012".into()));
        assert_eq!(integer("100").fill_or_append(20, 2), integer("120"));
    }

    #[test]
    fn only_the_remainder_is_multiplied_and_carries() {
        assert_eq!(integer("2003").scaled(2), Some(integer("2300")));
        assert_eq!(integer("1200").scaled(3), Some(integer("201000")));
        assert_eq!(integer("999999").scaled(3), Some(integer("1998000")));
        assert_eq!(integer("1000").scaled(6), Some(integer("1000")));
        assert_eq!(integer("0").scaled(6), Some(integer("0")));
        assert_eq!(NumberValue::Spoken("2.5".into()).scaled(6), Some(integer("2500000")));
        assert_eq!(NumberValue::Spoken("2.123".into()).scaled(2), None);
        assert_eq!(NumberValue::Spoken("1.2.3".into()).scaled(3), None);
    }
}
