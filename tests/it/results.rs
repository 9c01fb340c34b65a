//! `benchmarks/RESULTS.md` is made from `benchmarks/results/*.json`; this fails where they differ.
//! `UPDATE_RESULTS=1 cargo test --release results` writes it anew.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use omniscribe::eval::report::{RunResult, markdown};
use omniscribe::train::study::render;
use omniscribe::train::study::report::StudyReport;
use serde_json::Value;

const HEADER: &str = "# Measured\n\nMade from `results/*.json` by `UPDATE_RESULTS=1 cargo test --release results`; do not edit. \
Ratios compare two programs on the same work in the same run; absolute times are of shared, noisy machines.\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benchmarks")
}

fn render() -> String {
    let mut files: Vec<PathBuf> = std::fs::read_dir(root().join("results")).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "json"));
    files.sort();
    let mut text = HEADER.to_string();
    for file in files {
        let json: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if json["provenance"].is_object() {
            bench(&mut text, &name, &root().join("results").join(&name));
            continue;
        }
        match json["benchmark"].as_str().or(json["bench"].as_str()) {
            Some("features") => features(&mut text, &name, &json),
            Some("encoder_peers") => encoder(&mut text, &name, &json),
            Some("encoder_engines") => engines(&mut text, &name, &json),
            Some("experts") => experts(&mut text, &name, &json),
            Some("precision") => precision(&mut text, &name, &json),
            Some("yardstick") => yardstick(&mut text, &name, &json),
            Some("transcribe") => from_outside(&mut text, &name, &json, "The program from outside"),
            Some("streaming") => from_outside(&mut text, &name, &json, "Streaming: latency, load, and an hour of audio"),
            Some("scoring") => peers(&mut text, &name, &json, "Scoring: 10,000 utterances, 200,000 words, one thread"),
            Some("decoding") => decoding(&mut text, &name, &json),
            Some("audio") => audio(&mut text, &name, &json),
            Some("published") => published(&mut text, &name, &json),
            Some("word_times") => word_times(&mut text, &name, &json),
            Some("lm_peers") => language_models(&mut text, &name, &json),
            Some("compress") => compress(&mut text, &name, &json),
            Some("offload") => offload(&mut text, &name, &json),
            Some("languages") => languages(&mut text, &name, &json),
            Some("modularity") => modularity(&mut text, &name, &json),
            Some("hotwords") => hotwords(&mut text, &name, &json),
            Some("long") => long(&mut text, &name, &json),
            Some("study") => study(&mut text, &name, json),
            other => panic!("{name}: no table for benchmark {other:?}"),
        }
    }
    text
}

/// A result of `omniscribe bench`.
fn bench(text: &mut String, name: &str, path: &Path) {
    let result = RunResult::read(path).unwrap();
    let (command, started) = (result.provenance.command.join(" "), result.provenance.started.split('T').next().unwrap());
    let search = result.provenance.decoder.get("search").map_or_else(String::new, |s| format!(", {}", s.as_str().unwrap_or_default()));
    let chunks = result.provenance.decoder.get("chunk_ms").map_or_else(String::new, |ms| format!(", as a stream in chunks of {ms} ms"));
    write!(
        text,
        "\n## Word error rates: {}{chunks}{search}\n\n[`{name}`](results/{name}), {started}.\n\n```sh\n{command}\n```\n\n",
        result.provenance.model.name
    )
    .unwrap();
    text.push_str(&markdown::table(&result));
}

fn heading(text: &mut String, title: &str, name: &str, json: &Value) {
    let command = match &json["command"] {
        Value::Array(words) => words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        other => other.as_str().unwrap_or_default().to_string(),
    };
    let (cpu, date) = (json["cpu"].as_str().unwrap(), json["date"].as_str().unwrap());
    write!(text, "\n## {title}\n\n[`{name}`](results/{name}), {date}, {cpu}.\n\n```sh\n{command}\n```\n\n").unwrap();
}

