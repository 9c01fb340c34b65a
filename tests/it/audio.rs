//! Audio in: every file of the audio oracles, special files, pipes, and the resampler against its limits.

use std::f64::consts::TAU;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use omniscribe::audio::{Limits, Reader, Resampler, Waveform, decode, read, read_at, resample};
use omniscribe::units::SampleRate;
use omniscribe::{Error, Result};
use proptest::prelude::*;
use serde_json::Value;

use crate::oracle;

/// Longest time any file may take, in seconds (the oracles' README).
const MOST_SECONDS: f64 = 5.0;
/// Most memory a process that reads every malformed file may take at its peak (the oracles' README).
const MOST_KILOBYTES: u64 = 512 << 10;

/// Where every sample lies; NaN lies nowhere.
const FULL_SCALE: std::ops::RangeInclusive<f32> = -1.0..=1.0;

/// The rows of a list of audio files, each with its path.
fn files(list: &Value) -> Vec<(String, PathBuf, Value)> {
    let rows = list.as_array().expect("a list of files");
    assert!(!rows.is_empty());
    let name = |row: &Value| row["file"].as_str().expect("file").to_string();
    rows.iter().map(|row| (name(row), oracle::find(&format!("08_audio/{}", name(row))), row.clone())).collect()
}

/// Largest correlation of `ours` with `golden` over all lags up to `max_lag`, and its lag.
fn best_correlation(ours: &[f32], golden: &[f32], max_lag: i64) -> (f64, i64) {
    let at = |lag: i64| {
        let (a, b) =
            if lag >= 0 { (ours.get(lag as usize..).unwrap_or(&[]), golden) } else { (ours, golden.get(-lag as usize..).unwrap_or(&[])) };
        let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
        for (&x, &y) in a.iter().zip(b) {
            let (x, y) = (f64::from(x), f64::from(y));
            (ab, aa, bb) = (ab + x * y, aa + x * x, bb + y * y);
        }
        (ab / (aa * bb).sqrt().max(1e-12), lag)
    };
    (-max_lag..=max_lag).map(at).fold((-2.0, 0), |best, new| if new.0 > best.0 { new } else { best })
}

