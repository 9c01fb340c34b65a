//! The report of a study as Markdown, as pictures and as one HTML page.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::intervals::{Difference, Rate};
use super::report::{Contrast, Entry, Measured, Point, StudyReport};
use crate::checkpoint::safetensors_file::write_atomically;
use crate::error::{Error, Result};
use crate::eval::significance::Paired;
use crate::train::plot::{COLOURS, Curve, chart, escape};

/// Names of the pictures, in the order of [`pictures`].
pub const PICTURES: [&str; 3] = ["loss", "wer", "rates"];

/// Writes `report.json`, `report.md`, `report.html` and the pictures `loss.svg`, `wer.svg` and `rates.svg`.
///
/// # Errors
/// [`Error::Io`]
pub fn write(report: &StudyReport, folder: &Path) -> Result<()> {
    write_atomically(&folder.join("report.json"), json(report, folder)?.as_bytes())?;
    write_atomically(&folder.join("report.md"), markdown(report).as_bytes())?;
    write_atomically(&folder.join("report.html"), html(report).as_bytes())?;
    PICTURES.iter().zip(pictures(report)).try_for_each(|(name, svg)| write_atomically(&folder.join(format!("{name}.svg")), svg.as_bytes()))
}

/// Writes the numbers as `PREFIX.json` and the pictures as `PREFIX-loss.svg` and so on, to be kept without the runs.
///
/// # Errors
/// [`Error::Io`]
pub fn export(report: &StudyReport, prefix: &Path) -> Result<()> {
    let named = |ending: String| {
        let mut name = prefix.as_os_str().to_os_string();
        name.push(ending);
        PathBuf::from(name)
    };
    write_atomically(&named(".json".into()), json(report, prefix)?.as_bytes())?;
    PICTURES.iter().zip(pictures(report)).try_for_each(|(name, svg)| write_atomically(&named(format!("-{name}.svg")), svg.as_bytes()))
}

fn json(report: &StudyReport, place: &Path) -> Result<String> {
    serde_json::to_string_pretty(report).map(|text| text + "\n").map_err(|e| Error::config(place, e.to_string()))
}

fn named(kind: &str, size: &str) -> String {
    if size.is_empty() { kind.to_string() } else { format!("{kind}, {size}") }
}

/// Loss and WER over audio hours, and the rates of every set.
pub fn pictures(report: &StudyReport) -> [String; 3] {
    let curve = |e: &Entry, points: &[Point], scale: f64| Curve {
        name: named(&e.kind, &e.size),
        points: points.iter().map(|p| (p.hours, scale * p.mean)).collect(),
        band: points.iter().map(|p| (p.hours, scale * p.low, scale * p.high)).collect(),
    };
    let curves = |of: &dyn Fn(&Entry) -> Curve| report.entries.iter().map(of).collect::<Vec<_>>();
    [
        chart(&report.name, "training loss per token, nats: mean and range of seeds", &curves(&|e| curve(e, &e.loss_curve, 1.0))),
        chart(&report.name, "dev WER, %: mean and range of seeds", &curves(&|e| curve(e, &e.wer_curve, 100.0))),
        rates(report),
    ]
}

