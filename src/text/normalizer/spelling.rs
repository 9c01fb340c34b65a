//! British spelling to American, and names to one spelling.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::English;
use crate::text::characters::is_space;

type Table = HashMap<&'static str, &'static str>;

/// Word table as published with openai-whisper 20250625 (MIT).
static WHISPER: LazyLock<Table> =
    LazyLock::new(|| pairs(include_str!("spelling.tsv")).filter_map(|(word, to)| Some((word, to?))).collect());

/// The leaderboard's table: Whisper's, the differences, and then the names, which the leaderboard looks up in what the spelling gives.
static LEADERBOARD: LazyLock<Table> = LazyLock::new(|| {
    let mut table = WHISPER.clone();
    for (word, to) in pairs(include_str!("leaderboard_spelling.tsv")) {
        match to {
            Some(to) => table.insert(word, to),
            None => table.remove(word),
        };
    }
    let names: Table = pairs(include_str!("leaderboard_names.tsv")).filter_map(|(word, to)| Some((word, to?))).collect();
    table.values_mut().for_each(|to| *to = names.get(*to).unwrap_or(to));
    for (name, to) in names {
        table.entry(name).or_insert(to);
    }
    table
});

/// Lines `word<TAB>spelling` or `word`; `#` starts a comment line.
fn pairs(text: &'static str) -> impl Iterator<Item = (&'static str, Option<&'static str>)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once('\t').map_or((line, None), |(word, to)| (word, Some(to))))
}

/// Words of `text` joined by single spaces, each in its American spelling.
pub(super) fn americanize(text: &str, english: English) -> String {
    let table: &Table = match english {
        English::Whisper => &WHISPER,
        English::Leaderboard2026 => &LEADERBOARD,
    };
    let mut out = String::with_capacity(text.len() + 8);
    for word in text.split(is_space).filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(table.get(word).copied().unwrap_or(word));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_have_the_published_sizes() {
        assert_eq!(WHISPER.len(), 1739);
        let (spelling, names) = (pairs(include_str!("leaderboard_spelling.tsv")), pairs(include_str!("leaderboard_names.tsv")));
        let mut words = WHISPER.clone();
        for (word, to) in spelling {
            match to {
                Some(to) => assert_ne!(words.insert(word, to), Some(to), "{word} is in the table already"),
                None => assert!(words.remove(word).is_some(), "{word} is not in the table it is taken from"),
            }
        }
        assert_eq!((words.len(), names.count()), (1743, 152));
    }

    #[test]
    fn editions_differ_where_their_tables_do() {
        for (word, whisper, leaderboard) in [
            ("archaeology", "archeology</span>", "archeology"),
            ("travelog", "travelogue", "travelog"),
            ("ok", "ok", "okay"),
            ("jon", "jon", "john"),
            ("colour", "color", "color"),
        ] {
            assert_eq!(americanize(word, English::Whisper), whisper);
            assert_eq!(americanize(word, English::Leaderboard2026), leaderboard);
        }
    }
}
