//! Dates: a month with a day, a year or both.

use super::Rewritten;
use super::number::{self, Ending, Number};

/// The months; those that are common words besides come with `false`.
const MONTHS: [(&str, &str, bool); 12] = [
    ("january", "January", true),
    ("february", "February", true),
    ("march", "March", false),
    ("april", "April", true),
    ("may", "May", false),
    ("june", "June", true),
    ("july", "July", true),
    ("august", "August", true),
    ("september", "September", true),
    ("october", "October", true),
    ("november", "November", true),
    ("december", "December", true),
];
/// Words before "may" or "march" that make a month of it where a day or a year follows.
const BEFORE_MONTHS: [&str; 14] =
    ["on", "in", "of", "by", "until", "till", "since", "before", "after", "from", "to", "early", "late", "during"];
/// The first century whose years are said in pairs next to a month; without one, [`quantity`](super::quantity) starts later.
const EARLIEST_CENTURY: u64 = 10;

/// The date that starts at `at`.
pub(super) fn date(words: &[&str], at: usize) -> Option<Vec<Rewritten>> {
    day_of_month(words, at).or_else(|| month_first(words, at))
}

/// `third of may [twenty twenty one]`.
fn day_of_month(words: &[&str], at: usize) -> Option<Vec<Rewritten>> {
    let day = day(words, at).filter(|_| !number::is_marked(words, at))?;
    let (name, _) = month(words, day.end + 1).filter(|_| words[day.end] == "of")?;
    let mut parts = vec![
        Rewritten::new(number::ordinal(day.value), at..day.end),
        Rewritten::new("of", day.end..day.end + 1),
        Rewritten::new(name, day.end + 1..day.end + 2),
    ];
    parts.extend(year(words, day.end + 2));
    Some(parts)
}

/// `june third [twenty twenty one]`, `june twenty twenty one`.
fn month_first(words: &[&str], at: usize) -> Option<Vec<Rewritten>> {
    let (name, certain) = month(words, at)?;
    let mut parts = vec![Rewritten::new(name, at..at + 1)];
    let day = day(words, at + 1);
    parts.extend(day.map(|day| Rewritten::new(number::ordinal(day.value), at + 1..day.end)));
    let year = year(words, day.map_or(at + 1, |day| day.end));
    let told = certain || day.is_some() && year.is_some() || at.checked_sub(1).is_some_and(|before| BEFORE_MONTHS.contains(&words[before]));
    parts.extend(year);
    (parts.len() > 1 && told).then_some(parts)
}

fn month(words: &[&str], at: usize) -> Option<(&'static str, bool)> {
    let word = words.get(at)?;
    MONTHS.into_iter().find(|(spoken, ..)| spoken == word).map(|(_, name, certain)| (name, certain))
}

fn day(words: &[&str], at: usize) -> Option<Number> {
    number::whole(words, at).filter(|n| n.ending == Ending::Ordinal && (1..=31).contains(&n.value))
}

fn year(words: &[&str], at: usize) -> Option<Rewritten> {
    let whole = number::whole(words, at).filter(|n| n.end == number::run_end(words, at) && (1000..2100).contains(&n.value));
    let year = whole.or_else(|| number::year(words, at, EARLIEST_CENTURY)).filter(|year| year.ending == Ending::Cardinal)?;
    Some(Rewritten::new(year.value.to_string(), at..year.end))
}