/// A row of marks for every set: the mean with its interval, and a ring for every seed.
fn rates(report: &StudyReport) -> String {
    let several = several_sets(report);
    let names = report.entries.first().into_iter().flat_map(|e| over(&e.words, several)).map(|(set, _)| set);
    let rows: Vec<(&str, Vec<&Rate>)> = names
        .enumerate()
        .map(|(i, name)| (name, report.entries.iter().filter_map(|e| Some(over(&e.words, several).nth(i)?.1)).collect()))
        .collect();
    let values = rows.iter().flat_map(|(_, rates)| rates.iter().flat_map(|r| r.of_seeds.iter().chain([&r.high])));
    let most = values.fold(1e-9, |most: f64, rate| most.max(*rate));
    let (left, width, step) = (150.0, 700.0, 14.0);
    let row = step * report.entries.len() as f64 + 12.0;
    let height = 60.0 + row * rows.len() as f64;
    let x = |rate: f64| left + rate / most * width;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 900 {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (i, entry) in report.entries.iter().enumerate() {
        let (at, colour) = (left + width / report.entries.len() as f64 * i as f64, COLOURS[i % COLOURS.len()]);
        // Writing to a String cannot fail.
        let _ = writeln!(svg, "<text x=\"{at}\" y=\"18\" fill=\"{colour}\">{}</text>", escape(&named(&entry.kind, &entry.size)));
    }
    for i in 0..=5 {
        let rate = most * f64::from(i) / 5.0;
        let (at, bottom) = (x(rate), height - 24.0);
        let _ = writeln!(svg, "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"28\" y2=\"{bottom:.1}\" stroke=\"#dddddd\"/>");
        let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:.0} %</text>", bottom + 16.0, 100.0 * rate);
    }
    for (r, (set, rates)) in rows.iter().enumerate() {
        let top = 36.0 + row * r as f64;
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", left - 10.0, top + row / 2.0 - 2.0, escape(set));
        for (i, rate) in rates.iter().enumerate() {
            let (y, colour) = (top + step * (i as f64 + 0.5), COLOURS[i % COLOURS.len()]);
            let (low, high, mean) = (x(rate.low), x(rate.high), x(rate.mean));
            let _ = writeln!(
                svg,
                "<line x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{colour}\" stroke-width=\"2\"/>"
            );
            let _ = writeln!(svg, "<circle cx=\"{mean:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>");
            for seed in &rate.of_seeds {
                let _ = writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"none\" stroke=\"{colour}\"/>", x(*seed));
            }
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// A table: headings, then rows.
struct Grid {
    heading: String,
    note: String,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

fn percent(rate: f64) -> String {
    format!("{:.2}", 100.0 * rate)
}

fn grids(report: &StudyReport) -> Vec<Grid> {
    let several = several_sets(report);
    vec![
        about(report),
        rates_of("Word error rates", "WER, %", report, several, |e| &e.words),
        rates_of("Character error rates", "CER, %", report, several, |e| &e.characters),
        differences_of("Differences of word error rates", report, several, |c| &c.words),
        differences_of("Differences of character error rates", report, several, |c| &c.characters),
        models(report),
    ]
}

fn about(report: &StudyReport) -> Grid {
    let seeds = |e: &Entry| report.seeds.get(&e.size).map_or(0, Vec::len);
    let row = |e: &Entry| {
        vec![
            named(&e.kind, &e.size),
            seeds(e).to_string(),
            thousands(e.parameters),
            thousands(e.active),
            e.routers.to_string(),
            e.audio_hours.to_string(),
            format!("{:.3}", e.losses.iter().sum::<f64>() / e.losses.len().max(1) as f64),
            format!("{:.0}", e.training_speed),
            format!("{:.0}", e.recognition_speed),
        ]
    };
    Grid {
        heading: "Models".into(),
        note: "Loss: CTC per token at the end of training, nats, mean over seeds. Speeds: hours of audio per hour, on a machine that does other \
               things beside it; they compare kinds roughly."
            .into(),
        columns: ["kind", "seeds", "parameters", "active", "of routers", "audio hours", "loss", "training", "recognition"]
            .map(String::from)
            .into(),
        rows: report.entries.iter().map(row).collect(),
    }
}

fn thousands(parameters: usize) -> String {
    if parameters < 1_000_000 { format!("{:.1} k", parameters as f64 / 1e3) } else { format!("{:.2} M", parameters as f64 / 1e6) }
}

fn several_sets(report: &StudyReport) -> bool {
    report.entries.first().is_some_and(|e| e.words.sets.len() > 1)
}

/// The sets, and their mean where there are several.
fn over<T>(measured: &Measured<T>, several: bool) -> impl Iterator<Item = (&str, &T)> {
    let sets = measured.sets.iter().map(|(set, value)| (set.as_str(), value));
    sets.chain(several.then_some(("mean of sets", &measured.mean)))
}

fn rates_of(heading: &str, unit: &str, report: &StudyReport, several: bool, of: fn(&Entry) -> &Measured<Rate>) -> Grid {
    let with_interval = |r: &Rate| {
        let each: Vec<String> = r.of_seeds.iter().map(|v| format!("{:.1}", 100.0 * v)).collect();
        format!("{} [{}, {}] ({})", percent(r.mean), percent(r.low), percent(r.high), each.join(", "))
    };
    let row = |e: &Entry| std::iter::once(named(&e.kind, &e.size)).chain(over(of(e), several).map(|(_, r)| with_interval(r))).collect();
    let sets = report.entries.first().into_iter().flat_map(|e| over(of(e), several)).map(|(set, _)| set.to_string());
    Grid {
        heading: heading.into(),
        note: "Mean over seeds [95 % interval over seeds and speakers] (each seed). Greedy search, no language model.".into(),
        columns: std::iter::once(unit.to_string()).chain(sets).collect(),
        rows: report.entries.iter().map(row).collect(),
    }
}

fn differences_of(heading: &str, report: &StudyReport, several: bool, of: fn(&Contrast) -> &Measured<Difference>) -> Grid {
    let change = |d: &Difference| {
        let [absolute, low, high, relative] = [d.absolute, d.low, d.high, d.relative].map(|share| 100.0 * share);
        format!("{absolute:+.2} [{low:+.2}, {high:+.2}], {relative:+.1} %, {}", probability(d.p))
    };
    let row = |c: &Contrast| std::iter::once(against(c)).chain(over(of(c), several).map(|(_, d)| change(d))).collect();
    let sets = report.contrasts.first().into_iter().flat_map(|c| over(of(c), several)).map(|(set, _)| set.to_string());
    Grid {
        heading: heading.into(),
        note: "Points [95 % interval], relative change, two-tailed p: seeds and speakers drawn anew, the same for both kinds. Not corrected for \
               the number of comparisons."
            .into(),
        columns: std::iter::once(String::new()).chain(sets).collect(),
        rows: report.contrasts.iter().map(row).collect(),
    }
}

fn probability(p: f64) -> String {
    if p < 0.001 { "p < 0.001".into() } else { format!("p {p:.3}") }
}

fn against(c: &Contrast) -> String {
    format!("{} against {}", named(&c.kind, &c.size), c.against)
}

fn models(report: &StudyReport) -> Grid {
    let tests = |p: &Paired| {
        let interval =
            p.bootstrap.map_or_else(String::new, |b| format!(" [{:+.2}, {:+.2}]", 100.0 * b.interval.low, 100.0 * b.interval.high));
        format!("{:+.2}{interval}, {}", 100.0 * p.difference, probability(p.mapsswe.p))
    };
    let row = |c: &Contrast| {
        let all = c.models.sets.iter().chain((c.models.sets.len() > 1).then_some(&c.models.all));
        std::iter::once(against(c)).chain(all.map(tests)).collect()
    };
    let sets = report.contrasts.first().into_iter().flat_map(|c| {
        let several = c.models.sets.len() > 1;
        c.models.sets.iter().map(|p| p.name.clone()).chain(several.then(|| "all words".to_string()))
    });
    Grid {
        heading: "The same, of these very models".into(),
        note: "Points of WER over all seeds together [95 % interval, paired bootstrap over speakers], p of MAPSSWE. Seeds are not drawn: this says \
               whether these models differ, not whether the kinds do."
            .into(),
        columns: std::iter::once(String::new()).chain(sets).collect(),
        rows: report.contrasts.iter().map(row).collect(),
    }
}

/// How much of it is done, and on what.
pub fn status(report: &StudyReport) -> String {
    let (done, all) = report.done;
    let machine = format!("Measured on {}.", report.cpu);
    if done == all { machine } else { format!("{done} of {all} cells are done; seeds without all their kinds are left out. {machine}") }
}

/// The tables, pictures beside them.
pub fn markdown(report: &StudyReport) -> String {
    let pictures: Vec<String> = PICTURES.iter().map(|name| format!("![{name}]({name}.svg)\n")).collect();
    format!("# {}\n\n{}\n\n```sh\n{}\n```\n\n{}{}", report.name, status(report), report.command, pictures.join("\n"), tables(report, "##"))
}

/// The tables under headings that begin with `mark`.
pub fn tables(report: &StudyReport, mark: &str) -> String {
    let mut text = String::new();
    for grid in grids(report) {
        let cells = |row: &[String]| format!("| {} |\n", row.iter().map(|c| c.replace('|', "\\|")).collect::<Vec<_>>().join(" | "));
        let _ =
            write!(text, "\n{mark} {}\n\n{}\n\n{}|{}\n", grid.heading, grid.note, cells(&grid.columns), "---|".repeat(grid.columns.len()));
        grid.rows.iter().for_each(|row| text += &cells(row));
    }
    text
}

/// One page with everything in it.
pub fn html(report: &StudyReport) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{0}</title>\n<style>body{{font:15px sans-serif;max-width:1000px;\
         margin:2em auto}}table{{border-collapse:collapse}}td,th{{border:1px solid #ccc;padding:4px 8px;text-align:left}}</style>\n\
         <h1>{0}</h1>\n<p>{1}</p>\n<pre>{2}</pre>\n",
        escape(&report.name),
        escape(&status(report)),
        escape(&report.command)
    );
    for svg in pictures(report) {
        let _ = writeln!(page, "<figure>{svg}</figure>");
    }
    for grid in grids(report) {
        let row = |tag: &str, cells: &[String]| {
            let cells: String = cells.iter().map(|c| format!("<{tag}>{}</{tag}>", escape(c))).collect();
            format!("<tr>{cells}</tr>\n")
        };
        let rows: String = grid.rows.iter().map(|cells| row("td", cells)).collect();
        let _ = writeln!(
            page,
            "<h2>{}</h2>\n<p>{}</p>\n<table>\n{}{rows}</table>",
            escape(&grid.heading),
            escape(&grid.note),
            row("th", &grid.columns)
        );
    }
    page.push_str("</html>\n");
    page
}
