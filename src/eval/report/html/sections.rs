//! The page's smaller parts: figures, problems, confusions, speed, provenance.

use std::fmt::Write;

use super::{count, escape, percent, sets, thousands};
use crate::eval::report::markdown::quality;
use crate::eval::report::result::{RunResult, Shares};
use crate::eval::summary::{Confusion, Confusions};

/// Rows of each table of confusions.
const CONFUSIONS: usize = 12;

/// The numbers under the name.
pub(super) fn figures(result: &RunResult) -> String {
    let mut all = String::new();
    let mut add = |name: &str, value: String, unit: &str, note: String| {
        let note = if note.is_empty() { note } else { format!("<small>{}</small>", escape(&note)) };
        let _ = writeln!(all, "<div><dt>{name}</dt><dd>{}<span class=\"unit\">{unit}</span>{note}</dd></div>", escape(&value));
    };
    let sets = result.sets.len();
    let (mean, note) = match result.sets.as_slice() {
        [only] => ("WER", only.interval.map(|i| format!("{} to {}", percent(i.low), percent(i.high))).unwrap_or_default()),
        _ => ("mean WER", result.mean.interval.map(|i| format!("{} to {}", percent(i.low), percent(i.high))).unwrap_or_default()),
    };
    add(mean, percent(result.mean.wer), " %", note);
    add(if sets == 1 { "CER" } else { "mean CER" }, percent(result.mean.cer), " %", String::new());
    let hours = result.hours();
    let heard = format!("{} in {}", count(result.utterances(), "utterance"), count(sets, "set"));
    let (amount, unit) = if hours < 1.0 { (60.0 * hours, " min") } else { (hours, " h") };
    add("audio", format!("{amount:.1}"), unit, heard);
    let speed = &result.speed;
    add("speed, end to end", factor(speed.rtfx_end_to_end), "×", format!("compute alone {}×", factor(speed.rtfx_compute)));
    if let Some(confidence) = &result.confidence {
        let note = format!("before calibration {}", quality(confidence.raw));
        add("calibration error", percent(confidence.calibrated.ece), " %", format!("NCE {:.3}; {note}", confidence.calibrated.nce));
    }
    let model = &result.provenance.model;
    if let Some(parameters) = model.parameters {
        let note = model.active_parameters.map(|n| format!("{} M at work", millions(n))).unwrap_or_default();
        add("parameters", millions(parameters), " M", note);
    }
    all
}

fn millions(n: u64) -> String {
    let n = n as f64 / 1e6;
    if n < 100.0 { format!("{n:.1}") } else { format!("{n:.0}") }
}

fn factor(x: f64) -> String {
    if x < 10.0 { format!("{x:.1}") } else { thousands(x.round() as usize) }
}

/// What went wrong, if anything did.
pub(super) fn problems(result: &RunResult) -> String {
    let mut rows = String::new();
    for (set, kind, problems) in result.sets.iter().flat_map(|s| s.problems.iter().map(move |(kind, p)| (&s.name, kind, p))) {
        let _ = write!(
            rows,
            "<details><summary>{}: {} {}</summary><ul>",
            escape(set),
            thousands(problems.count),
            escape(&kind.replace('_', " "))
        );
        problems.first.iter().for_each(|what| _ = write!(rows, "<li>{}</li>", escape(what)));
        match problems.count.saturating_sub(problems.first.len()) {
            0 => rows += "</ul></details>\n",
            more => _ = writeln!(rows, "<li>and {} more</li></ul></details>", thousands(more)),
        }
    }
    if rows.is_empty() { rows } else { format!("<section>\n<h2>Problems</h2>\n{rows}</section>\n") }
}

/// Most frequent errors by kind.
pub(super) fn confusions(Confusions { substitutions, deletions, insertions }: &Confusions) -> String {
    let table = |title: &str, class: &str, list: &[Confusion]| {
        let rows = list.iter().take(CONFUSIONS).map(|Confusion { reference, hypothesis, count }| {
            let pair = serde_json::to_string(&(reference, hypothesis)).unwrap_or_default();
            let words = [reference, hypothesis].into_iter().filter(|w| !w.is_empty()).map(|w| escape(w));
            let words = words.collect::<Vec<_>>().join("<span class=\"arrow\">→</span>");
            format!("<tr><td data-pair=\"{}\">{words}</td><td>{}</td></tr>\n", escape(&pair), thousands(*count))
        });
        format!("<div><h3 class=\"{class}\">{title}</h3>\n<table><tbody>\n{}</tbody></table></div>\n", rows.collect::<String>())
    };
    if [substitutions, deletions, insertions].iter().all(|list| list.is_empty()) {
        return String::new();
    }
    format!(
        "<section>\n<h2>Confusions</h2>\n<div class=\"columns\">\n{}{}{}</div>\n</section>\n",
        table("Substituted", "cs", substitutions),
        table("Deleted", "cd", deletions),
        table("Inserted", "ci", insertions),
    )
}