fn features(text: &mut String, name: &str, json: &Value) {
    heading(text, "Features: 10 minutes of audio, one thread", name, json);
    text.push_str("| features | peer | faster than it, best run | median run |\n|---|---|---|---|\n");
    for (pair, ratio) in json["ratio_peer_over_ours"].as_object().unwrap() {
        let (features, peer) = pair.split_once(" vs ").unwrap();
        writeln!(text, "| {features} | {peer} | {:.1}x | {:.1}x |", ratio["best"].as_f64().unwrap(), ratio["median"].as_f64().unwrap())
            .unwrap();
    }
}

/// Ratios against peers by name.
fn peers(text: &mut String, name: &str, json: &Value, title: &str) {
    heading(text, title, name, json);
    text.push_str("| work | faster than it, best run | median run |\n|---|---|---|\n");
    for (pair, ratio) in json["ratio_peer_over_ours"].as_object().unwrap() {
        writeln!(text, "| {pair} | {:.1}x | {:.1}x |", ratio["best"].as_f64().unwrap(), ratio["median"].as_f64().unwrap()).unwrap();
    }
    for (normalizer, speed) in json["lines_per_s"].as_object().into_iter().flatten() {
        writeln!(text, "\nNormaliser `{normalizer}`: {:.0} lines/s.", speed.as_f64().unwrap()).unwrap();
    }
}

/// Beam search: each setting of each peer.
fn decoding(text: &mut String, name: &str, json: &Value) {
    heading(text, "Beam search against its peers: same emissions, settings and language model, one thread", name, json);
    let versions = &json["versions"];
    writeln!(
        text,
        "pyctcdecode {}, flashlight-text {}.\n",
        versions["pyctcdecode"].as_str().unwrap(),
        versions["flashlight-text"].as_str().unwrap()
    )
    .unwrap();
    text.push_str("| peer | setting | width | peer, ms per second of audio | ours | faster than it | word errors of the peer | ours | words |\n|---|---|---|---|---|---|---|---|---|\n");
    for row in json["rows"].as_array().unwrap() {
        let (peer, setting) = (row["peer"].as_str().unwrap(), row["variant"].as_str().unwrap());
        let n = |key: &str| row[key].as_f64().unwrap();
        writeln!(
            text,
            "| {peer} | {setting} | {} | {:.2} | {:.2} | {:.1}x | {} | {} | {} |",
            row["beam_width"],
            n("peer_ms_per_audio_s"),
            n("ours_ms_per_audio_s"),
            n("times_faster"),
            row["word_errors_peer"],
            row["word_errors_ours"],
            row["reference_words"]
        )
        .unwrap();
    }
}

/// Audio files to samples.
fn audio(text: &mut String, name: &str, json: &Value) {
    heading(text, "Audio files to 16 kHz mono against FFmpeg, one thread", name, json);
    writeln!(text, "{}. Above 1 we are faster; of Opus the faster of FFmpeg's two decoders counts.\n", json["ffmpeg"].as_str().unwrap())
        .unwrap();
    text.push_str("| file | times real time | FFmpeg's time / ours, best run | median run |\n|---|---|---|---|\n");
    for row in json["rows"].as_array().unwrap() {
        let (kind, n) = (row["kind"].as_str().unwrap(), |key: &str| row[key].as_f64().unwrap());
        writeln!(text, "| {kind} | {:.0} | {:.2} | {:.2} |", n("times_realtime"), n("best"), n("median")).unwrap();
    }
}

/// Scores of n-gram models: each kind of file, on text and on the same words shuffled.
fn language_models(text: &mut String, name: &str, json: &Value) {
    heading(text, "Language model scores against KenLM: same words, same files, one thread", name, json);
    text.push_str("| text | file | MB | KenLM, ns per word | ours | faster than it |\n|---|---|---|---|---|---|\n");
    for row in json["rows"].as_array().unwrap() {
        let (words, kind, ours) = (row["text"].as_str().unwrap(), row["model"].as_str().unwrap(), row["ours_ns"].as_f64().unwrap());
        let megabytes = row["bytes"].as_f64().unwrap() / 1e6;
        // Our compact file is read by us alone.
        let (peer, ratio) =
            row["kenlm_ns"].as_f64().map_or((String::new(), String::new()), |peer| (format!("{peer:.0}"), format!("{:.2}x", peer / ours)));
        writeln!(text, "| {words} | {kind} | {megabytes:.1} | {peer} | {ours:.0} | {ratio} |").unwrap();
    }
}

