//! The result as one HTML file that needs nothing else: scores, confusions, experts, speed, provenance, and every utterance aligned.
//!
//! No text from a corpus, a model or a command line is parsed as HTML: what is written here is escaped, utterances are JSON that the
//! page's script shows as text, and the page's own policy runs no script but that one and loads nothing from a network.

mod embed;
mod experts;
pub mod routing;
mod sections;
mod sets;

use std::path::Path;

use sha2::{Digest, Sha256};

use super::journal::Utterance;
use super::result::{RunResult, hex};
use embed::Listing;

const PAGE: &str = include_str!("html/page.html");
const STYLE: &str = include_str!("html/style.css");
const SCRIPT: &str = include_str!("html/report.js");

/// The report of a run, to be written into `folder`: audio files that are there are linked relative to it.
pub fn render(result: &RunResult, utterances: &[Utterance], folder: &Path) -> String {
    let listing = Listing::of(result, utterances, folder);
    let data = embed::json(&listing);
    // Of the data itself, so that no text in the data can hold it.
    let nonce = hex(&Sha256::digest(&data));
    let p = &result.provenance;
    let sections = [
        sets::section(result),
        sets::speakers(result),
        sections::problems(result),
        sections::confusions(&result.confusions),
        result.experts.as_ref().map_or_else(String::new, |e| experts::section(e, utterances)),
        sections::speed(result),
        sections::provenance(result),
    ]
    .concat();
    fill(PAGE, |name| match name {
        "nonce" => nonce.clone(),
        "program" => escape(p.program.split(' ').next().unwrap_or_default()),
        "title" => escape(&format!("{}: WER {} %", p.model.name, percent(result.mean.wer))),
        "style" => STYLE.into(),
        "model" => escape(&p.model.name),
        "sub" => escape(&format!(
            "{} · {} normaliser, {} alignment · {}, {}, {}",
            p.started.split('T').next().unwrap_or_default(),
            p.scoring.normalizer,
            p.scoring.aligner,
            p.device,
            p.dtype,
            count(p.threads, "thread")
        )),
        "figures" => sections::figures(result),
        "sections" => sections.clone(),
        "data" => data.clone(),
        "script" => SCRIPT.into(),
        _ => String::new(),
    })
}

/// `template` with each `{{name}}` replaced once; what is put in is not looked at again.
fn fill(template: &str, value: impl Fn(&str) -> String) -> String {
    let mut parts = template.split("{{");
    let mut page = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let (name, rest) = part.split_once("}}").unwrap_or((part, ""));
        page += &value(name);
        page += rest;
    }
    page
}

/// `text` as HTML text or attribute value that reads the same.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c => out.push(c),
        }
    }
    out
}

/// A fraction as percent with two decimals.
fn percent(fraction: f64) -> String {
    format!("{:.2}", 100.0 * fraction)
}

/// `1 speaker`, `2 620 speakers`.
fn count(n: usize, noun: &str) -> String {
    format!("{} {noun}{}", thousands(n), if n == 1 { "" } else { "s" })
}

/// Groups of three digits, set apart by a narrow space that does not break.
fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(|g| String::from_utf8_lossy(g).into_owned());
    groups.collect::<Vec<_>>().join("\u{202f}")
}
