//! NIST's segment time marks: `<file> <channel> <speaker> <begin> <end> [<label,..>] transcript`, comments after `;;`.

use crate::audio::Channel;

/// What sclite leaves out of an interval that is not scored.
const IGNORED: [&str; 2] = ["ignore_time_segment_in_scoring", "ignore_time_segment_"];

/// Words and sounds that scoring of conversational speech removes (Kaldi's Hub5 filters).
const HESITATIONS: [&str; 18] =
    ["uh", "um", "eh", "mm", "hm", "ah", "huh", "ha", "er", "oof", "hee", "ach", "eee", "ew", "%hesitation", "%bcack", "%bcnack", "@"];

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row<'a> {
    pub file: &'a str,
    pub channel: &'a str,
    pub speaker: &'a str,
    pub start: f64,
    pub end: f64,
    pub text: &'a str,
}

impl<'a> Row<'a> {
    /// Parses a row; `None` for a comment. The error says what is wrong.
    pub fn parse(line: &'a str) -> Option<Result<Self, String>> {
        let line = line.trim();
        if line.starts_with(";;") || line.is_empty() {
            return None;
        }
        let mut rest = line;
        let mut field = || {
            let (first, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            rest = after.trim_start();
            first
        };
        let (file, channel, speaker, start, end) = (field(), field(), field(), field(), field());
        let times = start.parse::<f64>().and_then(|start| end.parse::<f64>().map(|end| (start, end)));
        let Ok((start, end)) = times else {
            return Some(Err(format!("begin {start:?} and end {end:?} are not both numbers")));
        };
        let label = rest.split_whitespace().next().filter(|label| label.starts_with('<') && label.ends_with('>') && label.len() > 2);
        // A transcript may start with a tag: labels have a comma, or are one of the old `<F0_M>` form.
        let label = label.filter(|label| label.contains(',') || label.contains('_') || label[1..].starts_with(['o', 'O']));
        let text = label.map_or(rest, |label| rest[label.len()..].trim_start());
        Some(Ok(Self { file, channel, speaker, start, end, text }))
    }

    /// Whether the row marks time that is not scored.
    pub fn is_ignored(&self) -> bool {
        let lower = self.text.to_ascii_lowercase();
        IGNORED.iter().any(|mark| lower.starts_with(mark))
    }

    /// The channel: `A` or `1` is the first.
    pub fn channel(&self) -> Result<Channel, String> {
        channel(self.channel)
    }
}

/// The channel of a name in STM, CTM and Kaldi files: letters from `A`, numbers from 1.
pub(super) fn channel(name: &str) -> Result<Channel, String> {
    let letter = match name.as_bytes() {
        [letter @ b'A'..=b'Z'] => Some(usize::from(letter - b'A')),
        [letter @ b'a'..=b'z'] => Some(usize::from(letter - b'a')),
        _ => name.parse::<usize>().ok().and_then(|n| n.checked_sub(1)),
    };
    letter.map(Channel::Nth).ok_or_else(|| format!("channel {name:?} is neither a letter nor a number from 1"))
}

/// The plain words of a transcript in sclite's notation: the first of `{ a / b }`, `(word)` as word; no tags (`[NOISE]`, `<UNK>`), no
/// hesitations, no fragments (`wor-`).
pub(super) fn plain_words(text: &str) -> String {
    let mut words = Vec::new();
    // For each open brace, whether its first alternative is being read.
    let mut first: Vec<bool> = Vec::new();
    for token in text.split_whitespace() {
        match token {
            "{" => first.push(true),
            "}" => drop(first.pop()),
            "/" if !first.is_empty() => first.iter_mut().for_each(|f| *f = false),
            _ if first.contains(&false) => {}
            _ => {
                let word = token.trim_matches(['(', ')']);
                let tag = word.starts_with(['[', '<']) && word.ends_with([']', '>']);
                let hesitation = HESITATIONS.contains(&word.to_lowercase().as_str());
                if !(word.is_empty() || tag || hesitation || word.ends_with('-')) {
                    words.push(word);
                }
            }
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(line: &str) -> Row<'_> {
        Row::parse(line).unwrap().unwrap()
    }

    #[test]
    fn rows_with_and_without_labels() {
        let r = row("en_4156 A en_4156_A 357.64 359.64 <O,en,F,en-F>  HE IS A POLICE OFFICER ");
        assert_eq!((r.file, r.channel().unwrap(), r.speaker), ("en_4156", Channel::Nth(0), "en_4156_A"));
        assert_eq!((r.start, r.end, r.text), (357.64, 359.64, "HE IS A POLICE OFFICER"));
        assert_eq!(row("x 1 s 0 1 <F0_M> a b").text, "a b");
        assert_eq!(row("x 1 s 0 1 <o,f0,male> <unk> b").text, "<unk> b");
        assert_eq!(row("x 2 s 0 1 <unk> b").text, "<unk> b");
        assert_eq!(row("x B s 0 1").text, "");
        assert_eq!(row("x B s 0 1").channel().unwrap(), Channel::Nth(1));
        assert!(row("x 0 s 0 1").channel().is_err() && row("x AB s 0 1").channel().is_err());
        assert!(Row::parse(";; comment").is_none() && Row::parse("  ").is_none());
        assert!(Row::parse("x A s zero 1 a").unwrap().is_err() && Row::parse("x").unwrap().is_err());
        assert!(row("x A s 0 1 <o,f0,male> ignore_time_segment_in_scoring").is_ignored());
        assert!(row("x A s 0 1 IGNORE_TIME_SEGMENT_IN_SCORING").is_ignored());
        assert!(!row("x A s 0 1 we ignore_time").is_ignored());
    }

    #[test]
    fn notation_becomes_words() {
        assert_eq!(plain_words("I (%HESITATION) { KNOW / { NO / NOW } } (TH-) THAT [LAUGHTER] <UNK> UH-HUH"), "I KNOW THAT UH-HUH");
        assert_eq!(plain_words("{ @ / YEAH } SO { I'M / I AM } UM"), "SO I'M");
        // Broken notation is no panic.
        assert_eq!(plain_words("} a { b / c"), "a b");
    }
}
