//! The commands around recognition on real files: folders of transcripts, benchmarks, language models, alignment, `doctor`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::program::ran;
use assert_cmd::Command;
use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn asset(name: &str) -> PathBuf {
    root().join("assets").join(name)
}

/// The program with the shipped model.
fn program(command: &str) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_omniscribe"));
    program.env("OMNISCRIBE_MODEL", root().join("models/base")).arg(command);
    program
}

fn files(folder: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder).expect("folder") {
        let path = entry.expect("entry").path();
        let name = path.file_name().expect("name").to_string_lossy().into_owned();
        if path.is_dir() {
            names.extend(files(&path).into_iter().map(|below| format!("{name}/{below}")));
        } else {
            names.insert(name);
        }
    }
    names
}

/// A folder of recordings: two of the same name, one below, one that is none.
fn recordings() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::create_dir_all(folder.path().join("in/below")).expect("folder");
    let copy = |from: &str, to: &str| std::fs::copy(asset(from), folder.path().join("in").join(to)).expect("copied");
    copy("digits.wav", "a.wav");
    copy("command.flac", "a.flac");
    copy("river.opus", "below/b.opus");
    std::fs::write(folder.path().join("in/broken.wav"), b"RIFF nothing").expect("written");
    folder
}

#[test]
fn a_folder_becomes_a_folder_and_is_not_done_twice() {
    let folder = recordings();
    let (input, output) = (folder.path().join("in"), folder.path().join("out"));
    let run = |more: &[&str]| ran(program("transcribe").arg(&input).args(["--recursive", "-f", "txt,srt", "-o"]).arg(&output).args(more));
    let first = run(&[]);
    assert_eq!((first.code, first.out.as_str()), (Some(1), ""), "{}", first.err);
    assert!(first.err.contains("broken.wav") && first.err.contains("3 of 4 files") && first.err.contains("1 failed"), "{}", first.err);
    let expected = [".omniscribe.jsonl", "a.flac.srt", "a.flac.txt", "a.wav.srt", "a.wav.txt", "below/b.srt", "below/b.txt"];
    assert_eq!(files(&output), expected.map(String::from).into());
    let text = std::fs::read_to_string(output.join("a.wav.txt")).expect("transcript");
    assert_eq!(text.split_whitespace().collect::<Vec<_>>().join(" "), "seven zero four two nine one three six five");
    assert!(std::fs::read_to_string(output.join("a.wav.srt")).expect("subtitles").starts_with("1\n00:00:0"));

    // Nothing is left to do but the broken one; what was made is not touched.
    std::fs::write(output.join("a.wav.txt"), "edited").expect("written");
    let second = run(&["--resume"]);
    assert!(second.err.contains("0 of 1 files") && second.err.contains("3 done before"), "{}", second.err);
    assert_eq!(std::fs::read_to_string(output.join("a.wav.txt")).expect("transcript"), "edited");
    // Other content under the same name is new work, and so are other settings.
    std::fs::copy(asset("river.wav"), input.join("a.wav")).expect("copied");
    let third = run(&["--resume"]);
    assert!(third.err.contains("1 of 2 files") && third.err.contains("2 done before"), "{}", third.err);
    assert!(std::fs::read_to_string(output.join("a.wav.txt")).expect("transcript").contains("river") || text.len() > 5);
    let fourth = run(&["--resume", "--dtype", "f32"]);
    assert!(fourth.err.contains("3 of 4 files") && !fourth.err.contains("done before"), "{}", fourth.err);
}

#[test]
fn shards_share_the_work() {
    let folder = recordings();
    let (input, output) = (folder.path().join("in"), folder.path().join("out"));
    for shard in ["1/2", "2/2"] {
        ran(program("transcribe").arg(&input).args(["-r", "--shard", shard, "-o"]).arg(output.join(shard.replace('/', "-"))));
    }
    let [first, second] =
        ["1-2", "2-2"].map(|s| files(&output.join(s)).into_iter().filter(|f| f.ends_with(".txt")).collect::<BTreeSet<_>>());
    assert!(first.is_disjoint(&second));
    assert_eq!(first.union(&second).cloned().collect::<Vec<_>>(), ["a.flac.txt", "a.wav.txt", "below/b.txt"]);
    let wrong = ran(program("transcribe").arg(&input).args(["--shard", "3/2"]));
    assert!(wrong.code == Some(2) && wrong.err.contains("i/n"), "{}", wrong.err);
}