/// Compressed experts: bytes, word errors, agreement.
fn compress(text: &mut String, name: &str, json: &Value) {
    heading(text, "Experts made smaller: ResMoE against its parts and against plain pruning", name, json);
    writeln!(
        text,
        "`{}`, {} experts a layer; {} utterances ({:.0} s, {} words), greedy. Of the experts' bytes, centre and index are part; \
         \"same expert\": share of steps that go where they went before.\n\n![trade-off](compress.svg)\n",
        json["model"].as_str().unwrap(),
        json["experts"],
        json["utterances"],
        json["audio_seconds"].as_f64().unwrap(),
        json["words"]
    )
    .unwrap();
    text.push_str("| method | residual | kept | storage | experts, MB | of it centre | index | of whole | WER | same text | same expert | error of weights |\n");
    text.push_str("|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    for row in json["rows"].as_array().unwrap() {
        let (s, n) = (|key: &str| row[key].as_str().unwrap(), |key: &str| row[key].as_f64().unwrap());
        let part = |key: &str| row["bytes"][key].as_f64().unwrap() / 1e6;
        writeln!(
            text,
            "| {} | {} | {:.3} | {} | {:.2} | {:.2} | {:.2} | {:.1} % | {:.2} % | {:.1} % | {:.1} % | {:.4} |",
            s("method"),
            s("residual"),
            n("keep"),
            s("storage"),
            n("expert_bytes") / 1e6,
            part("centre"),
            part("index"),
            100.0 * n("expert_bytes") / n("whole_expert_bytes"),
            100.0 * n("wer"),
            100.0 * n("same_text"),
            100.0 * n("agreement_mean"),
            n("weight_error")
        )
        .unwrap();
    }
}

/// Experts within a budget: guesses, hits, time, memory.
fn offload(text: &mut String, name: &str, json: &Value) {
    heading(text, "Experts within a budget", name, json);
    writeln!(
        text,
        "{} utterances ({:.0} s); every transcript is that of the model without a budget. {}.\n",
        json["utterances"],
        json["audio_seconds"].as_f64().unwrap(),
        json["about"].as_str().unwrap()
    )
    .unwrap();
    text.push_str("| model | experts | guesses | the predictor names the expert | most used one | that of the layer below |\n|---|---|---|---|---|---|\n");
    for model in json["models"].as_array().unwrap() {
        for (heads, accuracy) in model["accuracy"].as_object().unwrap() {
            let n = |key: &str| accuracy[key].as_f64().unwrap();
            let guesses = if heads == "one" { "one for all layers" } else { "one for each layer" };
            writeln!(
                text,
                "| {} | {} in {} layers | {guesses} | {:.1} % | {:.1} % | {:.1} % |",
                model["name"].as_str().unwrap(),
                model["experts"],
                model["layers"],
                n("predicted"),
                n("majority"),
                n("previous_layer")
            )
            .unwrap();
        }
    }
    text.push_str("\n| model | passes | budget | fetched ahead by | experts a layer asks for in a pass | there | on their way | missed | MB read | encoder, s | wall, s | peak memory, MB |\n");
    text.push_str("|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    for row in json["rows"].as_array().unwrap() {
        let (s, n) = (|key: &str| row[key].as_str().unwrap(), |key: &str| row[key].as_f64().unwrap());
        let passes = if s("passes") == "batches" { "batches of utterances" } else { "windows of 4 s, one by one" };
        let times = format!("{:.1} | {:.1} | {:.0}", n("encoder_seconds"), n("wall_seconds"), n("peak_mb"));
        let Some(prefetch) = row["prefetch"].as_str() else {
            writeln!(text, "| {} | {passes} | none: all in memory | | | | | | | {times} |", s("model")).unwrap();
            continue;
        };
        let prefetch = match prefetch {
            "none" => "nothing",
            "popular" => "use so far",
            "previous" => "the layer below",
            "one" => "predictor, one guess",
            "each" => "predictor, a guess for each layer",
            other => panic!("{name}: prefetch {other}"),
        };
        let share = |key: &str| 100.0 * n(key) / n("asked");
        writeln!(
            text,
            "| {} | {passes} | {:.1} MB ({:.0} %) | {prefetch} | {:.2} | {:.1} % | {:.1} % | {:.1} % | {:.1} | {times} |",
            s("model"),
            n("budget_mb"),
            100.0 * n("budget_share"),
            n("unique_per_pass"),
            share("there"),
            share("on_their_way"),
            share("missed"),
            n("read_mb")
        )
        .unwrap();
    }
}

