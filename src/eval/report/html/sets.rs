//! The table of sets with its bars.

use std::fmt::Write;

use super::{count, escape, percent, thousands};
use crate::eval::bootstrap::{Interval, Unit};
use crate::eval::report::result::{RunResult, SetResult};
use crate::eval::wer::WordErrors;

/// Height of a bar's drawing, and of the bar in it, pixels.
const ROW: f64 = 34.0;
const BAR: f64 = 11.0;
/// Radius of the dot of a speaker who says as much as the others, pixels.
const SPEAKER: f64 = 4.0;

/// Rates as a table, the bars stacked by kind of error.
pub(super) fn section(result: &RunResult) -> String {
    let scale = Scale::of(&result.sets);
    let mut rows = String::new();
    for (i, set) in result.sets.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = writeln!(
            rows,
            "<tr><th scope=\"row\" class=\"set\" data-set=\"{i}\">{}</th><td class=\"bar\">{}</td><td><strong>{}</strong></td>\
             <td class=\"soft\"{}>{}</td><td class=\"mid-only\">{}</td>{}<td class=\"mid-only soft\">{}</td></tr>",
            escape(&set.name),
            scale.bar(set.words, set.interval),
            if set.utterances > 0 { percent(set.wer) } else { "–".into() },
            title(set.interval),
            range(set.interval),
            percent(set.cer),
            kinds(set.words),
            thousands(set.words.reference_words),
        );
    }
    let foot = if result.sets.len() > 1 {
        let all = result.total();
        format!(
            "<tfoot><tr class=\"all\"><th scope=\"row\">all words</th><td class=\"bar\">{}</td><td>{}</td><td></td><td class=\"mid-only\">{}</td>{}\
             <td class=\"mid-only soft\">{}</td></tr>\n<tr><th scope=\"row\">mean of sets</th><td class=\"bar\">{}</td><td><strong>{}</strong></td>\
             <td class=\"soft\"{}>{}</td><td class=\"mid-only\">{}</td></tr></tfoot>\n",
            scale.bar(all, None),
            percent(all.wer()),
            percent(result.sets.iter().map(|s| s.characters).sum::<WordErrors>().wer()),
            kinds(all),
            thousands(all.reference_words),
            scale.mark(result.mean.wer, result.mean.interval),
            percent(result.mean.wer),
            title(result.mean.interval),
            range(result.mean.interval),
            percent(result.mean.cer),
        )
    } else {
        String::new()
    };
    let key = |class: &str, name: &str| {
        format!("<span><svg viewBox=\"0 0 11 11\"><rect class=\"{class}\" width=\"11\" height=\"11\"/></svg>{name}</span>")
    };
    format!(
        "<section>\n<h2>Word error rate</h2>\n<table id=\"sets\">\n<thead><tr><th scope=\"col\">set</th><th class=\"bar\">{}</th>\
         <th scope=\"col\">WER, %</th><th scope=\"col\">95 %</th><th scope=\"col\" class=\"mid-only\">CER, %</th>\
         <th scope=\"col\" class=\"wide-only cs\">S</th><th scope=\"col\" class=\"wide-only cd\">D</th><th scope=\"col\" class=\"wide-only ci\">I</th>\
         <th scope=\"col\" class=\"mid-only\">words</th></tr></thead>\n<tbody>\n{rows}</tbody>\n{foot}</table>\n\
         <p class=\"legend\">{}{}{}<span><svg class=\"wh\" viewBox=\"0 0 20 11\">{}</svg>95 % bootstrap interval{}</span></p>\n</section>\n",
        scale.ticks(),
        key("fs", "substituted"),
        key("fd", "deleted"),
        key("fi", "inserted"),
        "<path class=\"whisker\" fill=\"none\" d=\"M1 2.5v6M1 5.5h18M19 2.5v6\"/>",
        same_unit(&result.sets).map(|unit| format!(" over {}s", name(unit))).unwrap_or_default(),
    )
}

