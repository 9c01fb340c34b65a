//! Transcript formats: byte for byte against openai/whisper's writers, against kept files that third-party parsers have read
//! (`benchmarks/formats_peer.py`), and properties of every format for any transcript.
//!
//! `UPDATE_GOLDEN=1 cargo test --release --test it formats` writes the kept files anew; have them read by the parsers again then.

use std::path::{Path, PathBuf};

use omniscribe::pipeline::format::{Format, FormatOptions, write};
use omniscribe::pipeline::segment::Limits;
use omniscribe::pipeline::transcript::{Track, Transcript, Word};
use proptest::prelude::*;
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/formats")
}

fn read(name: &str) -> String {
    let path = folder().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn cases() -> Vec<(String, Transcript)> {
    let cases: Value = serde_json::from_str(&read("cases.json")).expect("cases");
    let cases = cases.as_object().expect("cases by name").clone();
    assert!(cases.len() > 1);
    cases.into_iter().map(|(name, case)| (name, serde_json::from_value(case).expect("a transcript"))).collect()
}

fn written(transcript: &Transcript, format: Format, options: &FormatOptions) -> String {
    let mut bytes = Vec::new();
    write(transcript, format, options, &mut bytes).expect("memory takes everything");
    String::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn whisper_writers_byte_for_byte() {
    let mut compared = 0;
    for (name, transcript) in cases() {
        for format in [Format::Txt, Format::Tsv, Format::Srt, Format::Vtt] {
            for highlight_words in [false, true] {
                let variant = if highlight_words { ".highlight" } else { "" };
                let file = format!("{name}{variant}.whisper.{}", format.extension());
                if !folder().join(&file).exists() {
                    continue;
                }
                let options = FormatOptions { highlight_words, ..FormatOptions::whole_segments() };
                // The one difference: whisper leaves the `>` of WebVTT text as it is, W3C's grammar has an escape for it.
                assert_eq!(written(&transcript, format, &options).replace("-&gt;", "->"), read(&file), "{file}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 14, "every file of whisper's");
}

#[test]
fn kept_files_are_what_is_written() {
    let subtitles = |name: &str| match name {
        // As whisper does, so that both can be compared.
        "segments" | "words" => FormatOptions::whole_segments(),
        _ => FormatOptions::default(),
    };
    let mut wrong = Vec::new();
    for (name, transcript) in cases() {
        let plain = Format::ALL.into_iter().map(|f| (format!("{name}.{}", f.extension()), f, subtitles(&name)));
        let highlight = FormatOptions { highlight_words: true, ..subtitles(&name) };
        for (file, format, options) in plain.chain([(format!("{name}.highlight.vtt"), Format::Vtt, highlight)]) {
            let text = written(&transcript, format, &options);
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                std::fs::write(folder().join(&file), &text).expect("write");
            }
            if read(&file) != text {
                wrong.push(file);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn any_format_can_be_read_back_by_name() {
    let (_, transcript) = cases().into_iter().find(|(name, _)| name == "river").expect("river");
    let json = written(&transcript, Format::Json, &FormatOptions::default());
    assert_eq!(serde_json::from_str::<Transcript>(&json).expect("our own JSON"), transcript);
    assert_eq!(json.lines().count(), 1);
}

/// Cues of an SRT or WebVTT file: start and end in milliseconds, lines.
fn parse_cues(text: &str, format: Format) -> Vec<(u64, u64, Vec<String>)> {
    let time = |s: &str| {
        let (clock, ms) = s.rsplit_once([',', '.']).expect("milliseconds");
        clock.split(':').fold(0, |t, part| t * 60 + part.parse::<u64>().expect("a number")) * 1000 + ms.parse::<u64>().expect("a number")
    };
    let body = if format == Format::Vtt { text.strip_prefix("WEBVTT\n\n").expect("header") } else { text };
    let mut cues = Vec::new();
    for (i, block) in body.split_terminator("\n\n").enumerate() {
        let mut lines = block.lines();
        if format == Format::Srt {
            assert_eq!(lines.next(), Some((i + 1).to_string().as_str()));
        }
        let (start, end) = lines.next().expect("times").split_once(" --> ").expect("arrow");
        cues.push((time(start), time(end), lines.map(str::to_string).collect()));
    }
    cues
}

/// Any text a model with any tokenizer could say, with everything a format gives a meaning to.
fn any_word() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z']{1,14}[,.]?",
        1 => prop::sample::select(vec!["-->", "--->", "&", "<u>", "</u>", "\"", "\t", "a\nb", "\r\n\r\n1", "\u{2028}", ";;", "{a", "/", "[00:00.00]", "(x)", "\u{0}"]).prop_map(String::from),
        1 => "\\PC{1,6}",
    ]
}

fn any_track() -> impl Strategy<Value = Vec<Word>> {
    let gap = prop_oneof![4 => 0.0..0.3f64, 1 => 0.3..4000.0f64];
    prop::collection::vec((gap, prop_oneof![5 => 0.001..0.8f64, 1 => Just(0.0)], any_word(), 0.0..=1.0f64), 0..40).prop_map(|parts| {
        let mut at = 0.0;
        let word = |(gap, length, word, confidence): (f64, f64, String, f64)| {
            let start = at + gap;
            at = start + length;
            Word { word, start, end: at, confidence }
        };
        parts.into_iter().map(word).collect()
    })
}

fn any_options() -> impl Strategy<Value = FormatOptions> {
    let seconds = || prop::option::of(0.1..9.0f64);
    let count = |most: usize| prop::option::of(1..most);
    (count(60), count(4), count(9), any::<bool>(), seconds(), seconds(), seconds()).prop_map(
        |(max_line_width, max_line_count, max_words_per_line, highlight_words, max_cue_seconds, min_cue_seconds, gap_seconds)| {
            FormatOptions {
                max_line_width,
                max_line_count,
                max_words_per_line,
                highlight_words,
                reading_speed_cps: Some(17.0),
                max_cue_seconds,
                min_cue_seconds,
                gap_seconds,
            }
        },
    )
}

/// Letters and digits alone: what escapes, labels and line breaks leave unchanged.
fn letters(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn subtitles_show_every_word_once_in_order_and_never_overlap(words in any_track(), options in any_options()) {
        let duration = words.last().map_or(0.0, |w| w.end) + 1.0;
        let transcript = Transcript::new(duration, vec![Track { words, ..Track::default() }], &Limits::segments());
        for format in [Format::Srt, Format::Vtt] {
            let options = FormatOptions { highlight_words: false, ..options };
            let cues = parse_cues(&written(&transcript, format, &options), format);
            let mut at = 0;
            for (start, end, lines) in &cues {
                // A cue of no length is given a millisecond.
                prop_assert!(*start + 1 >= at && start < end, "{} {} {}", at, start, end);
                at = *end;
                prop_assert!(lines.iter().all(|l| !l.contains("-->")));
                prop_assert!(format == Format::Srt || lines.iter().all(|l| !l.contains(['<', '>'])));
            }
            let shown = cues.iter().flat_map(|(_, _, lines)| lines).map(|l| l.replace("&amp;", "").replace("&lt;", "").replace("&gt;", ""));
            let shown: String = shown.map(|l| letters(&l)).collect();
            let said: String = transcript.words.iter().map(|w| if format == Format::Vtt { w.word.replace("&amp;", "") } else { w.word.clone() }).map(|w| letters(&w)).collect();
            prop_assert_eq!(shown, said);
        }
    }

    #[test]
    fn highlights_cover_the_same_time_as_the_cues(mut words in any_track(), options in any_options()) {
        // Cues without visible text are not written.
        words.iter_mut().for_each(|w| w.word.push('x'));
        let transcript = Transcript::new(1e6, vec![Track { words, ..Track::default() }], &Limits::segments());
        let cues = |highlight_words| {
            let cues = parse_cues(&written(&transcript, Format::Srt, &FormatOptions { highlight_words, ..options }), Format::Srt);
            cues.into_iter().map(|(start, end, _)| (start, end)).collect::<Vec<_>>()
        };
        let (plain, marked) = (cues(false), cues(true));
        let mut parts = marked.iter().copied().peekable();
        for (start, end) in plain {
            let mut at = start;
            while at < end {
                let Some(part) = parts.next() else { break };
                prop_assert_eq!(part.0, at);
                prop_assert!(part.1 > at && part.1 <= end);
                at = part.1;
            }
            prop_assert_eq!(at, end);
        }
        prop_assert!(parts.next().is_none());
    }

    #[test]
    fn tables_have_their_columns_and_tiers_have_no_gaps(left in any_track(), right in any_track()) {
        let track = |channel: u32, words| Track { channel: Some(channel), speaker: Some(format!("Channel {channel}")), words };
        let transcript = Transcript::new(10.0, vec![track(1, left), track(2, right)], &Limits::segments());
        let text = |format| written(&transcript, format, &FormatOptions::default());
        let segments = transcript.segments.len();
        prop_assert_eq!(text(Format::Txt).lines().count(), segments);
        prop_assert!(text(Format::Tsv).lines().all(|l| l.split('\t').count() == 3));
        prop_assert_eq!(text(Format::Csv).lines().count(), segments + 1);
        // Outside quotes there are three commas in every row.
        prop_assert!(text(Format::Csv).lines().skip(1).all(|l| l.split('"').step_by(2).map(|part| part.matches(',').count()).sum::<usize>() == 3));
        for line in text(Format::Ctm).lines() {
            let columns: Vec<&str> = line.split(' ').collect();
            prop_assert_eq!(columns.len(), 6);
            prop_assert!(columns[2..4].iter().chain(&columns[5..]).all(|n| n.parse::<f64>().is_ok()));
        }
        let stm = text(Format::Stm).lines().all(|l| l.split(' ').count() >= 5 && !l.contains(['{', '<', '(']));
        prop_assert!(stm);
        let mut at = 0.0;
        for line in text(Format::TextGrid).lines().filter_map(|l| l.strip_prefix("            x")) {
            let value: f64 = line.split_once("= ").expect("value").1.parse().expect("a number");
            if line.starts_with("min") {
                prop_assert!(value == at || value == 0.0);
            } else {
                prop_assert!(value > at || at > 1e6 || value > 0.0);
                at = value;
            }
        }
        for format in [Format::Json, Format::VerboseJson] {
            let value: Value = serde_json::from_str(&text(format)).expect("JSON");
            prop_assert_eq!(value["segments"].as_array().map(Vec::len), Some(segments));
            prop_assert_eq!(value["words"].as_array().map(Vec::len), Some(transcript.words.len()));
        }
    }

    #[test]
    fn transcripts_from_elsewhere_never_panic(
        times in prop::collection::vec((any::<f64>(), any::<f64>(), any_word(), 0usize..9, 0usize..9), 0..8), duration in any::<f64>(),
    ) {
        let mut transcript = Transcript::new(duration, Vec::new(), &Limits::segments());
        for (start, end, word, first, last) in times {
            transcript.words.push(Word { word: word.clone(), start, end, confidence: end });
            let segment = serde_json::json!({"start": 0, "end": 0, "text": word, "words": [first, last], "confidence": 1});
            let segment = serde_json::from_value(segment).expect("segment");
            transcript.segments.push(omniscribe::pipeline::transcript::Segment { start, end, ..segment });
        }
        for format in Format::ALL {
            for options in [FormatOptions::default(), FormatOptions { highlight_words: true, ..FormatOptions::whole_segments() }] {
                let text = written(&transcript, format, &options);
                prop_assert!(!text.contains("NaN") || !matches!(format, Format::Json | Format::VerboseJson));
            }
        }
    }
}