/// Error rates by language with modules and without, and how often a language is identified.
fn languages(text: &mut String, name: &str, json: &Value) {
    heading(text, "Modules for languages against more experts", name, json);
    writeln!(text, "{}\n", json["about"].as_str().unwrap()).unwrap();
    let rows = json["rows"].as_array().unwrap();
    let names: Vec<&String> = rows[0]["languages"].as_object().unwrap().keys().collect();
    let header: Vec<String> =
        names.iter().map(|l| format!("{l} ({})", rows[0]["languages"][l.as_str()]["utterances"])).chain(["mean".into()]).collect();
    for (rate, title) in [("cer", "Character error rate, % (clips)"), ("wer", "Word error rate, %")] {
        let columns = header.join(" | ");
        writeln!(text, "| {title} | parameters (active) | {columns} |\n|---|---|{}", "---|".repeat(header.len())).unwrap();
        for row in rows {
            let kind = match (row["model"].as_str().unwrap(), row["heard_by"].as_str().unwrap()) {
                ("plain", _) => "3 experts",
                ("experts", _) => "6 experts",
                (_, "shared") => "3 experts with modules: the shared one",
                (_, "manifest") => "3 experts with modules: the language's own",
                (_, "auto") => "3 experts with modules: the identified one",
                other => panic!("{name}: {other:?}"),
            };
            let rates = names.iter().map(|l| &row["languages"][l.as_str()][rate]).chain([&row["mean"][rate]]);
            let cells: Vec<String> = rates.map(|r| format!("{:.1}", 100.0 * r.as_f64().unwrap())).collect();
            let millions = |key: &str| row[key].as_f64().unwrap() / 1e6;
            writeln!(text, "| {kind} | {:.2} M ({:.2} M) | {} |", millions("parameters"), millions("active"), cells.join(" | ")).unwrap();
        }
        text.push('\n');
    }
    let identified = &json["identification"];
    writeln!(
        text,
        "| Language identified, % | {} | all clips | seconds for all |\n|---|{}",
        header.join(" | "),
        "---|".repeat(header.len() + 2)
    )
    .unwrap();
    for (key, title) in
        [("head", "the head on the mean state (`--language auto`)"), ("most_confident_module", "the module with the most confident words")]
    {
        let by = &identified[key];
        let shares = names.iter().map(|l| &by["by_language"][l.as_str()]).chain([&by["mean"], &by["all"]]);
        let cells: Vec<String> = shares.map(|s| format!("{:.1}", 100.0 * s.as_f64().unwrap())).collect();
        writeln!(text, "| {title} | {} | {:.0} |", cells.join(" | "), by["seconds"].as_f64().unwrap()).unwrap();
    }
    writeln!(text, "\nSaying English of every clip is right for {:.1} % of them.", 100.0 * identified["always_english"].as_f64().unwrap())
        .unwrap();
}