#[test]
fn oracle_valid_audio_is_read_right() {
    let list = oracle::json("08_audio/valid.json");
    let mut wrong = Vec::new();
    for (name, path, row) in files(&list) {
        let required = row["level"] == "required";
        let wave = match read_at(&path, SampleRate::HZ_16000, &Limits::default()) {
            Ok(wave) => wave,
            Err(Error::UnsupportedAudio { reason, .. }) if !required => {
                println!("optional {name}: unsupported: {reason}");
                continue;
            }
            Err(e) => {
                wrong.push(format!("{name}: {e}"));
                continue;
            }
        };
        let reference = row["reference"].as_str().expect("reference");
        let golden = read(&oracle::find(&format!("08_audio/{reference}")), &Limits::default()).expect("reference wave");
        assert_eq!(golden.sample_rate, SampleRate::HZ_16000);
        let max_lag = row["accept_max_abs_lag_16k"].as_i64().expect("lag");
        let (correlation, lag) = best_correlation(&wave.samples, &golden.samples, max_lag);
        let length = wave.samples.len() as u64;
        let bounds = [row["accept_len_16k"][0].as_u64().expect("length"), row["accept_len_16k"][1].as_u64().expect("length")];
        println!("{name}: {length} samples, correlation {correlation:.5} at lag {lag}");
        if length < bounds[0] || length > bounds[1] {
            wrong.push(format!("{name}: {length} samples, expected {bounds:?}"));
        }
        let least = row["accept_min_correlation"].as_f64().expect("correlation");
        if correlation < least {
            wrong.push(format!("{name}: correlation {correlation:.5} at lag {lag}, expected {least}"));
        }
        if let Some(x) = wave.samples.iter().find(|x| !FULL_SCALE.contains(*x)) {
            wrong.push(format!("{name}: sample {x}"));
        }
    }
    assert!(wrong.is_empty(), "{} files read wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Peak memory of this process so far, in kilobytes.
#[cfg(target_os = "linux")]
fn peak_kilobytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc/self/status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// What became of a file, against its class of expected outcomes (`error_or_empty`, ...).
fn judge(expect: &str, name: &str, outcome: &Result<Waveform>) -> Option<String> {
    let may = |words: &[&str]| expect.split("_or_").any(|e| words.contains(&e));
    match outcome {
        Ok(wave) => {
            let bad = wave.samples.iter().find(|x| !FULL_SCALE.contains(*x));
            let allowed = may(&["ok", "partial", "sanitised", "bounded"]) || wave.samples.is_empty() && may(&["empty"]);
            match bad {
                Some(x) => Some(format!("{name}: sample {x}")),
                None if !allowed => Some(format!("{name}: read {} samples, expected {expect}", wave.samples.len())),
                None => None,
            }
        }
        Err(e) => {
            let text = e.to_string();
            let clear = text.contains(name.rsplit('/').next().unwrap_or(name)) && !text.contains('\n');
            (!may(&["error"]) || !clear).then(|| format!("{name}: {text}, expected {expect}"))
        }
    }
}

#[test]
fn oracle_malformed_audio_is_refused_in_time() {
    let list = oracle::json("08_audio/malformed.json");
    let mut wrong = Vec::new();
    for (name, path, row) in files(&list["files"]) {
        let since = Instant::now();
        let mut warnings = Vec::new();
        let outcome = Reader::open(&path, &Limits::default()).and_then(|mut reader| {
            let wave = reader.read_to_end_at(SampleRate::HZ_16000);
            warnings = reader.warnings();
            wave
        });
        let seconds = since.elapsed().as_secs_f64();
        let expect = row["expect"].as_str().expect("expect");
        match &outcome {
            Ok(wave) => println!("{name} ({expect}, {seconds:.3} s): {} samples {warnings:?}", wave.samples.len()),
            Err(e) => println!("{name} ({expect}, {seconds:.3} s): {e}"),
        }
        wrong.extend(judge(expect, &name, &outcome));
        if seconds > MOST_SECONDS {
            wrong.push(format!("{name}: took {seconds:.1} s"));
        }
    }
    #[cfg(target_os = "linux")]
    println!("peak_kilobytes {}", peak_kilobytes());
    assert!(wrong.is_empty(), "{} files:\n{}", wrong.len(), wrong.join("\n"));
}

/// This test binary again, running one test alone.
fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the test binary"));
    let path = module_path!().split_once("::").map_or(module_path!(), |(_, inner)| inner);
    command.args(["--exact", &format!("{path}::{test}"), "--nocapture", "--include-ignored"]);
    command
}

/// Reads every malformed file in a process of its own and looks at what that process took.
#[test]
#[cfg(target_os = "linux")]
fn oracle_malformed_audio_stays_in_memory_and_is_quiet() {
    let output = child("oracle_malformed_audio_is_refused_in_time").output().expect("child process");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let peak = text.lines().find_map(|line| line.split_once("peak_kilobytes ")).expect("peak_kilobytes").1;
    let peak: u64 = peak.trim().parse().expect("a number");
    println!("peak {peak} kB");
    assert!(peak < MOST_KILOBYTES, "{peak} kB");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A 16-bit WAV file of a quiet tone.
fn tone_wav(path: &Path) {
    let samples = (0..8_000).map(|i| 0.3 * (i as f32 * 0.1).sin()).collect();
    let wave = Waveform { samples, sample_rate: SampleRate(8_000) };
    omniscribe::audio::write_wav(path, &wave, omniscribe::audio::WavFormat::Int16).expect("write");
}

#[cfg(unix)]
fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
}

/// Builds each kind of special file the oracles list, by the words of its description.
#[cfg(unix)]
fn make_special(kind: &str, folder: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let wav = folder.join("good.wav");
    tone_wav(&wav);
    let has = |word: &str| kind.contains(word);
    Some(if has("directory") {
        let path = folder.join("x.wav");
        std::fs::create_dir(&path).expect("folder");
        path
    } else if has("no writer") {
        let path = folder.join("silent.fifo");
        make_fifo(&path);
        path
    } else if has("fifo fed") {
        let path = folder.join("fed.fifo");
        make_fifo(&path);
        let (to, bytes) = (path.clone(), std::fs::read(&wav).expect("wav"));
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            let mut pipe = std::fs::File::options().write(true).open(to).expect("open fifo");
            for part in bytes.chunks(5_000) {
                pipe.write_all(part).expect("write fifo");
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        path
    } else if has("loop") {
        symlink(folder.join("b"), folder.join("a")).expect("link");
        symlink(folder.join("a"), folder.join("b")).expect("link");
        folder.join("a")
    } else if has("dangling") {
        symlink(folder.join("nothing"), folder.join("dangling.wav")).expect("link");
        folder.join("dangling.wav")
    } else if has("symbolic link to a valid") {
        symlink(&wav, folder.join("link.wav")).expect("link");
        folder.join("link.wav")
    } else if has("permission") {
        std::fs::set_permissions(&wav, std::fs::Permissions::from_mode(0o000)).expect("permissions");
        if std::fs::File::open(&wav).is_ok() {
            println!("{kind}: this user reads everything");
            return None;
        }
        wav
    } else if has("/dev/null") {
        "/dev/null".into()
    } else if has("/dev/zero") {
        "/dev/zero".into()
    } else if has("newline") {
        let path = folder.join("two\nlines.wav");
        tone_wav(&path);
        path
    } else if has("sparse") {
        let path = folder.join("sparse.wav");
        std::fs::File::create(&path).and_then(|f| f.set_len(3 << 30)).expect("sparse file");
        path
    } else if has("non-existing") {
        folder.join("nothing.wav")
    } else if has("empty path") {
        PathBuf::new()
    } else {
        panic!("a kind of special file this test does not know: {kind}")
    })
}

#[test]
#[cfg(unix)]
fn oracle_special_files() {
    let list = oracle::json("08_audio/malformed.json");
    let kinds = list["special_files_to_create_at_test_time"].as_array().expect("special files");
    assert!(!kinds.is_empty());
    for row in kinds {
        let (kind, expect) = (row["kind"].as_str().expect("kind"), row["expect"].as_str().expect("expect"));
        let folder = tempfile::tempdir().expect("folder");
        let Some(path) = make_special(kind, folder.path()) else { continue };
        let since = Instant::now();
        let outcome = read(&path, &Limits::default());
        let seconds = since.elapsed().as_secs_f64();
        println!("{kind} ({expect}): {seconds:.2} s, {:?}", outcome.as_ref().map(|w| w.samples.len()).map_err(ToString::to_string));
        assert!(seconds < MOST_SECONDS, "{kind}: {seconds:.1} s");
        if expect.starts_with("ok") {
            assert_eq!(outcome.unwrap_or_else(|e| panic!("{kind}: {e}")).samples.len(), 8_000, "{kind}");
        } else {
            assert!(outcome.is_err(), "{kind}");
        }
    }
}

/// Which file the child of [`oracle_standard_input_reads_like_a_file`] finds on its standard input.
const STDIN_FILE: &str = "OMNISCRIBE_TEST_STDIN";

/// Every container through a pipe on standard input (the test runs itself with one).
#[test]
fn oracle_standard_input_reads_like_a_file() {
    if let Some(path) = std::env::var_os(STDIN_FILE) {
        let piped = read(Path::new("-"), &Limits::default()).expect("standard input");
        assert_eq!(piped, read(Path::new(&path), &Limits::default()).expect("file"));
        return;
    }
    let list = oracle::json("08_audio/valid.json");
    let mut seen = std::collections::BTreeSet::new();
    for (name, path, row) in files(&list) {
        if row["level"] != "required" || !seen.insert(row["container"].to_string()) {
            continue;
        }
        let mut command = child("oracle_standard_input_reads_like_a_file");
        let mut process =
            command.env(STDIN_FILE, &path).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("child");
        let bytes = std::fs::read(&path).expect("file");
        process.stdin.take().expect("pipe").write_all(&bytes).expect("write to the child");
        let output = process.wait_with_output().expect("child");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(seen.len() > 1);
}

#[test]
fn oracle_blocks_add_up_to_the_whole() {
    let list = oracle::json("08_audio/valid.json");
    for (name, path, _) in files(&list).into_iter().filter(|(_, _, row)| row["level"] == "required") {
        let mut bytes = Vec::new();
        std::fs::File::open(&path).and_then(|mut f| f.read_to_end(&mut bytes)).expect("file");
        let mut reader = Reader::from_bytes(Path::new(&name), bytes.clone(), &Limits::default()).expect("open");
        let mut samples = Vec::new();
        while let Some(block) = reader.next_block().expect("block") {
            assert!(!block.is_empty());
            samples.extend_from_slice(block);
        }
        assert!(reader.next_block().expect("end").is_none());
        let whole = decode(Path::new(&name), bytes, &Limits::default()).expect("decode");
        assert_eq!(whole, Waveform { samples, sample_rate: reader.sample_rate() }, "{name}");
        assert_eq!(reader.warnings(), Vec::<String>::new(), "{name}");
    }
}

/// A tone of amplitude 1/2.
fn tone(rate: f64, hz: f64, n: usize) -> Vec<f32> {
    (0..n).map(|i| (0.5 * (TAU * hz * i as f64 / rate).sin()) as f32).collect()
}

/// Least-squares fit of a tone to the inner part of `wave`: (gain against 1/2 in dB, delay in samples, residual in dB).
fn fit_tone(wave: &[f32], rate: f64, hz: f64) -> (f64, f64, f64) {
    let inner = wave.len() / 4..wave.len() * 3 / 4;
    let (mut ss, mut sc, mut cc, mut ys, mut yc) = (0.0, 0.0, 0.0, 0.0, 0.0);
    let basis = |i: usize| (TAU * hz * i as f64 / rate).sin_cos();
    for i in inner.clone() {
        let ((s, c), y) = (basis(i), f64::from(wave[i]));
        (ss, sc, cc, ys, yc) = (ss + s * s, sc + s * c, cc + c * c, ys + y * s, yc + y * c);
    }
    let determinant = ss * cc - sc * sc;
    let (a, b) = ((ys * cc - yc * sc) / determinant, (yc * ss - ys * sc) / determinant);
    let residual: f64 = inner.clone().map(|i| (f64::from(wave[i]) - a * basis(i).0 - b * basis(i).1).powi(2)).sum();
    let decibels = |amplitude: f64| 20.0 * (amplitude / 0.5).max(1e-12).log10();
    (decibels(a.hypot(b)), -b.atan2(a) / (TAU * hz / rate), decibels((2.0 * residual / inner.len() as f64).sqrt()))
}

/// Limits of the oracles' README for a resampler to 16 kHz, from rates where they hold (22.05 kHz and up).
#[test]
fn oracle_resampler_meets_its_limits() {
    const STATED_FROM: u32 = 22_050;
    let report = oracle::json("01_features/resample_report.json");
    let mut wrong = Vec::new();
    for (rate, row) in report.as_object().expect("rates") {
        let rate: u32 = rate.parse().expect("a rate");
        let tone_at = |hz: f64| {
            let input = tone(rate.into(), hz, rate as usize);
            let out = resample(&input, SampleRate(rate), SampleRate::HZ_16000).expect("resample");
            assert!(out.len().abs_diff((input.len() * 16_000).div_ceil(rate as usize)) <= 1);
            out
        };
        let frequencies = |key: &str| -> Vec<f64> {
            let methods = row[key].as_object().expect("methods");
            let mut all: Vec<f64> =
                methods.values().flat_map(|m| m.as_object().expect("tones").keys()).map(|k| k.parse().expect("Hz")).collect();
            all.sort_by(f64::total_cmp);
            all.dedup();
            all
        };
        // The same shares of the band below the stated rates, where the input's own Nyquist frequency is the lower.
        let band = f64::from(rate.min(16_000)) / 2.0;
        for hz in frequencies("passband_gain_db") {
            let (gain, delay, residual) = fit_tone(&tone_at(hz), 16_000.0, hz);
            println!("{rate} Hz, tone {hz}: gain {gain:.4} dB, delay {delay:.5}, residual {residual:.1} dB");
            let flat = hz <= band * 7_000.0 / 8_000.0;
            let least = if hz <= band * 7_400.0 / 8_000.0 { -3.5 } else { f64::NEG_INFINITY };
            if (flat && gain.abs() > 0.1) || gain < least || gain > 0.1 {
                wrong.push(format!("{rate} Hz: gain {gain:.3} dB at {hz} Hz"));
            }
            if flat && (delay.abs() > 0.05 || residual > -70.0) {
                wrong.push(format!("{rate} Hz: delay {delay:.3} samples, residual {residual:.1} dB at {hz} Hz"));
            }
        }
        for hz in frequencies("alias_level_db").into_iter().filter(|_| rate >= STATED_FROM) {
            let out = tone_at(hz);
            let inner = &out[out.len() / 4..out.len() * 3 / 4];
            let power: f64 = inner.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / inner.len() as f64;
            let level = 10.0 * (power / 0.125).max(1e-24).log10();
            println!("{rate} Hz, tone {hz}: alias {level:.1} dB");
            let most = if hz >= 9_000.0 {
                -60.0
            } else if hz >= 8_400.0 {
                -40.0
            } else {
                f64::INFINITY
            };
            if level > most {
                wrong.push(format!("{rate} Hz: alias of {hz} Hz at {level:.1} dB"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Signal-to-noise ratio wanted against the analytic signal, away from the clip's edges, in dB: f32 arithmetic with a margin
/// (the packages of the report reach 72 to 134 dB).
const LEAST_SNR: f64 = 70.0;

#[test]
fn oracle_resampler_matches_the_ideal_signal() {
    let golden = oracle::tensors("01_features/resample.safetensors");
    let rates: Vec<u32> = golden.keys().filter_map(|k| k.strip_suffix("/in/multitone")?.parse().ok()).collect();
    assert!(!rates.is_empty());
    for rate in rates {
        let (input, ideal) = (&golden[&format!("{rate}/in/multitone")], &golden[&format!("{rate}/ideal/multitone")]);
        let out = resample(&input.f32(), SampleRate(rate), SampleRate::HZ_16000).expect("resample");
        assert!(out.len().abs_diff(ideal.values.len()) <= 1, "{rate} Hz: {} samples", out.len());
        // Half a filter at both ends hears the edge of the clip.
        let inner = 400..ideal.values.len() - 400;
        let noise: f64 = inner.clone().map(|i| (f64::from(out[i]) - ideal.values[i]).powi(2)).sum();
        let power: f64 = inner.map(|i| ideal.values[i].powi(2)).sum();
        let snr = 10.0 * (power / noise).log10();
        println!("{rate} Hz: {snr:.1} dB");
        assert!(snr > LEAST_SNR, "{rate} Hz: {snr:.1} dB");
    }
}

#[test]
fn a_stream_resampled_in_steps_is_the_whole_clip() {
    let input = tone(44_100.0, 997.0, 50_000);
    let whole = resample(&input, SampleRate(44_100), SampleRate::HZ_16000).expect("resample");
    let mut resampler = Resampler::new(SampleRate(44_100), SampleRate::HZ_16000).expect("resampler");
    let mut out = Vec::new();
    input.chunks(777).for_each(|part| resampler.step(part, &mut out));
    resampler.flush(&mut out);
    assert_eq!(out, whole);
}

/// The valid files to damage: one for each container and codec.
fn kinds_of_files() -> Vec<(String, Vec<u8>)> {
    let list = oracle::json("08_audio/valid.json");
    let mut seen = std::collections::BTreeSet::new();
    let all = files(&list).into_iter().filter(|(_, _, row)| seen.insert(format!("{}{}", row["container"], row["codec"])));
    all.map(|(name, path, _)| (name, std::fs::read(path).expect("file"))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn oracle_damaged_files_never_panic(
        pick in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..30),
        keep in 0.3f64..1.5,
    ) {
        static FILES: std::sync::LazyLock<Vec<(String, Vec<u8>)>> = std::sync::LazyLock::new(kinds_of_files);
        let (name, bytes) = pick.get(&FILES);
        let mut bytes = bytes.clone();
        for (at, value) in flips {
            *at.get_mut(&mut bytes) = value;
        }
        bytes.truncate((bytes.len() as f64 * keep) as usize);
        if let Ok(wave) = decode(Path::new(name), bytes, &Limits { seconds: 60.0, ..Limits::default() }) {
            prop_assert!(wave.samples.iter().all(|x| FULL_SCALE.contains(x)));
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000), name in prop::sample::select(vec!["x.mp3", "x.wav"])) {
        if let Ok(wave) = decode(Path::new(name), bytes, &Limits::default()) {
            prop_assert!(wave.samples.iter().all(|x| FULL_SCALE.contains(x)));
        }
    }
}

/// Opus is decoded at 16 kHz at once where that is wanted: no further from what was encoded than by way of 48 kHz, and no later.
#[test]
fn oracle_opus_at_16_khz_is_no_worse_than_by_way_of_48() {
    let list = oracle::json("08_audio/valid.json");
    let mut heard = 0;
    for (name, path, row) in files(&list) {
        if !name.contains("opus") {
            continue;
        }
        let limits = Limits::default();
        let mut reader = Reader::open(&path, &limits).expect("Opus");
        assert_eq!(reader.sample_rate(), SampleRate(48_000), "{name}");
        let resampled = reader.read_to_end_at(SampleRate::HZ_16000).expect("Opus").samples;
        let at_once = read_at(&path, SampleRate::HZ_16000, &limits).expect("Opus").samples;
        assert!(resampled.len().abs_diff(at_once.len()) <= 1, "{name}: {} and {} samples", resampled.len(), at_once.len());
        let golden =
            read(&oracle::find(&format!("08_audio/{}", row["reference"].as_str().expect("reference"))), &limits).expect("reference wave");
        let ((by_48, _), (direct, lag)) =
            (best_correlation(&resampled, &golden.samples, 8), best_correlation(&at_once, &golden.samples, 8));
        println!("{name}: correlation {direct:.5} at lag {lag}, by way of 48 kHz {by_48:.5}");
        assert!(lag == 0 && direct > by_48 - 1e-3, "{name}: correlation {direct:.5} at lag {lag}, by way of 48 kHz {by_48:.5}");
        heard += 1;
    }
    assert!(heard > 0, "no Opus among the oracles");
}