/// Where the time went.
pub(super) fn speed(result: &RunResult) -> String {
    let speed = &result.speed;
    let Shares { audio, features, encoder, decoder } = speed.shares;
    let parts = [("audio decoding", audio, 0.25), ("features", features, 0.5), ("encoder", encoder, 1.0), ("decoder", decoder, 0.72)];
    let (mut bar, mut legend, mut from) = (String::new(), String::new(), 0.0);
    for (name, share, opacity) in parts {
        let (x, width) = (100.0 * from, 100.0 * share);
        let _ = write!(bar, "<rect class=\"fa\" fill-opacity=\"{opacity}\" x=\"{x:.2}%\" width=\"{width:.2}%\" height=\"14\"/>");
        let _ = write!(
            legend,
            "<span><svg viewBox=\"0 0 11 11\"><rect class=\"fa\" fill-opacity=\"{opacity}\" width=\"11\" height=\"11\"/></svg>{name} {width:.1} %</span>"
        );
        from += share;
    }
    let mut rows = String::new();
    let mut add = |name: &str, value: String| _ = writeln!(rows, "<div><dt>{name}</dt><dd>{}</dd></div>", escape(&value));
    add("RTFx, compute", format!("{}×", factor(speed.rtfx_compute)));
    add("RTFx, end to end", format!("{}×", factor(speed.rtfx_end_to_end)));
    add("first transcript after", format!("{:.2} s", speed.first_transcript_seconds));
    if let Some(bytes) = speed.peak_memory_bytes {
        add("peak memory", format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20)));
    }
    add("measured", format!("{}, {:.1} min", count(speed.utterances, "utterance"), speed.audio_seconds / 60.0));
    add("warm-up", count(speed.warm_up_utterances, "utterance"));
    format!(
        "<section>\n<h2>Speed</h2>\n<div class=\"share\"><svg class=\"stack\" aria-hidden=\"true\">{bar}</svg></div>\n<p class=\"legend\">{legend}</p>\n\
         <dl class=\"rows\">\n{rows}</dl>\n</section>\n"
    )
}

/// How to get the numbers again.
pub(super) fn provenance(result: &RunResult) -> String {
    let p = &result.provenance;
    let mut rows = String::new();
    let mut add = |name: &str, value: &str| _ = writeln!(rows, "<dt>{name}</dt><dd>{}</dd>", escape(value));
    add("program", &p.commit.as_ref().map_or_else(|| p.program.clone(), |c| format!("{}, commit {c}", p.program)));
    add("model", &p.model.name);
    if let Some(sha256) = &p.model.weights_sha256 {
        add("weights", &format!("sha256 {sha256}"));
    }
    add("run", &format!("{}, started {}", result.run, p.started));
    add("machine", &format!("{}, {}, {}, {}", p.cpu, p.device, p.dtype, count(p.threads, "thread")));
    add("scoring", &format!("normaliser {}, aligner {}, seed {}", p.scoring.normalizer, p.scoring.aligner, p.resampling.seed));
    let settings: Vec<String> = p.decoder.iter().map(|(key, value)| format!("{key} {}", plain(value))).collect();
    add("decoder", &settings.join(", "));
    let _ = writeln!(rows, "<dt>command</dt><dd><pre>{}</pre></dd>", escape(&command(&p.command)));
    let mut corpora = String::new();
    for (corpus, set) in p.corpora.iter().zip(&result.sets) {
        let _ = writeln!(
            corpora,
            "<tr><th scope=\"row\" class=\"set\">{}</th><td>{}</td><td>{}</td><td>{:.2}</td><td class=\"soft\">{}</td><td class=\"soft\">{}</td>\
             <td><code title=\"{}\">{}</code></td></tr>",
            escape(&corpus.set),
            escape(&corpus.layout),
            thousands(set.utterances),
            set.hours,
            escape(&set.interval.as_ref().map(sets::over).unwrap_or_default()),
            escape(&corpus.rules.iter().map(|(rule, choice)| format!("{rule}: {choice}")).collect::<Vec<_>>().join(", ")),
            escape(&corpus.sha256),
            escape(&corpus.sha256.chars().take(10).collect::<String>()),
        );
    }
    format!(
        "<section>\n<h2>Provenance</h2>\n<div class=\"box\">\n<dl class=\"source\">\n{rows}</dl>\n<details><summary>corpora</summary>\n<div class=\"scroll\"><table>\n\
         <thead><tr><th scope=\"col\">set</th><th scope=\"col\">layout</th><th scope=\"col\">utterances</th><th scope=\"col\">hours</th>\
         <th scope=\"col\">interval</th><th scope=\"col\">rules</th><th scope=\"col\">sha256</th></tr></thead>\n<tbody>\n{corpora}</tbody></table></div></details>\n\
         </div>\n</section>\n"
    )
}

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

/// Words as a shell takes them.
fn command(words: &[String]) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    let quote = |w: &String| if !w.is_empty() && w.chars().all(safe) { w.clone() } else { format!("'{}'", w.replace('\'', "'\\''")) };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}