/// Functional experts of every layer, and what is lost without them.
fn modularity(text: &mut String, name: &str, json: &Value) {
    heading(text, &format!("Functional experts of `{}`", json["model"].as_str().unwrap()), name, json);
    let functions = json["functions"].as_object().unwrap();
    let steps = functions.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ");
    let picture = name.replace(".json", ".svg");
    writeln!(
        text,
        "{} utterances, {} steps of them: {steps}. An expert is functional where it holds more of the 1 % of neurons that tell a function best than \
         chance does once in a thousand times.\n\n![shares]({picture})\n",
        json["utterances"], json["steps"]
    )
    .unwrap();
    text.push_str("| layer | functional (function, expert) pairs | over resampled utterances | random groups | functional experts |\n|---|---|---|---|---|\n");
    let percent = |v: &Value| format!("{:.1} %", 100.0 * v.as_f64().unwrap());
    for (number, layer) in json["layers"].as_array().unwrap().iter().enumerate() {
        let functional = layer["functions"].as_array().unwrap().iter().filter(|f| !f["functional"].as_array().unwrap().is_empty());
        let listed: Vec<String> = functional
            .map(|f| {
                let name = f["name"].as_str().unwrap();
                let have = functions[name].as_f64().unwrap() / json["steps"].as_f64().unwrap();
                format!("{name} {} ({:.2}, {:.2})", f["functional"], f["precision"].as_f64().unwrap(), have.max(1.0 - have))
            })
            .collect();
        let interval = &layer["share_interval"];
        let interval = if interval.is_null() { String::new() } else { format!("{} to {}", percent(&interval[0]), percent(&interval[1])) };
        writeln!(
            text,
            "| {} | {} | {interval} | {} | {} |",
            number + 1,
            percent(&layer["share"]),
            percent(&layer["share_random"]),
            listed.join("; ")
        )
        .unwrap();
    }
    text.push_str("\nIn brackets: experts, the mean average precision of the best neurons, and that of a neuron that knows nothing: high where few steps have the function.\n\n");
    text.push_str("| silenced: experts of | how many | steps with it that change | other steps | WER | as many other experts: steps with it | other steps | WER |\n");
    text.push_str("|---|---|---|---|---|---|---|---|\n");
    for row in json["silenced"].as_array().unwrap() {
        let cells = |side: &str| ["matching", "other", "wer"].map(|key| percent(&row[side][key])).join(" | ");
        let count = row["silenced"].as_array().unwrap().len();
        writeln!(text, "| {} | {count} | {} | {} |", row["function"].as_str().unwrap(), cells("functional"), cells("random")).unwrap();
    }
    writeln!(text, "\nWER with all experts: {}.", percent(&json["wer"])).unwrap();
    let earlier = json["earlier"].as_array().unwrap();
    if !earlier.is_empty() {
        text.push_str("\n| earlier state | functional (function, expert) pairs | of the last best neurons among its best | of the last functional experts functional in it |\n|---|---|---|---|\n");
    }
    for state in earlier {
        let cells = ["share", "best_kept", "functional_kept"].map(|key| percent(&state[key])).join(" | ");
        writeln!(text, "| {} | {cells} |", state["model"].as_str().unwrap()).unwrap();
    }
}

fn hotwords(text: &mut String, name: &str, json: &Value) {
    heading(text, "Hotwords: what they gain and what they damage", name, json);
    writeln!(text, "{} words that are said once each in {} utterances.\n", json["hotwords"], json["utterances"]).unwrap();
    text.push_str("| boost | of them recognised | false alarms | WER of utterances without them |\n|---|---|---|---|\n");
    for row in json["rows"].as_array().unwrap() {
        let percent = |key: &str| 100.0 * row[key].as_f64().unwrap();
        let boost = if row["boost"] == 0 { "none".to_string() } else { row["boost"].to_string() };
        writeln!(text, "| {boost} | {:.1} % | {} | {:.2} % |", percent("recognised"), row["false_alarms"], percent("wer_without_hotwords"))
            .unwrap();
    }
}

fn long(text: &mut String, name: &str, json: &Value) {
    heading(text, "Long recordings: dev utterances stitched together", name, json);
    let rows = json["rows"].as_array().unwrap();
    let sets: Vec<&String> = rows[0]["wer"].as_object().unwrap().keys().collect();
    writeln!(text, "| windows | {} | seconds |", sets.iter().map(|s| format!("{s}, WER %")).collect::<Vec<_>>().join(" | ")).unwrap();
    writeln!(text, "|---|{}---|", "---|".repeat(sets.len())).unwrap();
    for row in rows {
        let cells = sets.iter().map(|set| format!("{:.1}", row["wer"][set.as_str()].as_f64().unwrap())).collect::<Vec<_>>().join(" | ");
        writeln!(text, "| {} | {cells} | {:.1} |", row["windows"].as_str().unwrap(), row["seconds"].as_f64().unwrap()).unwrap();
    }
    text.push_str("\n| where nobody speaks | words per minute | without voice activity detection |\n|---|---|---|\n");
    for row in json["non_speech"].as_array().unwrap() {
        let what = row["what"].as_str().unwrap();
        writeln!(text, "| {what} | {} | {} |", row["words_per_minute"], row["words_per_minute_without_vad"]).unwrap();
    }
    for row in json["memory"].as_array().unwrap() {
        let (seconds, mebibytes) = (row["audio_seconds"].as_f64().unwrap(), row["peak_mib"].as_f64().unwrap());
        writeln!(text, "\n{:.0} min of audio: {mebibytes:.0} MiB at most, {:.1} s.", seconds / 60.0, row["wall_seconds"].as_f64().unwrap())
            .unwrap();
    }
}

