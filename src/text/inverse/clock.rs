//! Times of day.

use super::Rewritten;
use super::number::{self, Ending, Number};

/// The time that starts at `at`: an hour, perhaps minutes, and what makes it a time.
pub(super) fn time(words: &[&str], at: usize) -> Option<Vec<Rewritten>> {
    let run = number::run_end(words, at);
    let hour_end = at + 1;
    let hour = number::whole(&words[..hour_end.min(words.len())], at).filter(|n| is_cardinal(n) && (1..=12).contains(&n.value))?.value;
    if words.get(run) == Some(&"o'clock") {
        return (run == hour_end).then(|| vec![Rewritten::new(hour.to_string(), at..run), Rewritten::new("o'clock", run..run + 1)]);
    }
    let half = half_of_day(words, run)?;
    let written = if run == hour_end { hour.to_string() } else { format!("{hour}:{:02}", minutes(words, hour_end, run)?) };
    Some(vec![Rewritten::new(written, at..run), half])
}

/// `oh five` or ten to fifty nine, exactly these words.
fn minutes(words: &[&str], at: usize, end: usize) -> Option<u64> {
    if matches!(words[at], "oh" | "zero") {
        let (digits, last) = number::digits(words, at);
        return digits.parse().ok().filter(|_| last == end && digits.len() == 2);
    }
    number::whole(words, at).filter(|n| is_cardinal(n) && n.end == end && (10..60).contains(&n.value)).map(|n| n.value)
}

fn is_cardinal(number: &Number) -> bool {
    number.ending == Ending::Cardinal
}

/// `a m`, `p m` or `pm`; "am" is more often the verb.
fn half_of_day(words: &[&str], at: usize) -> Option<Rewritten> {
    match (*words.get(at)?, words.get(at + 1)) {
        ("a", Some(&"m")) => Some(Rewritten::new("a.m.", at..at + 2)),
        ("p", Some(&"m")) => Some(Rewritten::new("p.m.", at..at + 2)),
        ("pm", _) => Some(Rewritten::new("pm", at..at + 1)),
        _ => None,
    }
}