fn range(interval: Option<Interval>) -> String {
    interval.map(|i| format!("{}–{}", percent(i.low), percent(i.high))).unwrap_or_default()
}

/// Where the speakers of each set lie; empty where no set has several.
pub(super) fn speakers(result: &RunResult) -> String {
    let sets: Vec<&SetResult> = result.sets.iter().filter(|s| s.speakers.len() > 1).collect();
    let most = sets.iter().flat_map(|s| &s.speakers).map(|s| s.words.wer().min(1.0)).fold(0.0, f64::max);
    let scale = Scale::up_to(most);
    let mut rows = String::new();
    for set in &sets {
        let words = set.words.reference_words.max(1) as f64 / set.speakers.len() as f64;
        let mut svg = format!("<svg role=\"img\">{}", scale.grid());
        for s in &set.speakers {
            let radius = (SPEAKER * (s.words.reference_words as f64 / words).sqrt()).clamp(1.5, 2.0 * SPEAKER);
            let what = escape(&format!("{}: {} % of {}", s.name, percent(s.words.wer()), count(s.words.reference_words, "word")));
            let x = scale.x(s.words.wer().min(1.0));
            let _ = write!(
                svg,
                "<circle class=\"fa\" fill-opacity=\".4\" cx=\"{x}\" cy=\"{}\" r=\"{radius:.1}\"><title>{what}</title></circle>",
                ROW / 2.0
            );
        }
        let x = scale.x(set.wer.min(1.0));
        let _ = write!(svg, "<line class=\"whisker\" x1=\"{x}\" x2=\"{x}\" y1=\"6\" y2=\"{}\"/></svg>", ROW - 6.0);
        let name = escape(&set.name);
        let _ = writeln!(
            rows,
            "<tr><th scope=\"row\" class=\"set\">{name}</th><td class=\"bar\">{svg}</td><td class=\"soft\">{}</td></tr>",
            thousands(set.speakers.len())
        );
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "<section>\n<h2>Speakers</h2>\n<p class=\"note\">Word error rate of each speaker, larger the more they say; the line is the set's.</p>\n\
         <table class=\"strips\">\n<thead><tr><th scope=\"col\">set</th><th class=\"bar\">{}</th><th scope=\"col\">speakers</th></tr></thead>\n\
         <tbody>\n{rows}</tbody>\n</table>\n</section>\n",
        scale.ticks()
    )
}

fn title(interval: Option<Interval>) -> String {
    interval.map(|i| format!(" title=\"{}\"", escape(&over(&i)))).unwrap_or_default()
}

fn kinds(errors: WordErrors) -> String {
    let cell = |n: usize| format!("<td class=\"wide-only soft\">{}</td>", thousands(n));
    [errors.substitutions, errors.deletions, errors.insertions].map(cell).concat()
}

/// What an interval was drawn over.
pub(super) fn over(interval: &Interval) -> String {
    format!("bootstrap over {}, {}", count(interval.units, name(interval.unit)), count(interval.resamples, "resample"))
}

fn name(unit: Unit) -> &'static str {
    match unit {
        Unit::Speaker => "speaker",
        Unit::Recording => "recording",
        Unit::Utterance => "utterance",
    }
}

fn same_unit(sets: &[SetResult]) -> Option<Unit> {
    let mut units = sets.iter().filter_map(|s| s.interval).map(|i| i.unit);
    let first = units.next()?;
    units.all(|unit| unit == first).then_some(first)
}

/// The axis all bars share, from 0.
struct Scale {
    top: f64,
    step: f64,
}

impl Scale {
    fn of(sets: &[SetResult]) -> Self {
        Self::up_to(sets.iter().map(|s| s.interval.map_or(s.wer, |i| i.high.max(s.wer))).fold(0.0, f64::max))
    }