/// Kinds of feed-forward against each other.
fn study(text: &mut String, name: &str, json: Value) {
    let report: StudyReport = serde_json::from_value(json.clone()).unwrap();
    heading(text, &report.name, name, &json);
    let stem = name.trim_end_matches(".json");
    let remark = std::fs::read_to_string(root().join("results").join(format!("{stem}.md"))).unwrap_or_default();
    let pictures = render::PICTURES.map(|picture| format!("![{picture}](results/{stem}-{picture}.svg)\n"));
    write!(text, "{}\n\n{remark}\n{}{}", render::status(&report), pictures.join("\n"), render::tables(&report, "###")).unwrap();
    // The pictures are of these numbers.
    for (picture, svg) in render::PICTURES.iter().zip(render::pictures(&report)) {
        let kept = std::fs::read_to_string(root().join("results").join(format!("{stem}-{picture}.svg"))).unwrap();
        assert!(kept == svg, "{stem}-{picture}.svg is of other numbers: omniscribe study report .. --export benchmarks/results/{stem}");
    }
}

fn word_times(text: &mut String, name: &str, json: &Value) {
    heading(text, "Word times: how far off they are", name, json);
    text.push_str(
        "| words of | against | words | starts off, ms: mean | median | 90 % | late | ends off, ms: mean | median | 90 % | late |\n",
    );
    text.push_str("|---|---|---|---|---|---|---|---|---|---|---|\n");
    for row in json["rows"].as_array().unwrap() {
        let (what, against) = (row["what"].as_str().unwrap(), row["against"].as_str().unwrap());
        write!(text, "| {what} | {against} | {} of {} |", row["words"], row["of"]).unwrap();
        for edge in ["start", "end"] {
            for key in ["mean", "median", "p90", "late"] {
                write!(text, " {:.0} |", row[edge][key].as_f64().unwrap()).unwrap();
            }
        }
        text.push('\n');
    }
}

/// Encoders on the same weights and inputs, ours beside PyTorch's, pair by pair.
fn encoder(text: &mut String, name: &str, json: &Value) {
    heading(text, "Encoder against PyTorch: same weights, same inputs", name, json);
    writeln!(
        text,
        "PyTorch {}; 12 layers, d_model 256, 250 steps. Ratio: our time / PyTorch's, below 1 we are faster.\n",
        json["torch"].as_str().unwrap()
    )
    .unwrap();
    text.push_str("| case | mode | batch | threads | precision | PyTorch, ms | ours, ms | ratio (median) | ratio (best) |\n|---|---|---|---|---|---|---|---|---|\n");
    for row in json["rows"].as_array().unwrap().iter().filter(|r| r["ours"].is_object()) {
        let number = |v: &Value| format!("{:.2}", v.as_f64().unwrap());
        let word = |key: &str| row[key].as_str().map_or_else(|| row[key].to_string(), str::to_string);
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {:.1} | {:.1} | {} | {} |",
            word("case"),
            word("mode"),
            word("batch"),
            word("threads"),
            word("precision"),
            row["torch"]["median_ms"].as_f64().unwrap(),
            row["ours"]["median_ms"].as_f64().unwrap(),
            number(&row["ratio_median"]),
            number(&row["ratio_best"])
        )
        .unwrap();
    }
}

