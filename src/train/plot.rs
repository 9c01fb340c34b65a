//! Training curves as an SVG.

use std::fmt::Write;

use crate::train::journal::Line;

/// Width and height of the drawing and of its margins, in SVG units.
const SIZE: (f64, f64) = (900.0, 420.0);
const MARGIN: (f64, f64) = (60.0, 40.0);
/// Colours of curves, in turn.
pub const COLOURS: [&str; 8] = ["#1b6ca8", "#d1495b", "#2e933c", "#edae49", "#6a4c93", "#00798c", "#8d5b4c", "#444444"];

/// A named curve of (audio hours, value).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Curve {
    /// Legend.
    pub name: String,
    /// Points from left to right.
    pub points: Vec<(f64, f64)>,
    /// What is shaded around it: (audio hours, lowest, highest), from left to right; empty for nothing.
    pub band: Vec<(f64, f64, f64)>,
}

/// Loss per token over audio hours, from a run's log.
pub fn loss_curve(name: &str, lines: &[Line]) -> Curve {
    let point = |l: &Line| match l {
        Line::Train { audio_hours, loss, .. } => Some((*audio_hours, *loss)),
        Line::Dev { .. } => None,
    };
    Curve { name: name.into(), points: lines.iter().filter_map(point).collect(), band: vec![] }
}

/// WER over audio hours, one curve for each dev set.
pub fn wer_curves(lines: &[Line]) -> Vec<Curve> {
    let mut curves = std::collections::BTreeMap::<String, Vec<(f64, f64)>>::new();
    for line in lines {
        if let Line::Dev { audio_hours, wer, .. } = line {
            for (set, value) in wer {
                curves.entry(set.clone()).or_default().push((*audio_hours, 100.0 * value));
            }
        }
    }
    curves.into_iter().map(|(name, points)| Curve { name, points, band: vec![] }).collect()
}

/// A line chart over audio hours; the vertical axis starts at 0.
pub fn chart(title: &str, vertical: &str, curves: &[Curve]) -> String {
    chart_over(title, "audio hours seen", vertical, curves)
}

/// A line chart; both axes start at 0.
pub fn chart_over(title: &str, horizontal: &str, vertical: &str, curves: &[Curve]) -> String {
    let right = curves.iter().flat_map(|c| &c.points).map(|p| p.0).fold(1e-9, f64::max);
    let heights = curves.iter().flat_map(|c| c.points.iter().map(|p| p.1).chain(c.band.iter().map(|b| b.2)));
    let top = heights.filter(|v| v.is_finite()).fold(1e-9, f64::max);
    let (width, height) = (SIZE.0 - 2.0 * MARGIN.0, SIZE.1 - 2.0 * MARGIN.1);
    let x = |v: f64| MARGIN.0 + v / right * width;
    let y = |v: f64| SIZE.1 - MARGIN.1 - v / top * height;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{}\" y=\"20\" font-size=\"15\">{}</text>\n",
        SIZE.0,
        SIZE.1,
        MARGIN.0,
        escape(title)
    );
    for i in 0..=5 {
        let (share, grey) = (f64::from(i) / 5.0, "#dddddd");
        let (gx, gy) = (x(share * right), y(share * top));
        // Writing to a String cannot fail.
        let _ =
            writeln!(svg, "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{gy:.1}\" y2=\"{gy:.1}\" stroke=\"{grey}\"/>", MARGIN.0, MARGIN.0 + width);
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", MARGIN.0 - 6.0, gy + 4.0, tick(share * top));
        let _ = writeln!(
            svg,
            "<text x=\"{gx:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            SIZE.1 - MARGIN.1 + 18.0,
            tick(share * right)
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        MARGIN.0 + width / 2.0,
        SIZE.1 - 6.0,
        escape(horizontal)
    );
    let _ = writeln!(
        svg,
        "<text x=\"14\" y=\"{:.1}\" transform=\"rotate(-90 14 {0:.1})\" text-anchor=\"middle\">{1}</text>",
        SIZE.1 / 2.0,
        escape(vertical)
    );
    for (i, curve) in curves.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let band: Vec<&(f64, f64, f64)> = curve.band.iter().filter(|b| b.1.is_finite() && b.2.is_finite()).collect();
        if !band.is_empty() {
            let edge = |hours: f64, value: f64| format!("{:.1},{:.1}", x(hours), y(value));
            let upper = band.iter().map(|b| edge(b.0, b.2));
            let outline: Vec<String> = upper.chain(band.iter().rev().map(|b| edge(b.0, b.1))).collect();
            let _ = writeln!(svg, "<polygon points=\"{}\" fill=\"{colour}\" fill-opacity=\"0.15\"/>", outline.join(" "));
        }
        let points = curve.points.iter().filter(|p| p.1.is_finite());
        let path: Vec<String> = points.map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1))).collect();
        let _ = writeln!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>", path.join(" "));
        let at = MARGIN.1 + 16.0 * i as f64;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{at:.1}\" text-anchor=\"end\" fill=\"{colour}\">{}</text>",
            MARGIN.0 + width - 4.0,
            escape(&curve.name)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn tick(value: f64) -> String {
    if value.abs() >= 10.0 || value == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// Text as it stands in XML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_every_curve_and_escapes_names() {
        let curve = |name: &str, top| Curve { name: name.into(), points: vec![(0.0, top), (2.0, 1.0), (3.0, f64::NAN)], band: vec![] };
        let svg = chart("loss", "nats per token", &[curve("a<b", 4.0), curve("c", 2.0)]);
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("a&lt;b") && !svg.contains("NaN"));
        assert!(svg.contains("points=\"60.0,40.0 "), "the highest value touches the top: {svg}");
        assert!(!svg.contains("<polygon"), "nothing to shade");
    }

    #[test]
    fn shades_between_lowest_and_highest() {
        let band = vec![(0.0, 1.0, 4.0), (2.0, 1.0, 2.0), (3.0, f64::NAN, 2.0)];
        let svg = chart("loss", "nats", &[Curve { name: "a".into(), points: vec![(0.0, 2.0), (2.0, 1.5)], band }]);
        // Axes end at 2 hours and at 4 nats, the top of the band.
        assert!(svg.contains("<polygon points=\"60.0,40.0 840.0,210.0 840.0,295.0 60.0,295.0\""), "{svg}");
    }
}
