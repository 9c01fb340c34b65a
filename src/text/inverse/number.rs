//! Number words: what each is worth, and the numbers that rows of them make.

/// Largest scale that is read, 10^12.
const SCALES: [(&str, u64); 4] = [("thousand", 1_000), ("million", 1_000_000), ("billion", 1_000_000_000), ("trillion", 1_000_000_000_000)];
const DIGITS: [(&str, &str); 9] = [
    ("one", "first"),
    ("two", "second"),
    ("three", "third"),
    ("four", "fourth"),
    ("five", "fifth"),
    ("six", "sixth"),
    ("seven", "seventh"),
    ("eight", "eighth"),
    ("nine", "ninth"),
];
const TEENS: [(&str, &str); 10] = [
    ("ten", "tenth"),
    ("eleven", "eleventh"),
    ("twelve", "twelfth"),
    ("thirteen", "thirteenth"),
    ("fourteen", "fourteenth"),
    ("fifteen", "fifteenth"),
    ("sixteen", "sixteenth"),
    ("seventeen", "seventeenth"),
    ("eighteen", "eighteenth"),
    ("nineteen", "nineteenth"),
];
const TENS: [(&str, &str, &str); 8] = [
    ("twenty", "twentieth", "twenties"),
    ("thirty", "thirtieth", "thirties"),
    ("forty", "fortieth", "forties"),
    ("fifty", "fiftieth", "fifties"),
    ("sixty", "sixtieth", "sixties"),
    ("seventy", "seventieth", "seventies"),
    ("eighty", "eightieth", "eighties"),
    ("ninety", "ninetieth", "nineties"),
];

/// What a word does in a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// `zero`, `oh`.
    Zero,
    /// 1 to 9.
    Digit(u64),
    /// 10 to 19.
    Teen(u64),
    /// 20 to 90.
    Tens(u64),
    Hundred,
    /// A power of a thousand.
    Scale(u64),
}

/// How the word that ends a number is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Cardinal,
    /// `first`.
    Ordinal,
    /// `eighties`.
    Decade,
}

/// What a word is worth and how it ends.
pub(super) fn part(word: &str) -> Option<(Part, Ending)> {
    use Ending::{Cardinal, Decade, Ordinal};
    for ((cardinal, ordinal), value) in DIGITS.into_iter().chain(TEENS).zip(1..) {
        let kind = if value < 10 { Part::Digit(value) } else { Part::Teen(value) };
        match word {
            _ if word == cardinal => return Some((kind, Cardinal)),
            _ if word == ordinal => return Some((kind, Ordinal)),
            _ => {}
        }
    }
    for ((cardinal, ordinal, decade), value) in TENS.into_iter().zip((20..).step_by(10)) {
        if let Some((_, ending)) = [(cardinal, Cardinal), (ordinal, Ordinal), (decade, Decade)].into_iter().find(|(name, _)| *name == word)
        {
            return Some((Part::Tens(value), ending));
        }
    }
    let (stem, ending) = word.strip_suffix("th").map_or((word, Cardinal), |stem| (stem, Ordinal));
    match stem {
        "zero" | "oh" if ending == Cardinal => Some((Part::Zero, Cardinal)),
        "hundred" => Some((Part::Hundred, ending)),
        _ => SCALES.into_iter().find(|(name, _)| *name == stem).map(|(_, scale)| (Part::Scale(scale), ending)),
    }
}

fn cardinal_part(words: &[&str], at: usize) -> Option<Part> {
    words.get(at).and_then(|word| part(word)).filter(|(_, ending)| *ending == Ending::Cardinal).map(|(part, _)| part)
}

/// Words that give the number after them a sign, to the scoring normaliser.
const SIGNS: [&str; 4] = ["minus", "negative", "plus", "positive"];

/// Words besides numbers that the scoring normaliser joins with an amount in digits before them.
const JOINING: [&str; 14] =
    ["dollar", "dollars", "euro", "euros", "pound", "pounds", "cent", "cents", "percent", "o'clock", "o", "point", "double", "triple"];

/// Whether the word before `at` makes the scoring normaliser read a number there in another way than the same number in digits.
pub(super) fn is_marked(words: &[&str], at: usize) -> bool {
    at.checked_sub(1).is_some_and(|before| SIGNS.contains(&words[before]) || words[before] == "point")
}

/// Whether the scoring normaliser would join what is spoken at `at` with digits written before it: "one dollar five".
pub(super) fn is_joined(words: &[&str], at: usize) -> bool {
    let per_cent = words.get(at..at + 2) == Some(&["per", "cent"]);
    per_cent || words.get(at).is_some_and(|word| part(word).is_some() || JOINING.contains(word))
}

