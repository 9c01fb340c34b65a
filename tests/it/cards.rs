//! The tables of `models/*/README.md` are made from `benchmarks/results/*.json` and the logs of training, as `models/*/card.toml` says;
//! this fails where they differ. `UPDATE_RESULTS=1 cargo test --release --test it cards` writes them anew.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use omniscribe::eval::report::RunResult;
use omniscribe::eval::wer::WordErrors;
use serde::Deserialize;
use serde_json::Value;

/// What a card shows.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Card {
    /// The column whose intervals are shown and whose model is described.
    main: String,
    columns: Vec<Column>,
    rows: Vec<Row>,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Column {
    title: String,
    /// A file of `benchmarks/results`.
    result: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    title: String,
    /// The sets whose words are counted together.
    sets: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    recipe: String,
    log: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models")
}

fn cards() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(root()).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect();
    folders.sort();
    folders
}

fn result(name: &str) -> RunResult {
    RunResult::read(&root().join("../benchmarks/results").join(name)).unwrap()
}

#[test]
fn tables_of_cards_are_what_the_results_say() {
    for folder in cards() {
        let card: Card = toml::from_str(&std::fs::read_to_string(folder.join("card.toml")).unwrap()).unwrap();
        let readme = folder.join("README.md");
        let old = std::fs::read_to_string(&readme).unwrap();
        let mut new = old.clone();
        for (name, table) in [("facts", facts(&card, &folder)), ("wer", wer(&card)), ("training", training(&card, &folder))] {
            new = filled(&new, name, &table);
        }
        if std::env::var_os("UPDATE_RESULTS").is_some() {
            std::fs::write(&readme, &new).unwrap();
        } else {
            assert!(old == new, "{}: UPDATE_RESULTS=1 cargo test --release --test it cards", readme.display());
        }
    }
}

/// `text` with what lies between the marks of `name` replaced.
fn filled(text: &str, name: &str, table: &str) -> String {
    let (open, close) = (format!("<!-- {name}: made by tests/it/cards.rs -->\n"), format!("<!-- end of {name} -->"));
    let from = text.find(&open).unwrap_or_else(|| panic!("no {open}")) + open.len();
    let to = from + text[from..].find(&close).unwrap_or_else(|| panic!("no {close}"));
    format!("{}{table}{}", &text[..from], &text[to..])
}

fn facts(card: &Card, folder: &Path) -> String {
    let model = result(&card.columns.iter().find(|c| c.title == card.main).unwrap().result).provenance.model;
    let millions = |n: Option<u64>| n.unwrap() as f64 / 1e6;
    let megabytes = |name: &str| std::fs::metadata(folder.join(name)).unwrap().len() as f64 / 1e6;
    let files = ["model.safetensors", "language.lm"];
    let whole: f64 = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().metadata().unwrap().len() as f64 / 1e6).sum();
    format!(
        "| parameters | at work on any step | weights, MB | language model, MB | the whole folder, MB |\n|--:|--:|--:|--:|--:|\n| {:.1} M | {:.1} M | {:.1} | {:.1} | {whole:.1} |\n",
        millions(model.parameters),
        millions(model.active_parameters),
        megabytes(files[0]),
        megabytes(files[1]),
    )
}

fn wer(card: &Card) -> String {
    let results: Vec<RunResult> = card.columns.iter().map(|c| result(&c.result)).collect();
    let mut text = String::from("| WER, % |");
    let mut rule = String::from("|---|");
    for column in &card.columns {
        write!(text, " {} |", column.title).unwrap();
        rule += "--:|";
        if column.title == card.main {
            text += " 95 % interval |";
            rule += "--:|";
        }
    }
    let line = |title: &str, value: &dyn Fn(&RunResult) -> f64, interval: &dyn Fn(&RunResult) -> String| {
        let mut text = format!("| {title} |");
        for (column, result) in card.columns.iter().zip(&results) {
            let value = format!("{:.1}", 100.0 * value(result));
            if column.title == card.main {
                write!(text, " **{value}** | {} |", interval(result)).unwrap();
            } else {
                write!(text, " {value} |").unwrap();
            }
        }
        text + "\n"
    };
    text = format!("{text}\n{rule}\n");
    for row in &card.rows {
        let value = |result: &RunResult| {
            let sets = row.sets.iter().map(|name| result.sets.iter().find(|s| s.name == *name).unwrap().words);
            sets.sum::<WordErrors>().wer()
        };
        // Of joined sets the result holds no resampling.
        let interval = |result: &RunResult| match &row.sets[..] {
            [one] => shown(result.sets.iter().find(|s| s.name == *one).unwrap().interval.map(|i| (i.low, i.high))),
            _ => String::new(),
        };
        text += &line(&row.title, &value, &interval);
    }
    text + &line("mean of sets", &|r| r.mean.wer, &|r| shown(r.mean.interval.map(|i| (i.low, i.high))))
}

fn shown(interval: Option<(f64, f64)>) -> String {
    interval.map(|(low, high)| format!("{:.1} to {:.1}", 100.0 * low, 100.0 * high)).unwrap_or_default()
}

/// One line for each run: what it heard and how long it took; times are sums over the log, between lines of which audio hours and speed stand.
fn training(card: &Card, folder: &Path) -> String {
    let mut text = String::from(
        "| run | audio, h | steps | time, h | times real time | loss at its end | greedy WER of all dev words at its end |\n|---|--:|--:|--:|--:|--:|--:|\n",
    );
    for run in &card.runs {
        let log = std::fs::read_to_string(folder.join(&run.log)).unwrap();
        let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (mut audio, mut hours, mut steps, mut loss, mut all) = (0.0, 0.0, 0, f64::NAN, f64::NAN);
        for event in &events {
            match event["event"].as_str() {
                Some("train") => {
                    let now = event["audio_hours"].as_f64().unwrap();
                    hours += (now - audio) / event["speed"].as_f64().unwrap();
                    (audio, steps, loss) = (now, event["step"].as_u64().unwrap(), event["loss"].as_f64().unwrap());
                }
                Some("dev") => all = event["all"].as_f64().unwrap(),
                _ => {}
            }
        }
        assert!(audio > 0.0 && all.is_finite(), "{}: no training in it", run.log);
        writeln!(
            text,
            "| [`{}`]({0}), [log]({}) | {audio:.0} | {steps} | {hours:.1} | {:.0} | {loss:.2} | {:.1} % |",
            run.recipe,
            run.log,
            audio / hours,
            100.0 * all
        )
        .unwrap();
    }
    text
}
