//! Pictures of what the router did: layers x experts, over time, and step by step.

use std::fmt::Write;

use super::escape;
use crate::eval::report::journal::Utterance;
use crate::eval::report::result::{ExpertUsage, Trace};

/// Experts whose shares are written into the cells.
const LABELLED: usize = 16;
/// Sizes of cells, and room for labels, SVG units.
const CELL: (f64, f64) = (44.0, 20.0);
const SMALL: (f64, f64) = (8.0, 8.0);
const LEFT: f64 = 30.0;
const TOP: f64 = 18.0;
/// Height of a layer in a trace, width of the trace.
const LAYER: f64 = 11.0;
const WIDTH: f64 = 1000.0;
/// Colours of experts, legible on light and dark; beyond them hues a golden angle apart.
const COLOURS: [&str; 10] = ["#4e79a7", "#d99b2b", "#5a9a52", "#c4524e", "#63aba8", "#9a6da6", "#d487a9", "#8a6c50", "#9c9b3a", "#7d7f92"];
const GOLDEN_ANGLE: f64 = 137.508;

/// The pictures, each with what it shows.
pub(super) fn section(usage: &ExpertUsage, utterances: &[Utterance]) -> String {
    let mut html = String::from("<section>\n<h2>Experts</h2>\n");
    html += "<h3>By layer</h3>\n<p class=\"note\">Share of steps, in percent, that each layer (down) sends to each expert (across).</p>\n";
    html += &layers(usage);
    if usage.over_time.iter().any(|layer| !layer.is_empty()) {
        html += "<h3>Over time</h3>\n<p class=\"note\">One picture for each expert: share of steps by layer (down) and position in the utterance, from its \
                 beginning to its end (across).</p>\n";
        html += &over_time(usage);
    }
    if !usage.traces.is_empty() {
        html += "<h3>Within utterances</h3>\n<p class=\"note\">The expert of every step (across) in every layer (down).</p>\n";
        html += &legend(usage);
        usage.traces.iter().for_each(|t| html += &trace(t, utterances));
    }
    html + "</section>\n"
}

fn layers(usage: &ExpertUsage) -> String {
    let experts = usage.layers.first().map_or(0, Vec::len);
    let most = usage.layers.iter().flatten().copied().fold(0.0, f64::max);
    let (width, height) = (LEFT + CELL.0 * experts as f64, TOP + CELL.1 * usage.layers.len() as f64);
    let mut svg = open("heat", width, height);
    for e in 0..experts {
        let _ = write!(svg, "<text class=\"mid\" x=\"{}\" y=\"12\">{}</text>", LEFT + CELL.0 * (e as f64 + 0.5), e + 1);
    }
    for (l, shares) in usage.layers.iter().enumerate() {
        let y = TOP + CELL.1 * l as f64;
        let _ = write!(svg, "<text class=\"end\" x=\"{}\" y=\"{}\">{}</text>", LEFT - 8.0, y + 14.0, l + 1);
        for (e, share) in shares.iter().enumerate() {
            let x = LEFT + CELL.0 * e as f64;
            svg += &cell((x, y), CELL, share / most, &format!("layer {}, expert {}: {:.1} %", l + 1, e + 1, 100.0 * share));
            if experts <= LABELLED {
                let over = if share / most > 0.55 { " over" } else { "" };
                let _ = write!(svg, "<text class=\"in{over}\" x=\"{}\" y=\"{}\">{:.0}</text>", x + CELL.0 / 2.0, y + 13.5, 100.0 * share);
            }
        }
    }
    format!("<figure>{svg}</svg></figure>\n")
}

fn over_time(usage: &ExpertUsage) -> String {
    let experts = usage.layers.first().map_or(0, Vec::len);
    let most = usage.over_time.iter().flatten().flatten().copied().fold(0.0, f64::max);
    let bins = usage.over_time.first().map_or(0, Vec::len);
    let mut html = String::from("<div class=\"multiples\">\n");
    for e in 0..experts {
        let mut svg = open("heat", SMALL.0 * bins as f64, SMALL.1 * usage.over_time.len() as f64);
        for (l, layer) in usage.over_time.iter().enumerate() {
            for (b, share) in layer.iter().enumerate().filter_map(|(b, shares)| shares.get(e).map(|s| (b, s))) {
                let at = (SMALL.0 * b as f64, SMALL.1 * l as f64);
                svg += &cell(at, SMALL, share / most, &format!("layer {}, {} of {bins}: {:.1} %", l + 1, b + 1, 100.0 * share));
            }
        }
        let _ = writeln!(html, "<figure><figcaption>expert {}</figcaption>{svg}</svg></figure>", e + 1);
    }
    html + "</div>\n"
}

fn trace(trace: &Trace, utterances: &[Utterance]) -> String {
    let (set, id) = &trace.utterance;
    let steps = trace.choices.first().map_or(0, Vec::len).max(1) as f64;
    let mut svg = open("trace", WIDTH, LAYER * trace.choices.len() as f64);
    for (l, choices) in trace.choices.iter().enumerate() {
        let mut from = 0;
        for run in choices.chunk_by(|a, b| a == b) {
            let (x, width) = (WIDTH * from as f64 / steps, WIDTH * run.len() as f64 / steps);
            let (y, height, fill) = (LAYER * l as f64, LAYER - 1.0, colour(usize::from(run[0])));
            let _ = write!(svg, "<rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{fill}\"/>");
            from += run.len();
        }
    }
    let said = utterances.iter().find(|u| u.set == *set && u.id == *id).map(|u| format!(": {}", u.reference)).unwrap_or_default();
    let caption = escape(&format!("{set} {id}, {:.1} s{said}", trace.seconds));
    format!("<figure><figcaption>{caption}</figcaption>{svg}</svg></figure>\n")
}

fn legend(usage: &ExpertUsage) -> String {
    let experts = usage.layers.first().map_or(0, Vec::len);
    let key = |e: usize| {
        format!("<span><svg viewBox=\"0 0 11 11\"><rect width=\"11\" height=\"11\" fill=\"{}\"/></svg>{}</span>", colour(e), e + 1)
    };
    format!("<p class=\"legend keys\">{}</p>\n", (0..experts).map(key).collect::<String>())
}

fn colour(expert: usize) -> String {
    let hue = || format!("hsl({:.0} 40% 55%)", (GOLDEN_ANGLE * expert as f64) % 360.0);
    COLOURS.get(expert).map_or_else(hue, |c| (*c).to_string())
}

pub(super) fn open(class: &str, width: f64, height: f64) -> String {
    format!("<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\">")
}

/// A square whose strength is `share` of the strongest.
pub(super) fn cell((x, y): (f64, f64), (width, height): (f64, f64), share: f64, title: &str) -> String {
    let strength = if share.is_finite() { 0.04 + 0.96 * share } else { 0.04 };
    format!(
        "<rect class=\"fa\" x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" fill-opacity=\"{strength:.3}\"><title>{title}</title></rect>",
        width - 1.0,
        height - 1.0
    )
}
