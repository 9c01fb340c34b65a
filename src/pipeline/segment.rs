//! Words to segments, segments to subtitle cues, cues to lines: cut at pauses, within limits, no word ever split.

use std::collections::BTreeMap;
use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

use super::transcript::{Segment, Transcript, Word};

/// A segment ends at a gap of this length between two words, seconds: longer than the pauses inside most sentences.
const SEGMENT_PAUSE: f64 = 0.6;
/// Longest segment, seconds: about what models are trained on and what people quote.
const SEGMENT_SECONDS: f64 = 15.0;

/// A piece holds at most this many words whatever the limits: bounds the search below.
const MOST_WORDS: usize = 1_000;

/// A gap of this length between words is as good a place to cut as the end of a sentence, seconds.
const GOOD_GAP: f64 = 0.5;
/// How good a place to cut a comma is, where the end of a sentence is 1 and between two joined words 0.
const COMMA: f64 = 0.6;
/// Cost of a cut at the worst place, in units of what one more piece costs.
const BAD_CUT: f64 = 1.5;

/// Bounds of a piece of text on the screen. They hold unless one word alone breaks them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// A gap between words of this many seconds ends a piece.
    pub pause: f64,
    /// Longest piece, seconds.
    pub max_seconds: f64,
    /// A piece should stay on the screen this long; its end moves into the silence after it.
    pub min_seconds: f64,
    /// Most characters per second a reader follows: a piece that is read slower than spoken stays longer, where silence follows.
    pub reading_speed: f64,
    /// Bounds of its lines.
    pub lines: LineLimits,
}

/// Bounds of the lines of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineLimits {
    /// Most characters (graphemes) of a line.
    pub width: usize,
    /// Most lines of a piece.
    pub count: usize,
    /// Most words of a line.
    pub words: usize,
    /// Characters that stand before the first word: a speaker's name.
    pub label: usize,
}

impl LineLimits {
    /// One line without bounds.
    pub const ONE: Self = Self { width: usize::MAX, count: 1, words: usize::MAX, label: 0 };

    fn characters(&self) -> f64 {
        self.width as f64 * self.count as f64
    }
}

impl Limits {
    /// The segments of a transcript: cut at pauses, no longer than 15 s.
    pub fn segments() -> Self {
        Self { pause: SEGMENT_PAUSE, max_seconds: SEGMENT_SECONDS, ..Self::none() }
    }

    /// Everything in one piece.
    pub fn none() -> Self {
        Self { pause: f64::INFINITY, max_seconds: f64::INFINITY, min_seconds: 0.0, reading_speed: f64::INFINITY, lines: LineLimits::ONE }
    }

    /// Seconds it takes to read `characters`, at least [`Limits::min_seconds`].
    fn reading_seconds(&self, characters: usize) -> f64 {
        self.min_seconds.max(characters as f64 / self.reading_speed)
    }
}

/// Cuts words into neighbouring pieces that cover all of them: at every gap of [`Limits::pause`], and between those gaps where the sum of
///
/// ```text
/// 1 + fill^2 + hurry + 1.5 (1 - place)     over the pieces
/// ```
///
/// is least, among all cuts that keep the limits: `fill` is the larger share of the characters and seconds allowed (even pieces are best),
/// `hurry` how much the time until the next word falls short of the time to read it (0 to 1), `place` how good the place behind the piece
/// is for a cut (1 after a sentence, 0.6 after a comma, `gap / 0.5 s` between words, the largest of these). Exact, by dynamic programming.
pub fn split(words: &[Word], limits: &Limits) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for i in 1..=words.len() {
        if i == words.len() || gap(words, i) >= limits.pause {
            divide(words, start..i, limits, &mut pieces);
            start = i;
        }
    }
    pieces
}

/// Silence before word `i`, seconds.
fn gap(words: &[Word], i: usize) -> f64 {
    words[i].start - words[i - 1].end
}