#[test]
fn formats_and_channels() {
    let json = ran(program("transcribe").args(["-f", "json"]).arg(asset("digits.wav")));
    let value: Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!((value["model"].as_str(), value["segments"][0]["words"][0].as_u64()), (Some("base"), Some(0)));
    let words = value["words"].as_array().expect("words");
    assert!(words.len() == 9 && words.windows(2).all(|w| w[0]["end"].as_f64() <= w[1]["start"].as_f64()), "{words:?}");
    let two = ran(program("transcribe").args(["--output_format", "srt,vtt"]).arg(asset("digits.wav")));
    assert!(two.code == Some(1) && two.err.contains("--output-dir"), "{}", two.err);
    let unknown = ran(program("transcribe").args(["-f", "docx"]).arg(asset("digits.wav")));
    assert!(unknown.code == Some(2) && unknown.err.contains("verbose_json"), "{}", unknown.err);
    let beyond = ran(program("transcribe").args(["--channels", "2"]).arg(asset("digits.wav")));
    assert!(beyond.code == Some(1) && beyond.err.contains("channel 2"), "{}", beyond.err);
    // Digits on the left, a command on the right, one after the other and together: each is heard on its own channel.
    let folder = tempfile::tempdir().expect("folder");
    let read = |name: &str| {
        omniscribe::audio::read_at(&asset(name), omniscribe::units::SampleRate::HZ_16000, &Default::default()).expect("reads").samples
    };
    let (left, right) = (read("digits.wav"), read("book.mp3"));
    let path = folder.path().join("call.wav");
    let spec = hound::WavSpec { channels: 2, sample_rate: 16_000, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
    let mut writer = hound::WavWriter::create(&path, spec).expect("created");
    for i in 0..left.len().max(right.len()) {
        for channel in [&left, &right] {
            writer.write_sample((channel.get(i).copied().unwrap_or(0.0) * 32_000.0) as i16).expect("written");
        }
    }
    writer.finalize().expect("written");
    let split = ran(program("transcribe").args(["-f", "json", "--channels", "split"]).arg(&path));
    let value: Value = serde_json::from_str(&split.out).expect("JSON");
    let of = |channel: u64| {
        let segments = value["segments"].as_array().expect("segments").iter().filter(|s| s["channel"] == channel);
        segments.map(|s| s["text"].as_str().expect("text")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(of(1), "seven zero four two nine one three six five");
    assert!(of(2).contains("father") || of(2).contains("my"), "{}", of(2));
}

#[test]
fn numbers_and_capitals_on_request() {
    let written = ran(program("transcribe").args(["--itn", "--case"]).arg(asset("digits.wav")));
    assert_eq!((written.code, written.out.trim()), (Some(0), "704291365"), "{}", written.err);
    let cased = ran(program("transcribe").arg("--case").arg(asset("digits.wav")));
    assert_eq!(cased.out.trim(), "Seven zero four two nine one three six five", "{}", cased.err);
}

#[test]
fn silence_is_no_speech() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("silence.wav");
    let silence = omniscribe::Waveform { samples: vec![0.0; 48_000], sample_rate: omniscribe::units::SampleRate::HZ_16000 };
    omniscribe::audio::write_wav(&path, &silence, omniscribe::audio::WavFormat::Int16).expect("written");
    let quiet = ran(program("transcribe").arg(&path));
    assert_eq!((quiet.code, quiet.out.trim()), (Some(0), ""));
    assert!(quiet.err.contains("no speech detected"), "{}", quiet.err);
}

#[test]
fn what_greedy_decoding_cannot_do_is_refused() {
    for flags in [["--hotwords", "omniscribe"], ["--beam-width", "8"], ["--lexicon", "words.txt"]] {
        let refused = ran(program("transcribe").args(["--decoder", "greedy"]).args(flags).arg(asset("digits.wav")));
        assert!(refused.code == Some(1) && refused.err.contains(flags[0]) && refused.err.contains("beam search"), "{}", refused.err);
    }
}

#[test]
fn a_lexicon_and_a_grammar_close_the_language() {
    let folder = tempfile::tempdir().expect("folder");
    let words = "zero one two three four five six seven eight nine".split(' ').collect::<Vec<_>>();
    let lexicon = folder.path().join("digits.txt");
    std::fs::write(&lexicon, words.join("\n")).expect("written");
    let heard = ran(program("transcribe").arg("--lexicon").arg(&lexicon).args([asset("digits.wav"), asset("book.mp3")]));
    let mut lines = heard.out.lines();
    assert_eq!(lines.next(), Some("seven zero four two nine one three six five"), "{}", heard.err);
    assert!(lines.next().expect("a line").split_whitespace().all(|w| words.contains(&w)), "{}", heard.out);
    let grammar = folder.path().join("commands.jsgf");
    std::fs::write(&grammar, "#JSGF V1.0;\ngrammar commands;\npublic <command> = please turn (on | off) the light | stop;\n")
        .expect("written");
    let heard = ran(program("transcribe").arg("--grammar").arg(&grammar).arg(asset("digits.wav")));
    let sentences = ["", "please turn on the light", "please turn off the light", "stop"];
    assert!(sentences.contains(&heard.out.trim()), "{:?} {}", heard.out, heard.err);
    std::fs::write(&grammar, "public <x> = (a | b;").expect("written");
    let broken = ran(program("transcribe").arg("--grammar").arg(&grammar).arg(asset("digits.wav")));
    assert!(broken.code == Some(1) && broken.err.contains("commands.jsgf"), "{}", broken.err);
}

#[test]
fn a_folder_is_benchmarked_continued_compared_and_drawn() {
    let folder = tempfile::tempdir().expect("folder");
    let set = folder.path().join("set");
    std::fs::create_dir(&set).expect("folder");
    for (file, text) in [
        ("digits.wav", "seven zero four two nine one three six five"),
        ("book.mp3", "my father told me that a good book is the best of friends today and for ever"),
    ] {
        std::fs::copy(asset(file), set.join(file)).expect("copied");
        std::fs::write(set.join(file).with_extension("txt"), text).expect("written");
    }
    let (result, html, sclite) = (folder.path().join("a.json"), folder.path().join("a.html"), folder.path().join("sclite"));
    let bench = |output: &Path| {
        let mut command = program("bench");
        command.arg(&set).arg("-o").arg(output);
        command
    };
    let first = ran(bench(&result).arg("--html").arg(&html).arg("--sclite").arg(&sclite));
    assert_eq!(first.code, Some(0), "{}", first.err);
    let value: Value = serde_json::from_slice(&std::fs::read(&result).expect("result")).expect("JSON");
    assert_eq!(value["sets"][0]["utterances"], 2);
    // The normaliser writes the nine digits as one number.
    assert_eq!(value["sets"][0]["words"]["reference_words"], 18);
    assert!(value["experts"]["layers"].as_array().is_some_and(|layers| layers.len() == 8));
    assert!(first.out.contains("WER") && std::fs::read_to_string(&html).expect("report").contains("<!doctype html>"));
    assert!(files(&sclite).contains("hyp.trn"));
    // Again: everything is in the journal, so nothing is recognised, and the scores are the same.
    let second = ran(&mut bench(&result));
    let again: Value = serde_json::from_slice(&std::fs::read(&result).expect("result")).expect("JSON");
    assert_eq!((second.code, &again["sets"], again["speed"]["utterances"].as_u64()), (Some(0), &value["sets"], Some(0)), "{}", second.err);
    // Another program's texts, compared on the same set.
    let hypotheses = folder.path().join("peer.jsonl");
    std::fs::write(&hypotheses, "{\"id\": \"digits\", \"text\": \"seven zero for two nine\"}\nmy father (book)\n").expect("written");
    let peer = folder.path().join("peer.json");
    let scored = ran(bench(&peer).arg("--hypotheses").arg(&hypotheses).args(["--name", "peer"]));
    assert_eq!(scored.code, Some(0), "{}", scored.err);
    let table = ran(program("bench").arg("--compare").args([&peer, &result]));
    assert!(table.code == Some(0) && table.out.contains("peer") && table.out.contains("base"), "{} {}", table.out, table.err);
    // Another normaliser is another measure.
    let other = folder.path().join("other.json");
    assert_eq!(ran(bench(&other).args(["--normalizer", "basic"])).code, Some(0));
    let refused = ran(program("bench").arg("--compare").args([&result, &other]));
    assert!(refused.code == Some(1) && refused.err.contains("normaliser"), "{}", refused.err);
    // A bad file is listed, the rest is scored.
    std::fs::write(set.join("bad.wav"), "nothing").expect("written");
    std::fs::write(set.join("bad.txt"), "words").expect("written");
    let partly = ran(&mut bench(&folder.path().join("b.json")));
    assert!(partly.code == Some(1) && partly.err.contains("bad"), "{}", partly.err);
    // Confidences of a copy of the model are fitted to the set; from then on its transcripts have other ones.
    let model = folder.path().join("model");
    std::fs::create_dir(&model).expect("folder");
    for name in files(&root().join("models/base")) {
        std::fs::copy(root().join("models/base").join(&name), model.join(&name)).expect("copied");
    }
    let _ = std::fs::remove_file(model.join("calibration.json"));
    let confidences = || {
        let heard = ran(program("transcribe").args(["-f", "json", "--model"]).arg(&model).arg(asset("book.mp3")));
        let transcript: Value = serde_json::from_str(&heard.out).expect("JSON");
        transcript["words"].as_array().expect("words").iter().map(|w| w["confidence"].as_f64().expect("number")).collect::<Vec<_>>()
    };
    let (raw, fitted) = (confidences(), folder.path().join("fitted.json"));
    let calibrated = ran(bench(&fitted).arg("--calibrate").arg("--model").arg(&model));
    assert!(
        calibrated.out.contains("after calibration ECE") && calibrated.out.contains("not fitted to"),
        "{} {}",
        calibrated.out,
        calibrated.err
    );
    let curve: Value = serde_json::from_slice(&std::fs::read(model.join("calibration.json")).expect("curve")).expect("JSON");
    assert!(curve["beam"]["slope"].as_f64().is_some_and(|slope| slope > 0.0) && curve["greedy"].is_null(), "{curve}");
    let value: Value = serde_json::from_slice(&std::fs::read(&fitted).expect("result")).expect("JSON");
    assert_eq!(value["confidence"]["curve"], curve["beam"]);
    assert!(value["confidence"]["calibrated"]["nce"].as_f64() >= value["confidence"]["raw"]["nce"].as_f64(), "{value}");
    let after = confidences();
    assert!(raw.len() == after.len() && raw != after, "{raw:?}");
    let nothing = ran(program("bench").arg(root().join("src")));
    assert!(nothing.code == Some(1) && nothing.err.contains("looked for"), "{}", nothing.err);
}

#[test]
fn a_text_is_laid_over_its_recording() {
    let folder = tempfile::tempdir().expect("folder");
    let text = folder.path().join("text.txt");
    std::fs::write(&text, "Seven, zero, four;\ntwo nine ELEPHANT one\n3 six - five.\n").expect("written");
    let json = ran(program("align").arg(asset("digits.wav")).arg(&text));
    assert_eq!(json.code, Some(0), "{}", json.err);
    let value: Value = serde_json::from_str(&json.out).expect("JSON");
    let words = value["words"].as_array().expect("words");
    let written: Vec<&str> = words.iter().map(|w| w["word"].as_str().expect("word")).collect();
    assert_eq!(written, ["Seven,", "zero,", "four;", "two", "nine", "ELEPHANT", "one", "3", "six", "-", "five."]);
    let missing: Vec<&str> = words.iter().filter(|w| w["missing"] == true).map(|w| w["word"].as_str().expect("word")).collect();
    assert_eq!(missing, ["ELEPHANT"]);
    assert!(json.err.contains("ELEPHANT"), "{}", json.err);
    let starts: Vec<f64> = words.iter().filter_map(|w| w["start"].as_f64()).collect();
    assert!(starts.len() == 9 && starts.windows(2).all(|s| s[0] < s[1]), "{starts:?}");
    let subtitles = ran(program("align").arg(asset("digits.wav")).arg(&text).args(["-f", "srt"]));
    assert_eq!(subtitles.out.matches("-->").count(), 3, "a cue for each line: {}", subtitles.out);
    let empty = folder.path().join("empty.txt");
    std::fs::write(&empty, "... \n").expect("written");
    assert_eq!(ran(program("align").arg(asset("digits.wav")).arg(&empty)).code, Some(1));
}

#[test]
fn a_language_model_is_built_queried_and_used() {
    let folder = tempfile::tempdir().expect("folder");
    let text = folder.path().join("text.txt");
    let digits = "zero one two three four five six seven eight nine".split(' ').collect::<Vec<_>>();
    let lines: String =
        (0..400).map(|i| (0..6).map(|k| digits[(i * 7 + k * k * 3 + i / 10) % 10]).collect::<Vec<_>>().join(" ") + "\n").collect();
    std::fs::write(&text, lines).expect("written");
    let lm = folder.path().join("digits.lm");
    let built = ran(program("lm").arg("build").arg(&text).args(["--order", "2", "--discount-fallback", "-o"]).arg(&lm));
    assert_eq!(built.code, Some(0), "{}", built.err);
    assert_eq!(ran(program("lm").arg("inspect").arg(&lm)).code, Some(0));
    let heard = ran(program("transcribe").arg("--lm").arg(&lm).args(["--alpha", "0.3"]).arg(asset("digits.wav")));
    assert_eq!(heard.out.trim(), "seven zero four two nine one three six five", "{}", heard.err);
    std::fs::write(&lm, "\\data\\\nngram 1=2\n\n\\1-grams:\n-1.0 a\nno number here\n\\end\\\n").expect("written");
    let broken = ran(program("transcribe").arg("--lm").arg(&lm).arg(asset("digits.wav")));
    assert!(broken.code == Some(1) && broken.err.contains("digits.lm"), "{}", broken.err);
}

#[test]
fn doctor_says_what_there_is() {
    let doctor = ran(&mut program("doctor"));
    assert_eq!(doctor.code, Some(0), "{}", doctor.err);
    for word in ["processor", "cuda", "models/base", "omni router", "FLAC", "SPHERE"] {
        assert!(doctor.out.contains(word), "{word}: {}", doctor.out);
    }
    assert!(doctor.out.lines().count() <= 25, "one screen");
    let without = ran(program("doctor").args(["--model", "/nowhere"]));
    assert!(without.code == Some(1) && without.out.contains("cannot be used"), "{}", without.out);
}