    fn up_to(most: f64) -> Self {
        let most = most.max(0.001);
        // The first of 1, 2, 5, 10, .. thousandths that needs at most five steps.
        let mut step = 0.001;
        for factor in [2.0, 2.5, 2.0].into_iter().cycle() {
            if most / step <= 5.0 {
                break;
            }
            step *= factor;
        }
        Self { top: step * (most / step - 1e-9).ceil(), step }
    }

    /// Position in percent of the width.
    fn x(&self, rate: f64) -> String {
        format!("{:.2}%", 100.0 * rate / self.top)
    }

    fn values(&self) -> impl Iterator<Item = f64> {
        let step = self.step;
        (0..=(self.top / step).round() as usize).map(move |i| i as f64 * step)
    }

    fn ticks(&self) -> String {
        let label = |rate: f64| {
            let anchor = if rate == 0.0 { "start" } else { "middle" };
            let (x, digits) = (self.x(rate), if self.step < 0.01 { 1 } else { 0 });
            format!("<text x=\"{x}\" y=\"12\" text-anchor=\"{anchor}\">{:.digits$}</text>", 100.0 * rate)
        };
        format!("<svg aria-hidden=\"true\">{}</svg>", self.values().map(label).collect::<String>())
    }

    fn grid(&self) -> String {
        let line = |rate: f64| format!("<line class=\"grid\" x1=\"{0}\" x2=\"{0}\" y2=\"{ROW}\"/>", self.x(rate));
        self.values().map(line).collect()
    }

    fn bar(&self, errors: WordErrors, interval: Option<Interval>) -> String {
        let mut svg = format!("<svg aria-hidden=\"true\">{}", self.grid());
        let words = errors.reference_words.max(1) as f64;
        let (mut from, y) = (0.0, (ROW - BAR) / 2.0);
        for (class, n) in [("fs", errors.substitutions), ("fd", errors.deletions), ("fi", errors.insertions)] {
            let share = n as f64 / words;
            let (x, width) = (self.x(from), self.x(share));
            let _ = write!(svg, "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{BAR}\" fill-opacity=\".8\"/>");
            from += share;
        }
        svg + &self.whisker(interval) + "</svg>"
    }

    fn mark(&self, rate: f64, interval: Option<Interval>) -> String {
        let (x, middle) = (self.x(rate), ROW / 2.0);
        let dot = format!("<circle class=\"fa\" cx=\"{x}\" cy=\"{middle}\" r=\"4\"/>");
        format!("<svg aria-hidden=\"true\">{}{}{dot}</svg>", self.grid(), self.whisker(interval))
    }

    fn whisker(&self, interval: Option<Interval>) -> String {
        let Some(i) = interval else { return String::new() };
        let (low, high, middle) = (self.x(i.low), self.x(i.high), ROW / 2.0);
        let end = |x: &String| format!("<line class=\"whisker\" x1=\"{x}\" x2=\"{x}\" y1=\"{}\" y2=\"{}\"/>", middle - 4.0, middle + 4.0);
        format!("<line class=\"whisker\" x1=\"{low}\" x2=\"{high}\" y1=\"{middle}\" y2=\"{middle}\"/>{}{}", end(&low), end(&high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_is_round_and_holds_the_longest_bar() {
        for (wer, top, step) in
            [(0.0, 0.001, 0.001), (0.034, 0.04, 0.01), (0.1, 0.1, 0.02), (0.282, 0.3, 0.1), (1.0, 1.0, 0.2), (37.5, 40.0, 10.0)]
        {
            let scale = Scale::up_to(wer);
            assert!((scale.top - top).abs() < 1e-9 && (scale.step - step).abs() < 1e-9, "{wer}: {} by {}", scale.top, scale.step);
        }
    }

    #[test]
    fn a_bar_is_as_long_as_the_rate() {
        let words = WordErrors { substitutions: 5, deletions: 3, insertions: 2, reference_words: 100 };
        let svg = Scale { top: 0.2, step: 0.1 }.bar(words, None);
        assert!(svg.contains("class=\"fi\" x=\"40.00%\"") && svg.contains("width=\"10.00%\""), "{svg}");
    }
}