/// [`split`] between two long gaps.
fn divide(words: &[Word], run: Range<usize>, limits: &Limits, pieces: &mut Vec<Range<usize>>) {
    let lengths: Vec<usize> = words[run.clone()].iter().map(|w| graphemes(&w.word)).collect();
    // Least cost of the words from `i` on, and where their first piece ends.
    let mut best = vec![(f64::INFINITY, run.len()); run.len() + 1];
    best[run.len()].0 = 0.0;
    for i in (0..run.len()).rev() {
        let mut filling = Filling::new(limits.lines);
        for j in i + 1..=run.len().min(i + MOST_WORDS) {
            let seconds = words[run.start + j - 1].end - words[run.start + i].start;
            let fits = filling.push(lengths[j - 1]) && (seconds <= limits.max_seconds || limits.max_seconds == f64::INFINITY);
            if !fits && j > i + 1 {
                break;
            }
            let until = words.get(run.start + j).map_or(f64::INFINITY, |next| next.start - words[run.start + i].start);
            let fill = (filling.characters as f64 / limits.lines.characters()).max(seconds / limits.max_seconds);
            let reading = limits.reading_seconds(filling.characters);
            let hurry = if reading > 0.0 { (1.0 - until / reading).clamp(0.0, 1.0) } else { 0.0 };
            let place = if j == run.len() { 1.0 } else { place(words, run.start + j) };
            let cost = 1.0 + fill * fill + hurry + BAD_CUT * (1.0 - place) + best[j].0;
            // Also taken where times that are no numbers make no cost comparable.
            if cost < best[i].0 || j == i + 1 {
                best[i] = (cost, j);
            }
        }
    }
    let mut i = 0;
    while i < run.len() {
        pieces.push(run.start + i..run.start + best[i].1);
        i = best[i].1;
    }
}

/// How good a cut before word `i` is: 1 best, 0 worst.
fn place(words: &[Word], i: usize) -> f64 {
    let punctuation = match last_mark(&words[i - 1].word) {
        Some('.' | '?' | '!' | '\u{2026}' | '\u{3002}' | '\u{ff1f}' | '\u{ff01}') => 1.0,
        Some(',' | ';' | ':' | '\u{3001}' | '\u{ff0c}') => COMMA,
        _ => 0.0,
    };
    (gap(words, i) / GOOD_GAP).clamp(0.0, 1.0).max(punctuation)
}

/// The last character of a word, closing quotes and brackets aside.
fn last_mark(word: &str) -> Option<char> {
    word.trim_end_matches(['"', '\'', ')', ']', '\u{201d}', '\u{2019}', '\u{bb}']).chars().last()
}

fn graphemes(text: &str) -> usize {
    text.graphemes(true).count()
}

/// Words filled into lines one after the other, which takes the fewest lines.
struct Filling {
    limits: LineLimits,
    lines: usize,
    /// Characters and words of the line being filled.
    length: usize,
    words: usize,
    /// All characters, the spaces between words included.
    characters: usize,
}

impl Filling {
    fn new(limits: LineLimits) -> Self {
        Self { limits, lines: 0, length: 0, words: 0, characters: 0 }
    }

    /// Adds a word of `length` characters; `false` where it needs a line too many, or is too wide for one.
    fn push(&mut self, length: usize) -> bool {
        let goes_on = self.lines > 0 && self.words < self.limits.words && self.length + 1 + length <= self.limits.width;
        if goes_on {
            self.length += 1 + length;
            self.words += 1;
        } else {
            let label = if self.lines == 0 { self.limits.label } else { 0 };
            (self.lines, self.length, self.words) = (self.lines + 1, label + length, 1);
        }
        self.characters += length + usize::from(self.characters > 0);
        self.lines <= self.limits.count && self.length <= self.limits.width
    }
}