/// Whether at `at` there is an "and" that the scoring normaliser drops after "hundred" and the powers of a thousand, but not after digits.
pub(super) fn is_dropped_and(words: &[&str], at: usize) -> bool {
    let next = words.get(at + 1);
    words.get(at) == Some(&"and")
        && (is_joined(words, at + 1) || next.is_some_and(|word| SIGNS.contains(word) || matches!(*word, "per" | "and")))
}

/// Whether `word` is "hundred" or a power of a thousand.
pub(super) fn is_round(word: &str) -> bool {
    matches!(part(word), Some((Part::Hundred | Part::Scale(_), Ending::Cardinal)))
}

fn times(word: &str) -> Option<usize> {
    match word {
        "double" => Some(2),
        "triple" => Some(3),
        _ => None,
    }
}

/// Whether `and` at `at` stands inside a number.
fn is_inner_and(words: &[&str], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| cardinal_part(words, before));
    words.get(at) == Some(&"and")
        && matches!(before, Some(Part::Hundred | Part::Scale(_)))
        && words.get(at + 1).is_some_and(|w| part(w).is_some() || times(w).is_some())
}

/// One past the last word of the run of number words that starts at `at`; `at` where none does. An ordinal ends a run.
pub(super) fn run_end(words: &[&str], at: usize) -> usize {
    let mut end = at;
    while let Some(word) = words.get(end) {
        let follows = |next: usize| cardinal_part(words, next).is_some();
        match part(word) {
            Some((_, Ending::Cardinal)) => end += 1,
            Some(_) => return end + 1,
            None if times(word).is_some() && follows(end + 1) => end += 2,
            None if end > at && (*word == "point" && follows(end + 1) || is_inner_and(words, end)) => end += 1,
            None => break,
        }
    }
    end
}

/// A number as it is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number {
    pub value: u64,
    /// One past its last word.
    pub end: usize,
    pub ending: Ending,
}

/// The whole number that starts at `at`, as long as the grammar allows.
pub(super) fn whole(words: &[&str], at: usize) -> Option<Number> {
    let (mut value, mut end) = (0, at);
    let mut below = u64::MAX;
    loop {
        let after_and = end + usize::from(end > at && is_inner_and(words, end));
        let Some(group) = hundreds(words, after_and) else { break };
        // Whatever follows a scale fills its zeros only.
        let scale = match words.get(group.end).and_then(|word| part(word)) {
            Some((Part::Scale(scale), ending)) if group.ending == Ending::Cardinal => Some((scale, ending)),
            _ => None,
        };
        let (scale, ending, next) = scale.map_or((1, group.ending, group.end), |(scale, ending)| (scale, ending, group.end + 1));
        // "Ten hundred thousand" is nothing that is said.
        let grown = group.value.checked_mul(scale).filter(|_| scale == 1 || group.value < 1000)?;
        if grown >= below {
            break;
        }
        value += grown;
        end = next;
        below = scale;
        if scale == 1 || ending != Ending::Cardinal {
            return Some(Number { value, end, ending });
        }
    }
    (end > at).then_some(Number { value, end, ending: Ending::Cardinal })
}

/// A number up to 9999 said without a scale: `five`, `twenty one`, `three hundred and five`, `twenty five hundred`.
fn hundreds(words: &[&str], at: usize) -> Option<Number> {
    let first = tens(words, at)?;
    let hundred = match words.get(first.end).and_then(|word| part(word)) {
        Some((Part::Hundred, ending)) if first.ending == Ending::Cardinal => ending,
        _ => return Some(first),
    };
    let (value, end) = (first.value * 100, first.end + 1);
    if hundred != Ending::Cardinal {
        return Some(Number { value, end, ending: hundred });
    }
    let rest = tens(words, end + usize::from(is_inner_and(words, end)));
    // `one hundred five thousand` is one number, `one hundred five hundred` is not.
    let rest = rest.filter(|rest| !matches!(cardinal_part(words, rest.end), Some(Part::Hundred)) || rest.ending != Ending::Cardinal);
    Some(rest.map_or(Number { value, end, ending: Ending::Cardinal }, |rest| Number { value: value + rest.value, ..rest }))
}

/// A number from 1 to 99.
fn tens(words: &[&str], at: usize) -> Option<Number> {
    match part(words.get(at)?)? {
        (Part::Digit(value) | Part::Teen(value), ending) if ending != Ending::Decade => Some(Number { value, end: at + 1, ending }),
        (Part::Tens(value), Ending::Cardinal) => Some(match words.get(at + 1).and_then(|word| part(word)) {
            Some((Part::Digit(unit), ending)) => Number { value: value + unit, end: at + 2, ending },
            _ => Number { value, end: at + 1, ending: Ending::Cardinal },
        }),
        (Part::Tens(value), Ending::Ordinal) => Some(Number { value, end: at + 1, ending: Ending::Ordinal }),
        _ => None,
    }
}

