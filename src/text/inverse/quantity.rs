//! Numbers on their own and with what they count: money, percent, units.

use super::Rewritten;
use super::number::{self, Ending};

/// The first century whose years are said in pairs without a month: the earlier ones are times of day as often ("ten thirty").
const EARLIEST_CENTURY: u64 = 13;
/// Fewest digits of a string of digits: two are as often two numbers.
const FEWEST_DIGITS: usize = 3;
/// Units before which a number below ten is written in digits.
const UNITS: [&str; 34] = [
    "cents",
    "kilometers",
    "kilometres",
    "meters",
    "metres",
    "centimeters",
    "centimetres",
    "millimeters",
    "millimetres",
    "kilograms",
    "kilos",
    "grams",
    "milligrams",
    "liters",
    "litres",
    "milliliters",
    "millilitres",
    "degrees",
    "volts",
    "watts",
    "kilowatts",
    "megawatts",
    "amps",
    "hertz",
    "kilohertz",
    "megahertz",
    "gigahertz",
    "bytes",
    "kilobytes",
    "megabytes",
    "gigabytes",
    "terabytes",
    "pixels",
    "calories",
];

/// A number that can be counted with: how it is written and how far it reaches.
struct Amount {
    text: String,
    end: usize,
    /// Its value, if it is whole.
    whole: Option<u64>,
    /// Said as one word below ten.
    small: bool,
}

/// The number that starts at `at`, with its unit where that changes what is written.
///
/// Nothing is written in digits where the scoring normaliser would read the digits and their neighbours in another way than the words.
pub(super) fn quantity(words: &[&str], at: usize) -> Option<Vec<Rewritten>> {
    let marked = number::is_marked(words, at);
    if marked && words[at - 1] == "point" {
        return None;
    }
    let amount = amount(words, at);
    let valued = amount.as_ref().and_then(|amount| money(words, at, amount).or_else(|| percent(words, at, amount)));
    if let Some(valued) = valued {
        let end = valued.words.end;
        let joined = number::is_joined(words, end) || valued.text.contains(' ') && number::is_dropped_and(words, end);
        return (!marked && !joined).then(|| vec![valued]);
    }
    let counts = |end: usize| words.get(end).is_some_and(|unit| UNITS.contains(unit));
    let (text, end) = match amount.filter(|amount| !amount.small || amount.whole != Some(1) && counts(amount.end)) {
        Some(amount) => (amount.text, amount.end),
        None => digits(words, at).or_else(|| ordinal(words, at).or_else(|| decade(words, at)).filter(|_| !marked))?,
    };
    Some(vec![Rewritten::new(text, at..end)])
}

/// A whole or decimal number that takes up the whole run of number words.
fn amount(words: &[&str], at: usize) -> Option<Amount> {
    let run = number::run_end(words, at);
    let zero = words.get(at) == Some(&"zero");
    let (value, end) = if zero {
        (0, at + 1)
    } else {
        let whole = number::whole(words, at).filter(|n| n.end == run || words.get(n.end) == Some(&"point"));
        let number = whole.or_else(|| number::year(words, at, EARLIEST_CENTURY)).filter(|n| n.ending == Ending::Cardinal)?;
        (number.value, number.end)
    };
    if words.get(end) == Some(&"point") {
        let (decimals, after) = number::digits(words, end + 1);
        // A fraction of zeros only would not be the same number to the scoring normaliser.
        let decimals = Some(decimals).filter(|d| d.bytes().any(|b| b != b'0'))?;
        return scaled(words, format!("{value}.{decimals}"), after).filter(|amount| amount.end == run);
    }
    if end != run {
        return None;
    }
    if !zero && words.get(end..end + 3) == Some(&["and", "a", "half"]) && value < 10_000 {
        let half = scaled(words, format!("{value}.5"), end + 3)?;
        let free = number::run_end(words, end + 3) <= half.end;
        return Some(half).filter(|half| free && (value >= 10 || half.end > end + 3));
    }
    Some(Amount { text: number::written(value), end, whole: Some(value), small: value < 10 })
}

/// A decimal number with the power of a thousand that may follow.
fn scaled(words: &[&str], decimal: String, end: usize) -> Option<Amount> {
    let scale = number::large_scale(words, end);
    let text = scale.map_or(decimal.clone(), |scale| format!("{decimal} {scale}"));
    Some(Amount { text, end: end + usize::from(scale.is_some()), whole: None, small: false })
}

/// `$5`, `$5.10`, `€6 million`.
fn money(words: &[&str], at: usize, amount: &Amount) -> Option<Rewritten> {
    let sign = match *words.get(amount.end)? {
        "dollar" | "dollars" => '$',
        "euro" | "euros" => '€',
        _ => return None,
    };
    if amount.whole == Some(0) {
        return None;
    }
    let end = amount.end + 1;
    let from = end + usize::from(words.get(end) == Some(&"and"));
    let cents = self::amount(words, from).filter(|cents| cents.whole.is_some_and(|value| (1..100).contains(&value)));
    let cents = cents.filter(|cents| matches!(words.get(cents.end), Some(&"cent" | &"cents")));
    match (amount.whole.filter(|value| value.to_string().len() < 5 || amount.text.contains(',')), cents) {
        (Some(_), Some(Amount { whole: Some(cents), end, .. })) => {
            Some(Rewritten::new(format!("{sign}{}.{cents:02}", amount.text), at..end + 1))
        }
        _ => Some(Rewritten::new(format!("{sign}{}", amount.text), at..end)),
    }
}

/// `5%`.
fn percent(words: &[&str], at: usize, amount: &Amount) -> Option<Rewritten> {
    let length = match (*words.get(amount.end)?, words.get(amount.end + 1)) {
        // "2.5 million percent"
        _ if amount.text.contains(' ') => return None,
        ("percent", _) => 1,
        ("per", Some(&"cent")) => 2,
        _ => return None,
    };
    Some(Rewritten::new(format!("{}%", amount.text), at..amount.end + length))
}

/// `21st`; below the tenth words stay, and so do "twenty second" and fractions: "a tenth of", "hundredth".
fn ordinal(words: &[&str], at: usize) -> Option<(String, usize)> {
    let number = number::whole(words, at).filter(|n| n.ending == Ending::Ordinal && n.value >= 10)?;
    let fraction = at.checked_sub(1).is_some_and(|before| matches!(words[before], "a" | "an")) && words.get(number.end) == Some(&"of");
    let second = words[number.end - 1] == "second";
    (!fraction && !second).then(|| (number::ordinal(number.value), number.end))
}

/// Three digits and more. Those that begin with zero stay words: the scoring normaliser drops zeros in front, so their score would change;
/// and so do those before a "point" that is no decimal's.
fn digits(words: &[&str], at: usize) -> Option<(String, usize)> {
    let (digits, end) = number::digits(words, at);
    let alone = end == number::run_end(words, at) && words.get(end) != Some(&"point");
    (digits.len() >= FEWEST_DIGITS && !digits.starts_with('0') && alone).then_some((digits, end))
}

/// `1980s`.
fn decade(words: &[&str], at: usize) -> Option<(String, usize)> {
    let decade = number::year(words, at, EARLIEST_CENTURY).filter(|year| year.ending == Ending::Decade)?;
    Some((format!("{}s", decade.value), decade.end))
}