/// Breaks words into the fewest lines, of lengths as even as they get (the later ones longer), rather after punctuation.
///
/// Only a word wider than a line makes a line too wide, and then stands alone on it.
pub fn lines(words: &[Word], limits: &LineLimits) -> Vec<Range<usize>> {
    let lengths: Vec<usize> = words.iter().map(|w| graphemes(&w.word)).collect();
    // By the end of the last line: number of lines, sum of squared lengths less a bonus for each line that ends with punctuation, and the
    // start of the last line.
    let mut best = vec![(usize::MAX, i64::MAX, 0); words.len() + 1];
    best[0] = (0, 0, 0);
    for end in 1..=words.len() {
        let mut length = 0;
        for start in (0..end).rev() {
            length += lengths[start] + usize::from(start + 1 < end) + if start == 0 { limits.label } else { 0 };
            if start + 1 < end && (length > limits.width || end - start > limits.words) {
                break;
            }
            let bonus = if end < words.len() && last_mark(&words[end - 1].word).is_some_and(|c| c.is_ascii_punctuation()) {
                (limits.width.min(MOST_WORDS) / 3).pow(2) as i64
            } else {
                0
            };
            let square = (length.min(1 << 20) as i64).pow(2) - bonus;
            let (count, cost, _) = best[start];
            let new = (count + 1, cost.saturating_add(square), start);
            if (new.0, new.1) <= (best[end].0, best[end].1) {
                best[end] = new;
            }
        }
    }
    let mut lines = Vec::new();
    let mut end = words.len();
    while end > 0 {
        lines.push(best[end].2..end);
        end = best[end].2;
    }
    lines.reverse();
    lines
}

/// A piece of a segment as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Cue {
    /// When it appears, seconds.
    pub start: f64,
    /// When it goes, seconds.
    pub end: f64,
    /// Which of [`Transcript::segments`] it is a piece of.
    pub segment: usize,
    /// Which of [`Transcript::words`] stand on each line; no line where the segment has a text and no words.
    pub lines: Vec<Range<usize>>,
}

impl Cue {
    /// The words it shows.
    pub fn words(&self) -> Range<usize> {
        self.lines.first().map_or(0, |l| l.start)..self.lines.last().map_or(0, |l| l.end)
    }
}

/// Cuts every segment into cues. A cue starts with its first word and goes with its last, or later where silence follows and the limits
/// ask for it; it never reaches into the next cue of the same speaker, or past the end of the recording.
///
/// `label` gives the number of characters a segment's speaker takes on the first line.
pub fn cues(transcript: &Transcript, limits: &Limits, label: impl Fn(&Segment) -> usize) -> Vec<Cue> {
    let mut cues = Vec::new();
    for (i, segment) in transcript.segments.iter().enumerate() {
        let words = transcript.words_of(segment);
        if words.is_empty() {
            cues.push(Cue { start: segment.start, end: segment.end, segment: i, lines: Vec::new() });
        }
        let limits = Limits { lines: LineLimits { label: label(segment), ..limits.lines }, ..*limits };
        for piece in split(words, &limits) {
            let own = &words[piece.clone()];
            let shift = segment.words.start + piece.start;
            let lines = lines(own, &limits.lines).into_iter().map(|l| l.start + shift..l.end + shift).collect();
            let end = own.iter().map(|w| w.end).fold(own[0].start, f64::max);
            cues.push(Cue { start: own[0].start, end, segment: i, lines });
        }
    }
    settle_ends(transcript, limits, &mut cues);
    cues
}

/// Moves the end of every cue to where it can be read, before the next cue of its speaker starts.
fn settle_ends(transcript: &Transcript, limits: &Limits, cues: &mut [Cue]) {
    let mut next: BTreeMap<Voice, f64> = BTreeMap::new();
    for cue in cues.iter_mut().rev() {
        let segment = &transcript.segments[cue.segment];
        let until = next.insert((segment.channel, &segment.speaker), cue.start).unwrap_or(f64::INFINITY);
        let characters = cue.words().map(|w| graphemes(&transcript.words[w].word) + 1).sum::<usize>().saturating_sub(1);
        let wanted = (cue.start + limits.reading_seconds(characters).min(limits.max_seconds)).min(transcript.duration);
        cue.end = cue.end.max(wanted).min(until).max(cue.start);
    }
}

