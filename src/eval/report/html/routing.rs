//! The page of `analyze routing`.

use std::fmt::Write;

use super::{STYLE, escape, experts};
use crate::eval::routing::RoutingReport;

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
         Cramér's V of the choice with blank or not, and with the token where there is one.</p>\n{}</section>\n{}</main>\n</body>\n</html>\n",
        report.recordings,
        report.steps,
        matrix(&report.between_layers),
        table(report),
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
    let mut html = String::from("<table>\n<tr><th>layer</th><th>entropy, bits</th><th>V with blank</th><th>V with token</th></tr>\n");
    for (l, entropy) in report.usage_entropy_bits.iter().enumerate() {
        let (blank, token) = (shown(&report.with_blank[l]), shown(&report.with_token[l]));
        let _ = writeln!(html, "<tr><td>{}</td><td>{entropy:.3}</td><td>{blank}</td><td>{token}</td></tr>", l + 1);
    }
    html + "</table>\n"
}
