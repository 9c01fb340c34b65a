//! Tables for people, in Markdown.

use std::fmt::Write;

use super::result::RunResult;
use crate::eval::bootstrap::Interval;
use crate::eval::calibration::Quality;
use crate::eval::wer::WordErrors;
use crate::pipeline::calibration::Logistic;

/// The scores of a run with what they rest on.
pub fn table(result: &RunResult) -> String {
    let p = &result.provenance;
    let columns = ["set", "WER, %", "95 % interval", "CER, %", "S", "D", "I", "words", "utterances", "hours"];
    let mut rows: Vec<Vec<String>> = Vec::new();
    for set in &result.sets {
        let w = set.words;
        let mut row =
            vec![cell(&set.name), if set.utterances > 0 { percent(set.wer) } else { "–".into() }, range(set.interval), percent(set.cer)];
        row.extend([w.substitutions, w.deletions, w.insertions, w.reference_words, set.utterances].map(|n| n.to_string()));
        row.push(format!("{:.2}", set.hours));
        rows.push(row);
    }
    if result.sets.len() > 1 {
        let w = result.total();
        let characters: WordErrors = result.sets.iter().map(|s| s.characters).sum();
        let mut row = vec!["all words".into(), percent(w.wer()), String::new(), percent(characters.wer())];
        row.extend([w.substitutions, w.deletions, w.insertions, w.reference_words, result.utterances()].map(|n| n.to_string()));
        row.push(format!("{:.2}", result.hours()));
        rows.push(row);
        let mut row =
            vec!["mean of sets".into(), format!("**{}**", percent(result.mean.wer)), range(result.mean.interval), percent(result.mean.cer)];
        row.resize(columns.len(), String::new());
        rows.push(row);
    }
    let mut text = format!("**{}**: normaliser `{}`, aligner `{}`\n\n", cell(&p.model.name), p.scoring.normalizer, p.scoring.aligner);
    text += &grid(&columns, &rows);
    let s = &result.speed;
    let memory = s.peak_memory_bytes.map(|b| format!(", peak memory {:.0} MiB", b as f64 / f64::from(1 << 20))).unwrap_or_default();
    let shares = [("audio", s.shares.audio), ("features", s.shares.features), ("encoder", s.shares.encoder), ("decoder", s.shares.decoder)];
    let shares: Vec<String> = shares.iter().map(|(name, share)| format!("{name} {:.0} %", 100.0 * share)).collect();
    // Transcripts of another program were not timed. Writing to a String cannot fail.
    let timed = s.rtfx_compute > 0.0;
    let _ = timed.then(|| {
        writeln!(
            text,
            "\nSpeed on {} ({}, {}, {} threads): RTFx {:.1} compute, {:.1} end to end; {}; first transcript after {:.2} s{memory}.",
            cell(&p.device),
            cell(&p.cpu),
            cell(&p.dtype),
            p.threads,
            s.rtfx_compute,
            s.rtfx_end_to_end,
            shares.join(", "),
            s.first_transcript_seconds,
        )
    });
    if let Some(c) = &result.confidence {
        let right = percent(c.right as f64 / c.words.max(1) as f64);
        let _ = write!(text, "\nConfidence of {} words, {right} % of them right: {}", c.words, quality(c.raw));
        if c.curve != Logistic::default() {
            let _ = write!(text, "; after calibration {}", quality(c.calibrated));
        }
        if let Some(held_out) = c.held_out {
            let _ = write!(text, " (fitted here; on utterances it was not fitted to: {})", quality(held_out));
        }
        text += ".\n";
    }
    for set in &result.sets {
        for (kind, problems) in &set.problems {
            let _ = writeln!(text, "\n{} in {}: {}.", cell(&kind.replace('_', " ")), cell(&set.name), problems.count);
        }
    }
    text
}

/// In words.
pub(super) fn quality(quality: Quality) -> String {
    format!("ECE {} %, NCE {:.3}", percent(quality.ece), quality.nce)
}

fn range(interval: Option<Interval>) -> String {
    interval.map(|i| format!("{}–{}", percent(i.low), percent(i.high))).unwrap_or_default()
}

/// A Markdown table, its columns padded so that it reads as text too; all but the first are aligned right.
pub(super) fn grid(columns: &[impl AsRef<str>], rows: &[Vec<String>]) -> String {
    let width = |text: &str| text.chars().count();
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(i, name)| rows.iter().filter_map(|r| r.get(i)).map(|c| width(c)).chain([width(name.as_ref()), 3]).max().unwrap_or(3))
        .collect();
    let line = |cells: Vec<&str>| {
        let mut text = String::from("|");
        for (i, (cell, wide)) in cells.into_iter().zip(&widths).enumerate() {
            let space = " ".repeat(wide - width(cell).min(*wide));
            text += &if i == 0 { format!(" {cell}{space} |") } else { format!(" {space}{cell} |") };
        }
        text + "\n"
    };
    let mut text = line(columns.iter().map(AsRef::as_ref).collect());
    text += "|";
    for (i, wide) in widths.iter().enumerate() {
        text += &if i == 0 { format!("{}|", "-".repeat(wide + 2)) } else { format!("{}:|", "-".repeat(wide + 1)) };
    }
    text += "\n";
    rows.iter().for_each(|row| text += &line(row.iter().map(String::as_str).collect()));
    text
}

/// Text that stays in its cell and is not taken as markup.
pub(super) fn cell(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '~' => out.extend(['\\', c]),
            '<' => out += "&lt;",
            '&' => out += "&amp;",
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// A fraction as percent with two decimals.
pub(super) fn percent(fraction: f64) -> String {
    format!("{:.2}", 100.0 * fraction)
}