/// Encoders on the same weights and inputs: each engine's median, and what ours are to theirs.
fn engines(text: &mut String, name: &str, json: &Value) {
    heading(text, "Encoder against PyTorch and ONNX Runtime: same weights, same inputs", name, json);
    let version = |key: &str| json["versions"][key].as_str().unwrap_or("missing").to_string();
    writeln!(
        text,
        "PyTorch {}, ONNX Runtime {}; 12 layers, d_model 256, 250 steps. Milliseconds, medians. The last columns are the peer's time / ours, above 1 we \
         are faster: f32 against the faster of both in f32, our best against each peer's f32 and against its reduced precision (PyTorch bf16, ONNX Runtime int8).\n",
        version("torch"),
        version("onnxruntime")
    )
    .unwrap();
    let engines = ["ours f32", "ours bf16", "ours int8", "torch f32", "torch bf16", "ort f32", "ort int8"];
    let peers = [("torch f32", "PyTorch f32"), ("ort f32", "ORT f32"), ("torch bf16", "PyTorch bf16"), ("ort int8", "ORT int8")];
    let titles = engines.map(|e| e.replace("torch", "PyTorch").replace("ort", "ORT")).join(" | ");
    let ratios = peers.map(|(_, title)| format!("best : {title}")).join(" | ");
    writeln!(text, "| case | mode | batch | threads | {titles} | f32 : f32 | {ratios} |").unwrap();
    writeln!(text, "|---|---|---|---|{}", "---|".repeat(engines.len() + 1 + peers.len())).unwrap();
    for row in json["rows"].as_array().unwrap() {
        let time = |engine: &str| row["engines"][engine]["median_ms"].as_f64();
        let cells = engines.map(|e| time(e).map_or(String::new(), |ms| format!("{ms:.1}"))).join(" | ");
        let best = engines[..3].iter().filter_map(|e| time(e)).fold(f64::INFINITY, f64::min);
        let f32_peer = ["torch f32", "ort f32"].iter().filter_map(|e| time(e)).fold(f64::INFINITY, f64::min);
        let ratio = |peer: Option<f64>, ours: f64| peer.map_or(String::new(), |peer| format!("{:.2}x", peer / ours));
        let against = peers.map(|(peer, _)| ratio(time(peer), best)).join(" | ");
        let word = |key: &str| row[key].as_str().map_or_else(|| row[key].to_string(), str::to_string);
        let head = ["case", "mode", "batch", "threads"].map(word).join(" | ");
        writeln!(text, "| {head} | {cells} | {} | {against} |", ratio(Some(f32_peer), time("ours f32").unwrap())).unwrap();
    }
}

/// Experts beside their dense twin.
fn experts(text: &mut String, name: &str, json: &Value) {
    heading(text, "What 8 experts cost beside a dense encoder of equal active size", name, json);
    text.push_str(
        "| mode | precision | batch | dense, ms | 8 experts, ms | ratio (median) | ratio (best) |\n|---|---|---|---|---|---|---|\n",
    );
    for row in json["rows"].as_array().unwrap() {
        let (s, n) = (|key: &str| row[key].as_str().unwrap(), |key: &str| row[key].as_f64().unwrap());
        let (dense, experts) = (n("dense_median_ms"), n("experts_median_ms"));
        let best = n("experts_best_ms") / n("dense_best_ms");
        writeln!(
            text,
            "| {} | {} | {} | {dense:.1} | {experts:.1} | {:.2} | {best:.2} |",
            s("mode"),
            s("precision"),
            row["batch"],
            experts / dense
        )
        .unwrap();
    }
}

/// Word errors, speed and memory by precision.
fn precision(text: &mut String, name: &str, json: &Value) {
    heading(text, &format!("Precision of `{}`: word errors, speed, memory", json["model"].as_str().unwrap()), name, json);
    writeln!(
        text,
        "{} utterances ({:.0} s). Words unlike f32's: share of its words that come out otherwise, right or wrong. Of int8, subsampling and head are bf16, and \
         so are the products within attention.\n",
        json["utterances"],
        json["audio_seconds"].as_f64().unwrap()
    )
    .unwrap();
    text.push_str("| decoding | dtype | WER, mean of sets | WER, all words | change of both against f32 | words unlike f32's | RTFx encoder and decoder | RTFx end to end | peak memory, MiB |\n");
    text.push_str("|---|---|---|---|---|---|---|---|---|\n");
    for row in json["rows"].as_array().unwrap() {
        let (s, n) = (|key: &str| row[key].as_str().unwrap(), |key: &str| row[key].as_f64().unwrap());
        writeln!(
            text,
            "| {} | {} | {:.2} % | {:.2} % | {:+.2}, {:+.2} | {:.2} % | {:.0} | {:.0} | {:.0} |",
            s("decoder"),
            s("dtype"),
            n("wer_mean"),
            n("wer_all"),
            n("change_mean"),
            n("change_all"),
            n("words_unlike"),
            n("rtfx_compute"),
            n("rtfx"),
            n("peak_mib")
        )
        .unwrap();
    }
}

