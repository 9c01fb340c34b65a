//! The page of `analyze routing`.

use std::fmt::Write;

use super::{STYLE, escape, experts};
use crate::eval::routing::{LETTER_CLASSES, RoutingReport};

/// Size of a cell of the table of layers, SVG units.
const CELL: (f64, f64) = (40.0, 22.0);
const LEFT: f64 = 30.0;
const TOP: f64 = 18.0;

/// One HTML file without script or anything from elsewhere.
pub fn render(model: &str, report: &RoutingReport) -> String {
    let name = escape(model);
    let mean = report.between_layers_mean.map_or("undefined".into(), |v| format!("{v:.3}"));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>Routing of {name}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n<p class=\"over\">omniscribe analyze routing</p>\n\
         <h1>{name}</h1>\n<p class=\"sub\">{} stretches of speech, {} steps · mean Cramér's V between layers {mean}</p>\n</header>\n<main>\n\
         <section>\n<h2>Layers</h2>\n<h3>Agreement between layers</h3>\n<p class=\"note\">Cramér's V between the choices of two layers: 0 when they \
         are independent, 1 when each decides the other.</p>\n{}<h3>Layer by layer</h3>\n<p class=\"note\">Entropy of the use of experts, and \
         Cramér's V of the choice with what is known of the step.</p>\n{}{}{}{}</section>\n{}</main>\n</body>\n</html>\n",
        report.recordings,
        report.steps,
        matrix(&report.between_layers),
        table(report),
        classes(report),
        noise(report),
        exchanged(report),
        experts::section(&report.usage, &[]),
    )
}

fn matrix(values: &[Vec<Option<f64>>]) -> String {
    let n = values.len() as f64;
    let (width, height) = (LEFT + CELL.0 * n, TOP + CELL.1 * n);
    let mut svg = experts::open("heat", width, height);
    for (a, row) in values.iter().enumerate() {
        let (x, y) = (LEFT + CELL.0 * a as f64, TOP + CELL.1 * a as f64);
        let _ = write!(svg, "<text class=\"mid\" x=\"{}\" y=\"12\">{}</text>", x + CELL.0 / 2.0, a + 1);
        let _ = write!(svg, "<text class=\"end\" x=\"{}\" y=\"{}\">{}</text>", LEFT - 8.0, y + 15.0, a + 1);
        for (b, value) in row.iter().enumerate() {
            let (x, share) = (LEFT + CELL.0 * b as f64, value.unwrap_or(0.0));
            let shown = value.map_or("–".into(), |v| format!("{v:.2}"));
            svg += &experts::cell((x, y), CELL, share, &format!("layers {} and {}: {shown}", a + 1, b + 1));
            let over = if share > 0.55 { " over" } else { "" };
            let _ = write!(svg, "<text class=\"in{over}\" x=\"{}\" y=\"{}\">{shown}</text>", x + CELL.0 / 2.0, y + 14.5);
        }
    }
    format!("<figure>{svg}</svg></figure>\n")
}

fn table(report: &RoutingReport) -> String {
    let shown = |v: &Option<f64>| v.map_or("–".into(), |v| format!("{v:.3}"));
    let names: String = report.with.keys().map(|name| format!("<th>V with {}</th>", escape(name))).collect();
    let mut html = format!("<table>\n<tr><th>layer</th><th>entropy, bits</th>{names}</tr>\n");
    for (l, entropy) in report.usage_entropy_bits.iter().enumerate() {
        let values: String = report.with.values().map(|v| format!("<td>{}</td>", shown(&v[l]))).collect();
        let _ = writeln!(html, "<tr><td>{}</td><td>{entropy:.3}</td>{values}</tr>", l + 1);
    }
    html + "</table>\n"
}

/// A square for each layer: classes of letters across, experts down.
fn classes(report: &RoutingReport) -> String {
    let mut html = String::from(
        "<h3>Letters and experts</h3>\n<p class=\"note\">Where the steps of each class of letters went: a column is a class, a row an expert. \
         The letter is what the model heard.</p>\n",
    );
    let names = LETTER_CLASSES.map(|(name, _)| name);
    for (l, layer) in report.by_class.iter().enumerate() {
        let experts = layer.first().map_or(0, Vec::len);
        let width = 96.0;
        let mut svg = experts::open("heat", LEFT + width * names.len() as f64, TOP + CELL.1 * experts as f64);
        for (c, (name, shares)) in names.iter().zip(layer).enumerate() {
            let x = LEFT + width * c as f64;
            let _ = write!(svg, "<text class=\"mid\" x=\"{}\" y=\"12\">{name}</text>", x + width / 2.0);
            for (e, &share) in shares.iter().enumerate() {
                let y = TOP + CELL.1 * e as f64;
                svg += &experts::cell((x, y), (width, CELL.1), share, &format!("{name} to expert {}: {:.1} %", e + 1, 100.0 * share));
                let over = if share > 0.55 { " over" } else { "" };
                let _ = write!(svg, "<text class=\"in{over}\" x=\"{}\" y=\"{}\">{:.0} %</text>", x + width / 2.0, y + 14.5, 100.0 * share);
            }
        }
        let _ = writeln!(html, "<figure><figcaption>layer {}</figcaption>{svg}</svg></figure>", l + 1);
    }
    html
}

fn noise(report: &RoutingReport) -> String {
    let Some(first) = report.under_noise.first() else { return String::new() };
    let layers: String = (1..=first.kept.len()).map(|l| format!("<th>layer {l}</th>")).collect();
    let mut html = format!(
        "<h3>Choices under noise</h3>\n<p class=\"note\">Share of steps that keep their expert when white noise is added.</p>\n\
         <table>\n<tr><th>speech to noise</th>{layers}</tr>\n"
    );
    for row in &report.under_noise {
        let kept: String = row.kept.iter().map(|share| format!("<td>{:.1} %</td>", 100.0 * share)).collect();
        let _ = writeln!(html, "<tr><td>{:.0} dB</td>{kept}</tr>", row.snr_db);
    }
    html + "</table>\n"
}

fn exchanged(report: &RoutingReport) -> String {
    let Some(found) = &report.exchanged else { return String::new() };
    let against = if found.against_texts { "the given texts" } else { "what the unchanged model hears" };
    let mut html = format!(
        "<h3>Experts exchanged</h3>\n<p class=\"note\">Word errors against {against} when every expert does the work of another one and the router \
         stays: the more, the more the experts differ.</p>\n<table>\n<tr><th>exchanged</th><th>WER</th></tr>\n"
    );
    let one = found.one_layer.iter().enumerate().map(|(l, errors)| (format!("layer {}", l + 1), errors));
    for (what, errors) in
        [("nothing".to_string(), &found.unchanged)].into_iter().chain(one).chain([("all layers".into(), &found.all_layers)])
    {
        let _ = writeln!(html, "<tr><td>{what}</td><td>{:.1} %</td></tr>", 100.0 * errors.wer());
    }
    html + "</table>\n"
}