/// Whose speech must not overlap.
type Voice<'a> = (Option<u32>, &'a Option<String>);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pipeline::transcript::Track;

    /// Words of 0.3 s, 0.1 s apart; a number in the text is a pause of so many seconds.
    fn words(text: &str) -> Vec<Word> {
        let mut at = 0.0;
        let mut words = Vec::new();
        for part in text.split(' ') {
            if let Ok(pause) = part.parse::<f64>() {
                at += pause;
                continue;
            }
            words.push(Word { word: part.into(), start: at, end: at + 0.3, confidence: 1.0 });
            at += 0.4;
        }
        words
    }

    fn shown(words: &[Word], pieces: Vec<Range<usize>>) -> Vec<String> {
        let text = |piece: Range<usize>| words[piece].iter().map(|w| w.word.as_str()).collect::<Vec<_>>().join(" ");
        pieces.into_iter().map(text).collect()
    }

    fn subtitles() -> Limits {
        let lines = LineLimits { width: 20, count: 2, words: usize::MAX, label: 0 };
        Limits { pause: 1.0, max_seconds: 7.0, min_seconds: 1.0, reading_speed: 20.0, lines }
    }

    #[test]
    fn a_long_pause_cuts_and_a_short_one_does_not() {
        let words = words("so it goes 0.5 on and 1 then it stops");
        assert_eq!(shown(&words, split(&words, &Limits::segments())), ["so it goes", "on and", "then it stops"]);
        assert_eq!(shown(&words, split(&words, &Limits { pause: 1.0, ..Limits::segments() })), ["so it goes on and", "then it stops"]);
        assert_eq!(split(&words, &Limits::none()).len(), 1);
        assert!(split(&[], &Limits::segments()).is_empty());
    }

    #[test]
    fn a_sentence_end_or_the_longer_gap_is_where_a_full_cue_is_cut() {
        let words_ = words("we came at last to the river. nobody had seen the old boat there");
        assert_eq!(shown(&words_, split(&words_, &subtitles())), ["we came at last to the river.", "nobody had seen the old boat there"]);
        let words_ = words("we came at last to the river 0.4 nobody had seen the old boat there");
        assert_eq!(shown(&words_, split(&words_, &subtitles())), ["we came at last to the river", "nobody had seen the old boat there"]);
    }

    #[test]
    fn lines_are_balanced_and_a_short_text_stays_on_one() {
        let limits = LineLimits { width: 20, count: 2, words: usize::MAX, label: 0 };
        let broken = |text: &str| {
            let words = words(text);
            shown(&words, lines(&words, &limits))
        };
        assert_eq!(broken("a short line"), ["a short line"]);
        assert_eq!(broken("three words of text stand"), ["three words", "of text stand"]);
        assert_eq!(broken("oh well, then it was over"), ["oh well,", "then it was over"]);
        assert_eq!(
            broken("an incomprehensibilities antidisestablishmentarianism of"),
            ["an", "incomprehensibilities", "antidisestablishmentarianism", "of"]
        );
        assert_eq!(
            broken("e\u{301}e\u{301}e\u{301}e\u{301}e\u{301} e\u{301}e\u{301}e\u{301}e\u{301}e\u{301} aaaaaaaa"),
            ["e\u{301}e\u{301}e\u{301}e\u{301}e\u{301} e\u{301}e\u{301}e\u{301}e\u{301}e\u{301} aaaaaaaa"]
        );
    }

    #[test]
    fn a_cue_stays_until_it_is_read_where_silence_follows() {
        let transcript =
            |text: &str, duration| Transcript::new(duration, vec![Track { words: words(text), ..Track::default() }], &Limits::segments());
        let ends = |text: &str, duration| {
            cues(&transcript(text, duration), &subtitles(), |_| 0).iter().map(|c| (c.end * 1000.0).round() as u64).collect::<Vec<_>>()
        };
        // One second at least, but not into the next cue or past the end.
        assert_eq!(ends("hm 3 hm", 3.9), [1000, 3900]);
        assert_eq!(ends("hm 0.65 hm", 9.0), [1000, 2050]);
        assert_eq!(ends("hm 0.55 hm 0.55 hm", 9.0)[..2], [950, 1900]);
        // 19 letters at 20 per second take a little less than the 1.0 s; 39 take 1.95 s, longer than they are spoken.
        let slow = Limits { reading_speed: 10.0, ..subtitles() };
        let cue = &cues(&transcript("abcdefghi abcdefghi", 9.0), &slow, |_| 0)[0];
        assert!((cue.end - 1.9).abs() < 1e-9, "{cue:?}");
    }

    #[test]
    fn a_name_takes_room_on_the_first_line() {
        let track = Track { speaker: Some("Bo".into()), channel: Some(1), words: words("nineteen characters") };
        let transcript = Transcript::new(9.0, vec![track], &Limits::segments());
        assert_eq!(cues(&transcript, &subtitles(), |_| 0)[0].lines.len(), 1);
        assert_eq!(cues(&transcript, &subtitles(), |s| s.speaker.as_ref().map_or(0, |s| s.len() + 2))[0].lines.len(), 2);
    }

    #[test]
    fn times_that_are_no_numbers_and_many_words_end() {
        let odd = |start: f64, end: f64| Word { word: "x".into(), start, end, confidence: 1.0 };
        let words = vec![odd(f64::NAN, 1.0), odd(0.0, f64::INFINITY), odd(f64::NEG_INFINITY, f64::NAN), odd(5.0, 2.0)];
        assert_eq!(split(&words, &subtitles()).iter().map(Range::len).sum::<usize>(), 4);
        let words = vec![odd(0.0, 0.0); 20_000];
        assert_eq!(split(&words, &Limits::segments()).iter().map(Range::len).sum::<usize>(), 20_000);
        assert_eq!(split(&words, &subtitles()).iter().map(Range::len).sum::<usize>(), 20_000);
    }

    /// Words as recognisers give them: short gaps, some long ones, some of no length.
    fn speech() -> impl Strategy<Value = Vec<Word>> {
        let gap = prop_oneof![4 => 0.0..0.3f64, 1 => 0.3..3.0f64];
        prop::collection::vec((gap, prop_oneof![5 => 0.02..0.8f64, 1 => Just(0.0)], "[a-z]{1,24}[.,]?"), 0..60).prop_map(|parts| {
            let mut at = 0.0;
            let word = |(gap, length, word): (f64, f64, String)| {
                let start = at + gap;
                at = start + length;
                Word { word, start, end: at, confidence: 1.0 }
            };
            parts.into_iter().map(word).collect()
        })
    }

    /// Cost of a piece as [`split`] documents it, written anew; `None` where it breaks a limit.
    fn cost(words: &[Word], piece: Range<usize>, limits: &Limits) -> Option<f64> {
        let own = &words[piece.clone()];
        let seconds = own[own.len() - 1].end - own[0].start;
        let characters = own.iter().map(|w| w.word.len() + 1).sum::<usize>() - 1;
        let fits = lines(own, &limits.lines).len() <= limits.lines.count && seconds <= limits.max_seconds;
        let broken = own[1..].iter().enumerate().any(|(i, w)| w.start - own[i].end >= limits.pause) || !fits;
        let last = piece.end == words.len() || words[piece.end].start - words[piece.end - 1].end >= limits.pause;
        let until = if piece.end == words.len() { f64::INFINITY } else { words[piece.end].start - own[0].start };
        let fill = (characters as f64 / limits.lines.characters()).max(seconds / limits.max_seconds);
        let hurry = (1.0 - until / (characters as f64 / limits.reading_speed).max(limits.min_seconds)).clamp(0.0, 1.0);
        let place = if last { 1.0 } else { place(words, piece.end) };
        (own.len() == 1 || !broken).then_some(1.0 + fill * fill + hurry + BAD_CUT * (1.0 - place))
    }

    proptest! {
        #[test]
        fn every_word_once_and_the_limits_hold(
            words in speech(), width in 5usize..45, count in 1usize..4, per_line in 1usize..9, seconds in 0.5..10.0f64, pause in 0.2..2.0f64,
        ) {
            let lines_ = LineLimits { width, count, words: per_line, label: 0 };
            let limits = Limits { pause, max_seconds: seconds, min_seconds: 0.8, reading_speed: 17.0, lines: lines_ };
            let duration = words.last().map_or(0.0, |w| w.end) + 0.5;
            let transcript = Transcript::new(duration, vec![Track { words: words.clone(), ..Track::default() }], &Limits::segments());
            prop_assert_eq!(&transcript.words, &words);
            for segment in &transcript.segments {
                prop_assert!(segment.end - segment.start <= SEGMENT_SECONDS || segment.words.len() == 1);
            }
            let cues = cues(&transcript, &limits, |_| 0);
            let mut next = 0;
            for (i, cue) in cues.iter().enumerate() {
                prop_assert_eq!(cue.words().start, next);
                next = cue.words().end;
                let own = &words[cue.words()];
                let too_wide = own.iter().any(|w| graphemes(&w.word) > width);
                prop_assert!(cue.lines.len() <= count || (too_wide && own.len() <= 2), "{:?}", cue);
                prop_assert!(own[own.len() - 1].end - own[0].start <= seconds || own.len() == 1);
                for line in &cue.lines {
                    let text = words[line.clone()].iter().map(|w| w.word.as_str()).collect::<Vec<_>>().join(" ");
                    prop_assert!((graphemes(&text) <= width && line.len() <= per_line) || line.len() == 1, "{}", text);
                }
                prop_assert!(cue.lines.windows(2).all(|l| l[0].end == l[1].start));
                let inside = own.windows(2).all(|w| w[1].start - w[0].end < pause);
                prop_assert!(inside);
                prop_assert!(cue.start <= cue.end && cue.start == own[0].start && cue.end <= duration.max(own[own.len() - 1].end));
                let until = cues.get(i + 1).map_or(f64::INFINITY, |next| next.start);
                prop_assert!(cue.end <= until);
                prop_assert!(cue.end >= own[own.len() - 1].end.min(until));
            }
            prop_assert_eq!(next, words.len());
        }

        #[test]
        fn no_other_cut_costs_less(words in speech().prop_map(|mut w| { w.truncate(9); w }), width in 25usize..40, seconds in 0.8..6.0f64) {
            let limits = Limits { max_seconds: seconds, lines: LineLimits { width, count: 2, words: usize::MAX, label: 0 }, ..subtitles() };
            let total = |cuts: &[Range<usize>]| cuts.iter().map(|c| cost(&words, c.clone(), &limits)).sum::<Option<f64>>();
            let ours = total(&split(&words, &limits)).expect("limits hold");
            for mask in 0u32..1 << words.len().saturating_sub(1) {
                let mut cuts = Vec::new();
                let mut start = 0;
                for i in 1..=words.len() {
                    if i == words.len() || mask & (1 << (i - 1)) != 0 {
                        cuts.push(start..i);
                        start = i;
                    }
                }
                if let Some(theirs) = total(&cuts) {
                    prop_assert!(ours <= theirs + 1e-9, "{} against {} for {:?}", ours, theirs, cuts);
                }
            }
        }
    }
}