/// A published geometry in our hands and in its own library's.
fn published(text: &mut String, name: &str, json: &Value) {
    heading(text, "Parakeet-CTC 0.6b, random weights, 11 s of audio: against its own library", name, json);
    let (torch, library) = (json["torch"].as_str().unwrap(), json["transformers"].as_str().unwrap());
    writeln!(
        text,
        "PyTorch {torch}, transformers {library}, {} threads. Ratio: our time / theirs, below 1 we are faster.\n",
        json["threads"]
    )
    .unwrap();
    text.push_str("| precision | theirs, ms | ours, ms | ratio (median) | ratio (best) | largest difference of a logit | same best label |\n|---|---|---|---|---|---|---|\n");
    let rows = json["rows"].as_array().unwrap();
    for row in rows {
        let n = |who: &str, what: &str| row[who][what].as_f64().unwrap();
        writeln!(
            text,
            "| {} | {:.0} | {:.0} | {:.2} | {:.2} | {:.1e} | {:.1} % |",
            row["precision"].as_str().unwrap(),
            n("peer_ms", "median"),
            n("ours_ms", "median"),
            n("ours_ms", "median") / n("peer_ms", "median"),
            n("ours_ms", "best") / n("peer_ms", "best"),
            row["max_error"].as_f64().unwrap(),
            100.0 * row["same_label"].as_f64().unwrap()
        )
        .unwrap();
    }
    for row in rows {
        let n = |key: &str| row[key].as_f64().unwrap();
        writeln!(
            text,
            "\n{} weights ({:.2} GB): opened in {:.2} s, {:.2} times a plain read of the file ({:.2} s); their library: {:.2} s.",
            row["weights"].as_str().unwrap(),
            n("bytes") / 1e9,
            n("open_s"),
            n("open_s") / n("read_s"),
            n("read_s"),
            n("peer_open_s")
        )
        .unwrap();
    }
}

fn yardstick(text: &mut String, name: &str, json: &Value) {
    heading(text, "Learning: our trainer against plain PyTorch, same data, sizes and audio hours", name, json);
    text.push_str(
        "![both curves](yardstick.svg)\n\n| audio hours | PyTorch, nats per character | ours | ours / PyTorch |\n|---|---|---|---|\n",
    );
    for row in json["rows"].as_array().unwrap() {
        let n = |key: &str| row[key].as_f64().unwrap();
        writeln!(text, "| {:.0} | {:.3} | {:.3} | {:.3} |", n("audio_hours"), n("torch"), n("ours"), n("ours") / n("torch")).unwrap();
    }
}

/// Figures by name, under the result's own title where it has one.
fn from_outside(text: &mut String, name: &str, json: &Value, title: &str) {
    heading(text, json["title"].as_str().unwrap_or(title), name, json);
    text.push_str("| what | measured |\n|---|---|\n");
    for (what, value) in json["figures"].as_object().unwrap() {
        writeln!(text, "| {what} | {} |", value.as_str().unwrap()).unwrap();
    }
}

#[test]
fn results_page_is_what_the_results_say() {
    let page = root().join("RESULTS.md");
    let fresh = render();
    if std::env::var_os("UPDATE_RESULTS").is_some() {
        std::fs::write(&page, &fresh).unwrap();
    }
    let kept = std::fs::read_to_string(&page).unwrap();
    assert!(kept == fresh, "benchmarks/RESULTS.md is stale: UPDATE_RESULTS=1 cargo test --release results");
}
