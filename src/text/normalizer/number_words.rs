//! The English number words the normaliser knows and what each does.

use std::collections::HashMap;
use std::sync::LazyLock;

const ONES: [&str; 19] = [
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 8] = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
/// Multipliers with their number of zeros.
const MULTIPLIERS: [(&str, usize); 12] = [
    ("hundred", 2),
    ("thousand", 3),
    ("million", 6),
    ("billion", 9),
    ("trillion", 12),
    ("quadrillion", 15),
    ("quintillion", 18),
    ("sextillion", 21),
    ("septillion", 24),
    ("octillion", 27),
    ("nonillion", 30),
    ("decillion", 33),
];

/// What a number word does; a suffix (`th`, `s`) ends the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NumberWord {
    /// `zero`, `oh`, `o`.
    Zero,
    /// 1 to 19.
    Ones(u32),
    /// 0 to 19 as an ordinal or plural.
    OnesSuffixed(u32, &'static str),
    /// 20 to 90.
    Tens(u32),
    /// 20 to 90 as an ordinal or plural.
    TensSuffixed(u32, &'static str),
    /// Power of ten by its zeros.
    Multiplier(usize),
    /// Power of ten as an ordinal or plural.
    MultiplierSuffixed(usize, &'static str),
    /// `minus`, `plus`: the sign of the next number.
    Sign(char),
    /// `dollars`: the symbol before the number just read.
    Currency(char),
    /// `percent`.
    Percent,
    /// `per`, which makes a percent sign with `cent`.
    Per,
    /// `and` between the parts of a number.
    And,
    /// `double`, `triple`: how often the next digit is said.
    Repeat(usize),
    /// The decimal point.
    Point,
}

impl NumberWord {
    /// Words that can follow `point` or precede `point five`.
    pub(super) fn is_digits(self) -> bool {
        matches!(self, Self::Zero | Self::Ones(_) | Self::Tens(_))
    }
}

static WORDS: LazyLock<HashMap<String, NumberWord>> = LazyLock::new(table);

/// What `word` does in a number, if it is a number word.
pub(super) fn number_word(word: &str) -> Option<NumberWord> {
    WORDS.get(word).copied()
}

fn table() -> HashMap<String, NumberWord> {
    use NumberWord::*;
    let mut words: HashMap<String, NumberWord> = [
        ("o", Zero),
        ("oh", Zero),
        ("zero", Zero),
        ("zeroth", OnesSuffixed(0, "th")),
        ("minus", Sign('-')),
        ("negative", Sign('-')),
        ("plus", Sign('+')),
        ("positive", Sign('+')),
        ("pound", Currency('£')),
        ("pounds", Currency('£')),
        ("euro", Currency('€')),
        ("euros", Currency('€')),
        ("dollar", Currency('$')),
        ("dollars", Currency('$')),
        ("cent", Currency('¢')),
        ("cents", Currency('¢')),
        ("percent", Percent),
        ("per", Per),
        ("and", And),
        ("double", Repeat(2)),
        ("triple", Repeat(3)),
        ("point", Point),
    ]
    .map(|(word, role)| (word.to_string(), role))
    .into();
    for (name, value) in ONES.into_iter().zip(1..) {
        words.insert(name.into(), Ones(value));
        words.insert(if name == "six" { "sixes".into() } else { format!("{name}s") }, OnesSuffixed(value, "s"));
        // Regular endings are all that the definition has: it knows "nineth", not "ninth".
        let (ordinal, suffix) = match name {
            "one" => ("first".into(), "st"),
            "two" => ("second".into(), "nd"),
            "three" => ("third".into(), "rd"),
            "five" => ("fifth".into(), "th"),
            "twelve" => ("twelfth".into(), "th"),
            _ if name.ends_with('t') => (format!("{name}h"), "th"),
            _ => (format!("{name}th"), "th"),
        };
        words.insert(ordinal, OnesSuffixed(value, suffix));
    }
    for (name, value) in TENS.into_iter().zip((20..).step_by(10)) {
        let stem = name.trim_end_matches('y');
        words.insert(name.into(), Tens(value));
        words.insert(format!("{stem}ies"), TensSuffixed(value, "s"));
        words.insert(format!("{stem}ieth"), TensSuffixed(value, "th"));
    }
    for (name, zeros) in MULTIPLIERS {
        words.insert(name.into(), Multiplier(zeros));
        words.insert(format!("{name}s"), MultiplierSuffixed(zeros, "s"));
        words.insert(format!("{name}th"), MultiplierSuffixed(zeros, "th"));
    }
    words
}