/// A year said in pairs from the century `earliest` on, `nineteen eighty four` or `twenty oh five`, or a decade, `nineteen eighties`.
pub(super) fn year(words: &[&str], at: usize, earliest: u64) -> Option<Number> {
    let century = match cardinal_part(words, at)? {
        Part::Teen(value) | Part::Tens(value @ 20) if value >= earliest => value,
        _ => return None,
    };
    let rest = match part(words.get(at + 1)?)? {
        (Part::Zero, _) => match cardinal_part(words, at + 2)? {
            Part::Digit(value) => Number { value, end: at + 3, ending: Ending::Cardinal },
            _ => return None,
        },
        (Part::Tens(value), Ending::Decade) => Number { value, end: at + 2, ending: Ending::Decade },
        _ => tens(words, at + 1).filter(|rest| rest.value >= 10 && rest.ending == Ending::Cardinal)?,
    };
    (rest.end == run_end(words, at)).then_some(Number { value: century * 100 + rest.value, ..rest })
}

/// Digits said one by one, with `double` and `triple`, and one past the last.
pub(super) fn digits(words: &[&str], at: usize) -> (String, usize) {
    let (mut digits, mut end) = (String::new(), at);
    while let Some(word) = words.get(end) {
        let repeat = times(word).filter(|_| end + 1 < words.len());
        let digit = match cardinal_part(words, end + usize::from(repeat.is_some())) {
            Some(Part::Zero) => '0',
            Some(Part::Digit(value)) => char::from(b'0' + value as u8),
            _ => break,
        };
        digits.extend(std::iter::repeat_n(digit, repeat.unwrap_or(1)));
        end += 1 + usize::from(repeat.is_some());
    }
    (digits, end)
}

/// `value` with its ordinal ending.
pub(super) fn ordinal(value: u64) -> String {
    let suffix = match (value % 10, value % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{value}{suffix}")
}

/// `value` as written: up to 999 millions (and so on) with at most one decimal by name, commas from five digits.
pub(super) fn written(value: u64) -> String {
    for (name, scale) in SCALES.into_iter().skip(1).rev() {
        if (scale..1000 * scale).contains(&value) && value.is_multiple_of(scale / 10) {
            let tenth = value % scale / (scale / 10);
            let decimal = if tenth > 0 { format!(".{tenth}") } else { String::new() };
            return format!("{}{decimal} {name}", value / scale);
        }
    }
    let plain = value.to_string();
    if plain.len() < 5 {
        return plain;
    }
    let mut grouped = String::new();
    for (i, digit) in plain.chars().enumerate() {
        if i > 0 && (plain.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// The word of a power of a thousand from a million on, which may follow a decimal number.
pub(super) fn large_scale<'w>(words: &[&'w str], at: usize) -> Option<&'w str> {
    let word = *words.get(at)?;
    matches!(cardinal_part(words, at), Some(Part::Scale(scale)) if scale > 1000).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(spoken: &str) -> Option<(u64, Ending)> {
        let words: Vec<&str> = spoken.split(' ').collect();
        whole(&words, 0).filter(|n| n.end == words.len()).map(|n| (n.value, n.ending))
    }

    #[test]
    fn whole_numbers() {
        for (spoken, value) in [
            ("seven", 7),
            ("ninety nine", 99),
            ("one hundred and one", 101),
            ("nineteen hundred five", 1905),
            ("five hundred and twenty thousand", 520_000),
            ("one thousand and one", 1001),
            ("three million two thousand and five", 3_002_005),
            ("nine hundred ninety nine thousand", 999_000),
            ("nine trillion nine hundred ninety nine billion", 9_999_000_000_000),
        ] {
            assert_eq!(all(spoken), Some((value, Ending::Cardinal)), "{spoken}");
        }
        assert_eq!(all("one hundred and twenty first"), Some((121, Ending::Ordinal)));
        assert_eq!(all("two thousandth"), Some((2000, Ending::Ordinal)));
        for not_one in [
            "twenty ten",
            "five six",
            "hundred",
            "a hundred",
            "two thousand three thousand",
            "one tenth",
            "twenty eighties",
            "one hundred and",
            "ten hundred thousand",
        ] {
            assert_eq!(all(not_one), None, "{not_one}");
        }
    }

    #[test]
    fn written_numbers() {
        for (value, text) in [
            (9999, "9999"),
            (10_000, "10,000"),
            (1_000_000, "1 million"),
            (1_200_000, "1.2 million"),
            (1_250_000, "1,250,000"),
            (20_005_000_000, "20,005,000,000"),
        ] {
            assert_eq!(written(value), text);
        }
        assert_eq!([1, 2, 3, 4, 11, 12, 13, 21, 102, 111].map(ordinal).join(" "), "1st 2nd 3rd 4th 11th 12th 13th 21st 102nd 111th");
    }
}
