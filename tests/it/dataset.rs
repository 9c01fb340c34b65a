//! Training data end to end: manifest -> cache -> plan -> augmentation -> loader; reproducible whatever the threads, and no dead knob.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use omniscribe::dataset::augment::SpeedKind;
use omniscribe::dataset::augment::speed::SpeedConfig;
use omniscribe::dataset::bucket::{Item, ctc_steps};
use omniscribe::dataset::corpus::CachedClips;
use omniscribe::dataset::rng::Rng;
use omniscribe::dataset::spec_augment;
use omniscribe::dataset::*;
use omniscribe::{Error, Result};
use proptest::prelude::*;
use serde_json::Value;

/// A file of `n` lines is n / 10 seconds of a tone, `bad` does not decode, `panic` breaks the decoder, `empty` holds nothing.
fn decode(path: &Path) -> Result<Vec<f32>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    match text.trim() {
        "bad" => Err(Error::CorruptAudio { path: path.into(), at: None, reason: "planted".into() }),
        "panic" => panic!("planted"),
        "empty" => Ok(Vec::new()),
        text => {
            let (hz, tenths) = text.split_once(' ').expect("frequency, tenths of a second");
            let (hz, tenths): (f32, usize) = (hz.parse().expect("Hz"), tenths.parse().expect("tenths"));
            Ok((0..tenths * 1600).map(|n| 0.4 * (std::f32::consts::TAU * hz * n as f32 / 16_000.0).sin()).collect())
        }
    }
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("write");
    path
}

/// Files `0.a` .. of different lengths and a manifest of them.
fn small_corpus(folder: &Path, files: usize) -> PathBuf {
    let mut lines = String::new();
    for i in 0..files {
        write(folder, &format!("{i}.a"), &format!("{} {}", 200 + 37 * i, 5 + i * 7 % 30));
        let (seconds, set) = (0.5 + 0.1 * (i * 7 % 30) as f64, ["x", "y", "z"][i % 3]);
        lines += &format!("{{\"audio_filepath\":\"{i}.a\",\"duration\":{seconds:.3},\"text\":\"ab{i}\",\"set\":\"{set}\"}}\n");
    }
    write(folder, "train.jsonl", &lines)
}

fn source(path: &Path) -> SourceConfig {
    SourceConfig { path: path.into(), weight: 1.0, set_weights: Default::default() }
}

fn no_progress(_: Progress) {}

#[test]
fn corpus_weights_filters_and_reports() {
    let folder = tempfile::tempdir().expect("folder");
    let path = write(
        folder.path(),
        "m.jsonl",
        "{\"audio_filepath\":\"a\",\"duration\":1,\"text\":\"x\",\"set\":\"s\"}\n\
        {\"audio_filepath\":\"b\",\"duration\":2,\"text\":\" \",\"set\":\"s\"}\n{\"audio_filepath\":\"c\",\"duration\":0.05,\"text\":\"x\",\"set\":\"s\"}\n\
        {\"audio_filepath\":\"d\",\"duration\":99,\"text\":\"x\",\"set\":\"s\"}\n{\"audio_filepath\":\"e\",\"duration\":4,\"text\":\"x\",\"set\":\"t\"}\n\
        {\"audio_filepath\":\"f\",\"duration\":8,\"text\":\"x\",\"set\":\"u\"}\n",
    );
    let mut source = SourceConfig { weight: 2.0, ..source(&path) };
    source.set_weights.extend([("t".to_string(), 0.0), ("u".to_string(), 0.25)]);
    let corpus = Corpus::load(&[source.clone()], &FilterConfig::default()).expect("corpus");
    let report = corpus.report();
    assert_eq!(corpus.utterances.iter().map(|u| (u.entry.line, u.weight)).collect::<Vec<_>>(), [(1, 2.0), (6, 0.5)]);
    assert_eq!((report.kept.utterances, report.kept.seconds), (2, 9.0));
    assert_eq!((report.weighted_seconds["s"], report.weighted_seconds["u"]), (2.0, 4.0));
    let dropped: Vec<_> = report.dropped.iter().map(|(reason, tally)| (*reason, tally.utterances, tally.seconds)).collect();
    use DropReason::{EmptyText, Excluded, TooLong, TooShort};
    assert_eq!(dropped, [(TooShort, 1, 0.05), (TooLong, 1, 99.0), (Excluded, 1, 4.0), (EmptyText, 1, 2.0)]);
    assert!(report.to_string().contains("dropped TooLong"), "{report}");
    assert_eq!(serde_json::to_value(&report).expect("serialises")["dropped"]["too_long"]["utterances"], 1);

    source.set_weights.insert("nowhere".into(), 1.0);
    let error = Corpus::load(&[source.clone()], &FilterConfig::default()).expect_err("unknown set").to_string();
    assert!(error.contains("m.jsonl") && error.contains("nowhere"), "{error}");
    source.set_weights = [("s".to_string(), -1.0)].into();
    assert!(Corpus::load(&[source], &FilterConfig::default()).is_err());
}

#[test]
fn cache_decodes_once_and_reports_bad_files() {
    let folder = tempfile::tempdir().expect("folder");
    let manifest = small_corpus(folder.path(), 12);
    let mut corpus = Corpus::load(&[source(&manifest)], &FilterConfig::default()).expect("corpus");
    let (bad, panics, empty) =
        (write(folder.path(), "3.a", "bad"), write(folder.path(), "5.a", "panic"), write(folder.path(), "7.a", "empty"));
    std::fs::remove_file(folder.path().join("8.a")).expect("remove");
    let count = AtomicUsize::new(0);
    let counting = |path: &Path| {
        count.fetch_add(1, Ordering::Relaxed);
        decode(path)
    };
    let at = folder.path().join("sub/audio.pcm");
    let mut last = None;
    let (cache, report) = PcmCache::build(&at, &corpus.audio_files(), 3, &counting, &mut |p| last = Some(p)).expect("build");
    assert_eq!((report.reused, report.decoded, report.changed, cache.len()), (0, 8, 0, 8));
    let failed: Vec<_> = report.failed.iter().map(|(path, _)| path.clone()).collect();
    assert_eq!(failed, [bad.clone(), panics, empty, folder.path().join("8.a")]);
    assert!(report.failed[0].1.contains("planted") && report.failed[1].1.contains("panicked") && report.failed[2].1.contains("no audio"));
    assert_eq!(last.map(|p| (p.done, p.total, p.failed)), Some((12, 12, 4)));

    let clips = corpus.locate(&cache);
    assert_eq!(corpus.report().dropped[&DropReason::Unreadable].utterances, 4);
    let mut got = Vec::new();
    for (utterance, clip) in corpus.utterances.iter().zip(&clips) {
        cache.read(&clip.audio, clip.samples.clone(), &mut got).expect("read");
        let expected = decode(&utterance.entry.audio).expect("decode");
        assert_eq!(got.len(), expected.len());
        // Half a step of 16 bits.
        assert!(got.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 0.5 / 32_768.0 + 1e-7));
    }
    cache.read(&clips[0].audio, 100..110, &mut got).expect("part");
    assert_eq!(got.len(), 10);
    assert!(cache.read(Path::new("stranger"), 0..1, &mut got).is_err());

    // Again: only the failures are tried; a repaired file gets in, a changed one is replaced, a touched one is kept.
    count.store(0, Ordering::Relaxed);
    write(folder.path(), "3.a", "300 5");
    write(folder.path(), "0.a", "999 9");
    let touched = std::fs::File::options().write(true).open(folder.path().join("1.a")).expect("open");
    touched.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("touch");
    let (cache, report) =
        PcmCache::build(&at, &failed.iter().cloned().chain(corpus.audio_files()).collect::<Vec<_>>(), 2, &counting, &mut no_progress)
            .expect("build");
    assert_eq!((report.reused, report.decoded, report.changed, report.failed.len()), (7, 2, 1, 3));
    assert_eq!(count.load(Ordering::Relaxed), 4, "3.a, 5.a, 7.a and 0.a; 8.a is not there to be decoded");
    assert_eq!((cache.samples(&bad), cache.samples(&folder.path().join("0.a"))), (Some(8000), Some(14_400)));
    drop(cache);
    let cache = PcmCache::open(&at).expect("open");
    cache.read(&folder.path().join("0.a"), 0..usize::MAX, &mut got).expect("read");
    assert_eq!(got.len(), 14_400);
}

#[test]
fn cache_survives_kills_and_notices_damage() {
    let folder = tempfile::tempdir().expect("folder");
    let corpus = Corpus::load(&[source(&small_corpus(folder.path(), 6))], &FilterConfig::default()).expect("corpus");
    let files = corpus.audio_files();
    let at = folder.path().join("audio.pcm");
    let build = |files: &[PathBuf]| PcmCache::build(&at, files, 1, &decode, &mut no_progress);
    build(&files[..4]).expect("build");
    let whole = std::fs::read(&at).expect("bytes");

    // Killed while appending: a tail no index names.
    std::fs::write(&at, [&whole[..], &[7; 1001]].concat()).expect("write");
    let (cache, report) = build(&files).expect("build");
    assert_eq!((report.reused, report.decoded, cache.len()), (4, 2, 6));
    let mut got = Vec::new();
    for file in &files {
        cache.read(file, 0..usize::MAX, &mut got).expect("read");
        assert_eq!(got.len(), decode(file).expect("decode").len());
    }
    // Cut short: what is gone is decoded again.
    let whole = std::fs::read(&at).expect("bytes");
    std::fs::write(&at, &whole[..whole.len() - 10]).expect("write");
    assert_eq!(build(&files).expect("build").1.decoded, 1);
    // No index, or one of another cache: everything again.
    std::fs::remove_file(folder.path().join("audio.pcm.json")).expect("remove");
    assert!(PcmCache::open(&at).is_err());
    assert_eq!(build(&files).expect("build").1.decoded, 6);
    let mut bytes = std::fs::read(&at).expect("bytes");
    bytes[9] ^= 1;
    std::fs::write(&at, &bytes).expect("write");
    assert_eq!(build(&files).expect("build").1.decoded, 6);
    // A flipped bit in the samples.
    let mut bytes = std::fs::read(&at).expect("bytes");
    bytes[1000] ^= 1;
    std::fs::write(&at, &bytes).expect("write");
    let cache = PcmCache::open(&at).expect("open");
    let damaged = files.iter().filter(|file| matches!(cache.read(file, 0..usize::MAX, &mut got), Err(Error::CorruptAudio { .. }))).count();
    assert_eq!(damaged, 1);
    // Somebody else is at it: an error when there is work to do, nothing otherwise.
    drop(cache);
    std::fs::remove_file(folder.path().join("audio.pcm.json")).expect("remove");
    let busy = std::fs::File::open(&at).expect("open");
    busy.lock().expect("lock");
    let error = build(&files).expect_err("locked").to_string();
    assert!(error.contains("another process"), "{error}");
    busy.unlock().expect("unlock");
    build(&files).expect("build");
    busy.lock().expect("lock");
    assert_eq!(build(&files).expect("nothing to do").1.reused, 6);
    // Not a cache.
    let other = write(folder.path(), "notes.txt", "do not overwrite me, I am sixteen bytes or more");
    assert!(matches!(PcmCache::build(&other, &files, 1, &decode, &mut no_progress), Err(Error::Config { .. })));
    assert!(std::fs::read_to_string(&other).expect("text").starts_with("do not"));
}

#[test]
fn clips_follow_offsets_and_short_files_are_dropped() {
    let folder = tempfile::tempdir().expect("folder");
    write(folder.path(), "a", "300 50");
    let line = |more: &str| format!("{{\"audio_filepath\":\"a\",\"text\":\"x\",{more}}}\n");
    let text = [
        line("\"duration\":5.02"),
        line("\"duration\":1.5,\"offset\":2"),
        line("\"duration\":4.9"),
        line("\"duration\":2"),
        line("\"duration\":2,\"offset\":4"),
        line("\"duration\":3,\"offset\":60"),
    ]
    .concat();
    let mut corpus = Corpus::load(&[source(&write(folder.path(), "m.jsonl", &text))], &FilterConfig::default()).expect("corpus");
    assert_eq!(corpus.audio_files().len(), 1);
    let (cache, _) = PcmCache::build(&folder.path().join("c"), &corpus.audio_files(), 1, &decode, &mut no_progress).expect("build");
    let clips = corpus.locate(&cache);
    assert_eq!(clips.iter().map(|c| c.samples.clone()).collect::<Vec<_>>(), [0..80_000, 32_000..56_000, 0..80_000, 0..32_000]);
    assert_eq!(corpus.report().dropped[&DropReason::AudioTooShort].utterances, 2);
    let clips = CachedClips::new(Arc::new(cache), clips);
    let mut got = Vec::new();
    augment::Clips::read(&clips, 1, 23_990..30_000, &mut got).expect("read");
    assert_eq!(got.len(), 10, "never past the clip");
}

fn frames_of(samples: usize) -> usize {
    samples / 160 + 1
}

fn steps_of(frames: usize) -> usize {
    frames.div_ceil(4)
}

fn items(count: usize) -> Vec<Item> {
    (0..count).map(|i| Item { samples: 4000 + i * 7919 % 90_000, min_steps: 5, weight: [1.0, 0.3, 2.5][i % 3], group: 0 }).collect()
}

fn planner(config: BucketConfig, speed: SpeedConfig, seed: u64, items: Vec<Item>) -> Planner {
    Planner::new(config, speed, seed, items, frames_of, steps_of).expect("planner")
}

fn some_speed() -> SpeedConfig {
    SpeedConfig { probability: 0.7, factor: [0.8, 1.2], kind: SpeedKind::Resample }
}

#[test]
fn plans_depend_on_seed_and_epoch_alone_and_resume_anywhere() {
    let plan = |seed| Arc::new(planner(BucketConfig::default(), some_speed(), seed, items(500)));
    let a = plan(1);
    let epoch_2 = a.epoch(2);
    assert_eq!(plan(1).epoch(2), epoch_2);
    assert_ne!(plan(2).epoch(2).batches, epoch_2.batches);
    assert_ne!(a.epoch(3).batches, epoch_2.batches);
    let from_start: Vec<_> = a.clone().batches_from(Position::default()).take(200).collect();
    for start in [0, 1, 57, 120] {
        let resumed: Vec<_> = plan(1).batches_from(from_start[start].position).take(50).collect();
        assert_eq!(resumed, from_start[start..start + 50]);
    }
    let last = a.epoch(0).batches.len();
    let next = a.clone().batches_from(Position { epoch: 0, batch: last }).next().expect("batch");
    assert_eq!(next.position, Position { epoch: 1, batch: 0 });
}

#[test]
fn weights_are_copies_on_average() {
    let plan = planner(BucketConfig::default(), SpeedConfig::default(), 3, items(300));
    let mut copies = [0_usize; 3];
    for epoch in 0..40 {
        let batches = plan.epoch(epoch).batches;
        for row in batches.iter().flat_map(|b| &b.rows) {
            copies[row.key.utterance % 3] += 1;
        }
        let names: BTreeSet<_> = batches.iter().flat_map(|b| &b.rows).map(|r| (r.key.utterance, r.key.repeat)).collect();
        assert_eq!(names.len(), batches.iter().map(|b| b.rows.len()).sum::<usize>(), "every copy has its own randomness");
    }
    let per_epoch = copies.map(|n| n as f64 / 4000.0);
    for (got, asked) in per_epoch.iter().zip([1.0, 0.3, 2.5]) {
        assert!((got - asked).abs() < 0.03, "{per_epoch:?}");
    }
}

#[test]
fn what_ctc_cannot_align_is_dropped_or_left_at_its_speed() {
    assert_eq!([ctc_steps::<u8>(&[]), ctc_steps(&[1]), ctc_steps(&[1, 1, 2, 2, 2])], [0, 1, 8]);
    let item = |samples, min_steps| Item { samples, min_steps, weight: 1.0, group: 0 };
    // 16000 samples: 101 frames, 26 steps.
    let items = vec![item(16_000, 26), item(16_000, 27), item(16_000, 20), item(0, 0)];
    for kind in [SpeedKind::Resample, SpeedKind::Frames] {
        let speed = SpeedConfig { probability: 1.0, factor: [1.2, 1.2], kind };
        let plan = planner(BucketConfig::default(), speed, 0, items.clone());
        assert_eq!(plan.unalignable(), [1]);
        let epoch = plan.epoch(0);
        let mut rows: Vec<_> = epoch.batches.iter().flat_map(|b| &b.rows).map(|r| (r.key.utterance, r.speed, r.frames)).collect();
        rows.sort_by_key(|r| r.0);
        assert_eq!(rows, [(0, 1.0, 101), (2, 1.2, 84), (3, 1.2, 1)]);
        assert_eq!(epoch.report.speed_withheld, 1);
    }
    let none = Planner::new(BucketConfig::default(), SpeedConfig::default(), 0, vec![item(160, 99)], frames_of, steps_of);
    assert!(matches!(none, Err(Error::Training { .. })));
}

proptest! {
    #[test]
    fn batches_keep_the_budget_and_lose_nobody(budget in 300..9000_usize, pad in 1..300_usize, max_rows in 1..40_usize, count in 1..200_usize, groups in 1..4_usize, seed: u64, curriculum: bool) {
        let config = BucketConfig { frames_per_batch: budget, pad_frames: pad, max_rows, curriculum_epochs: u64::from(curriculum) };
        let items: Vec<_> = items(count).into_iter().enumerate().map(|(n, i)| Item { weight: 1.0, group: n * n % groups, ..i }).collect();
        let epoch = planner(config, some_speed(), seed, items.clone()).epoch(0);
        let mut seen = BTreeSet::new();
        for (i, batch) in epoch.batches.iter().enumerate() {
            prop_assert_eq!((batch.position.batch, batch.batches), (i, epoch.batches.len()));
            prop_assert!(batch.frames % pad == 0 && !batch.rows.is_empty() && batch.rows.len() <= max_rows);
            prop_assert!(batch.rows.len() == 1 || batch.rows.len() * batch.frames <= budget);
            for row in &batch.rows {
                prop_assert_eq!(items[row.key.utterance].group, batch.group);
                prop_assert!(row.frames <= batch.frames && (0.8..=1.2).contains(&row.speed));
                prop_assert!(seen.insert(row.key.utterance));
            }
        }
        prop_assert_eq!(seen.len(), count);
        prop_assert!(!curriculum || epoch.batches.windows(2).all(|b| b[0].frames <= b[1].frames));
    }
}

#[test]
fn padding_wastes_little() {
    let items: Vec<_> = items(3000).into_iter().map(|i| Item { weight: 1.0, ..i }).collect();
    let report = planner(BucketConfig { pad_frames: 50, ..BucketConfig::default() }, some_speed(), 0, items).epoch(0).report;
    let share = report.frames as f64 / report.padded_frames as f64;
    assert!(share > 0.88, "{share}");
}

/// Every stage on, at probabilities that leave some rows without it.
fn everything() -> (AugmentConfig, SpecAugmentConfig) {
    let mut wave = AugmentConfig::default();
    wave.speed.probability = 0.8;
    (wave.reverb.probability, wave.reverb.recorded) = (0.6, 0.3);
    (wave.noise.probability, wave.noise.babble, wave.noise.recorded) = (0.7, 1.0, 1.0);
    wave.gain.probability = 0.7;
    wave.clipping.probability = 0.4;
    wave.telephone.probability = 0.4;
    wave.codec.probability = 0.6;
    let features = SpecAugmentConfig {
        freq_masks: 2,
        freq_mask_mels: 3,
        time_mask_frames: 12,
        time_mask_share: 0.5,
        time_masks: 3,
        frames_per_time_mask: 10,
        warp_probability: 0.5,
        noise_probability: 0.3,
        ..SpecAugmentConfig::default()
    };
    (wave, features)
}

fn sounds() -> Sounds {
    let mut rng = Rng::new(99, &[]);
    let mut noise = |n: usize| (0..n).map(|_| 0.1 * rng.normal()).collect::<Vec<f32>>();
    let voices: Vec<_> = (0..150).map(|i| noise(3000 + 20 * i)).collect();
    let rooms = vec![vec![0.0, 1.0, 0.3, -0.2], noise(500)];
    Sounds { noises: Some(Arc::new(vec![noise(900), noise(20_000)])), voices: Some(Arc::new(voices)), rooms: Arc::new(rooms) }
}

/// A stand-in for the front end: frames of 160 samples, eight "mels" that are differences of their sums.
fn toy_features(samples: &[f32]) -> Vec<f32> {
    let frame = |i: usize| {
        samples[(160 * i).min(samples.len())..(160 * (i + 1)).min(samples.len())]
            .chunks(20)
            .map(|c| c.iter().sum::<f32>())
            .collect::<Vec<_>>()
    };
    (0..frames_of(samples.len()))
        .flat_map(|i| {
            let mut f = frame(i);
            f.resize(8, 0.0);
            f
        })
        .collect()
}

/// The host batch of a plan, as a trainer would build it.
fn render(plan: &BatchPlan, augmenter: &Augmenter, features: &SpecAugmentConfig, clips: &dyn augment::Clips) -> Result<Vec<Vec<f32>>> {
    let (mut samples, mut out) = (Vec::new(), Vec::new());
    plan.rows
        .iter()
        .map(|row| {
            let index = row.key.utterance;
            clips.read(index, 0..clips.samples(index), &mut samples)?;
            augmenter.apply(row, &mut samples)?;
            let mut frames = toy_features(&samples);
            if augmenter.config().speed.kind == SpeedKind::Frames {
                spec_augment::resample_frames(&frames, 8, row.speed, &mut out);
                std::mem::swap(&mut frames, &mut out);
            }
            assert_eq!(frames.len() / 8, row.frames, "the plan knows the length");
            features.apply(row.key, &mut frames, 8);
            Ok(frames)
        })
        .collect()
}

/// Everything an epoch shows: its plan, and its batches.
fn observe(wave: &AugmentConfig, features: &SpecAugmentConfig, bucket: &BucketConfig) -> Result<(Epoch, Vec<Vec<Vec<f32>>>)> {
    features.validate()?;
    let sounds = sounds();
    let clips = sounds.voices.clone().expect("voices");
    let items = (0..clips.count()).map(|i| Item { samples: clips.samples(i), min_steps: 3, weight: 1.0, group: 0 }).collect();
    let epoch = Planner::new(bucket.clone(), wave.speed.clone(), 5, items, frames_of, steps_of)?.epoch(0);
    let augmenter = Augmenter::new(wave.clone(), sounds)?;
    let rows = epoch.batches.iter().map(|plan| render(plan, &augmenter, features, clips.as_ref())).collect::<Result<_>>()?;
    Ok((epoch, rows))
}

#[test]
fn neither_threads_nor_order_change_a_row() {
    let (wave, features) = everything();
    let bucket = BucketConfig { frames_per_batch: 300, pad_frames: 10, ..BucketConfig::default() };
    let (epoch, expected) = observe(&wave, &features, &bucket).expect("epoch");
    assert!(expected.iter().flatten().flatten().all(|x| x.is_finite()));
    for threads in [1, 4] {
        let (wave, features, sounds) = (wave.clone(), features.clone(), sounds());
        let clips = sounds.voices.clone().expect("voices");
        let augmenter = Augmenter::new(wave, sounds).expect("augmenter");
        let loader =
            Loader::new(epoch.batches.clone().into_iter(), threads, 3, move |plan| render(plan, &augmenter, &features, clips.as_ref()))
                .expect("loader");
        let got: Vec<_> = loader.map(|batch| batch.expect("batch")).collect();
        assert_eq!(got, expected);
    }
    // Other batches, same rows.
    let (other_epoch, other) = observe(&wave, &features, &BucketConfig { max_rows: 3, ..bucket }).expect("epoch");
    let rows = |epoch: &Epoch, batches: &[Vec<Vec<f32>>]| {
        let names = epoch.batches.iter().flat_map(|b| b.rows.iter().map(|r| r.key.utterance)).collect::<Vec<_>>();
        let mut rows: Vec<_> = names.into_iter().zip(batches.iter().flatten().cloned()).collect();
        rows.sort_by_key(|r| r.0);
        rows
    };
    assert_eq!(rows(&epoch, &expected), rows(&other_epoch, &other));
}

/// All leaves of a JSON value by path.
fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, v)| leaves(v, &format!("{path}/{key}"), found)),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, v)| leaves(v, &format!("{path}/{i}"), found)),
        _ => found.push(path.to_string()),
    }
}

fn perturbed(leaf: &Value) -> Value {
    match leaf {
        Value::Bool(b) => Value::Bool(!b),
        Value::Number(n) if n.is_u64() => Value::from(n.as_u64().expect("u64") * 9 / 8 + 1),
        Value::Number(n) => Value::from(n.as_f64().expect("f64") * 0.75 + 0.01),
        Value::String(s) if s == "resample" => Value::from("frames"),
        Value::String(s) if s == "zero" => Value::from("mean"),
        other => panic!("no rule to perturb {other}"),
    }
}

/// Perturbs every leaf of `config`; each must change what `observe` shows, or be refused.
fn no_dead_knob<C: serde::Serialize + serde::de::DeserializeOwned>(config: &C, observe: impl Fn(&C) -> Result<u64>) -> usize {
    let value = serde_json::to_value(config).expect("serialises");
    let before = observe(config).expect("valid");
    let mut paths = Vec::new();
    leaves(&value, "", &mut paths);
    for path in &paths {
        let mut other = value.clone();
        let leaf = other.pointer_mut(path).expect("leaf");
        *leaf = perturbed(leaf);
        let shown = leaf.clone();
        let other: C = serde_json::from_value(other).unwrap_or_else(|e| panic!("{path} = {shown}: {e}"));
        assert_ne!(observe(&other).ok(), Some(before), "{path} = {shown} changes nothing");
    }
    paths.len()
}

fn digest(of: &(Epoch, Vec<Vec<Vec<f32>>>)) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    format!("{:?}", of.0).hash(&mut hasher);
    of.1.iter().flatten().flatten().for_each(|x| x.to_bits().hash(&mut hasher));
    hasher.finish()
}

#[test]
fn no_dead_knob_in_augmentation_or_buckets() {
    let (wave, features) = everything();
    let bucket = BucketConfig { frames_per_batch: 300, pad_frames: 1, max_rows: 11, curriculum_epochs: 0 };
    let n = no_dead_knob(&wave, |wave| Ok(digest(&observe(wave, &features, &bucket)?)));
    assert!(n > 35, "{n}");
    no_dead_knob(&features, |features| Ok(digest(&observe(&wave, features, &bucket)?)));
    no_dead_knob(&bucket, |bucket| Ok(digest(&observe(&wave, &features, bucket)?)));
}

#[test]
fn no_dead_knob_in_the_corpus() {
    let folder = tempfile::tempdir().expect("folder");
    let path = small_corpus(folder.path(), 40);
    let more = "{\"audio_filepath\":\"q\",\"duration\":2,\"text\":\"\"}\n{\"audio_filepath\":\"r\",\"duration\":0.09,\"text\":\"x\"}\n";
    std::fs::write(&path, std::fs::read_to_string(&path).expect("text") + more).expect("write");
    let filter = FilterConfig { max_duration: 3.3, ..FilterConfig::default() };
    let count = |f: &FilterConfig| Corpus::load(&[source(&path)], f).map(|c| c.utterances.len() as u64);
    no_dead_knob(&filter, count);
    no_dead_knob(&FilterConfig { min_duration: 1.1, ..filter }, count);
}

#[test]
fn configs_refuse_unknown_keys_and_bad_values() {
    for text in ["[noise]\nprobabilty = 0.5", "[nois]\nprobability = 0.5", "[speed]\nkind = \"fast\"", "[gain]\ndb = [1.0]"] {
        assert!(toml::from_str::<AugmentConfig>(text).is_err(), "{text}");
    }
    for text in [
        "[noise]\nprobability = 1.5",
        "[noise]\nsnr_db = [10.0, 0.0]",
        "[noise]\ncoloured = 0.0",
        "[noise]\nvoices = [0, 2]",
        "[reverb]\nrt60 = [0.0, 1.0]",
        "[codec]\nadpcm_bits = [1, 3]",
        "[codec]\nsnr_db = [nan, 1.0]",
        "[telephone]\nhigh_hz = [3000.0, 5000.0]",
        "[clipping]\nlevel = [0.0, 0.5]",
    ] {
        let config: AugmentConfig = toml::from_str(text).expect("parses");
        let error = config.validate().expect_err(text).to_string();
        assert!(error.contains(" = ") && error.contains("must"), "{error}");
    }
    let needs = |change: fn(&mut AugmentConfig)| {
        let mut config = AugmentConfig::default();
        (config.noise.probability, config.reverb.probability) = (0.5, 0.5);
        change(&mut config);
        Augmenter::new(config, Sounds::default()).err().map(|e| e.to_string()).unwrap_or_default()
    };
    assert_eq!(needs(|_| ()), "");
    assert!(needs(|c| c.noise.babble = 1.0).contains("noise.babble") && needs(|c| c.noise.recorded = 1.0).contains("noise.recorded"));
    assert!(needs(|c| c.reverb.recorded = 1.0).contains("reverb.recorded"));
}

/// Time this thread has run.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    text.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).expect("ns") * 1e-9
}

#[test]
#[ignore = "needs Linux and a quiet machine: prints the speed of augmentation, run with --nocapture"]
fn augmentation_speed() {
    let mut rng = Rng::new(0, &[]);
    let voices: Vec<Vec<f32>> = (0..200).map(|_| (0..48_000).map(|_| 0.1 * rng.normal()).collect()).collect();
    let typical = || {
        let mut wave = AugmentConfig::default();
        (wave.speed.probability, wave.gain.probability, wave.clipping.probability) = (0.7, 0.7, 0.05);
        (wave.reverb.probability, wave.noise.probability, wave.noise.babble) = (0.3, 0.5, 0.5);
        (wave.telephone.probability, wave.codec.probability) = (0.15, 0.15);
        wave
    };
    let only = |stage: &dyn Fn(&mut AugmentConfig)| {
        let mut wave = AugmentConfig::default();
        stage(&mut wave);
        wave
    };
    let cases: Vec<(&str, AugmentConfig)> = vec![
        ("typical", typical()),
        ("speed", only(&|w| w.speed.probability = 1.0)),
        ("reverb", only(&|w| w.reverb.probability = 1.0)),
        ("coloured noise", only(&|w| w.noise.probability = 1.0)),
        ("babble", only(&|w| (w.noise.probability, w.noise.coloured, w.noise.babble) = (1.0, 0.0, 1.0))),
        ("gain", only(&|w| w.gain.probability = 1.0)),
        ("telephone", only(&|w| w.telephone.probability = 1.0)),
        ("mu-law", only(&|w| (w.codec.probability, w.codec.adpcm, w.codec.transform) = (1.0, 0.0, 0.0))),
        ("adpcm", only(&|w| (w.codec.probability, w.codec.mu_law, w.codec.transform) = (1.0, 0.0, 0.0))),
        ("transform", only(&|w| (w.codec.probability, w.codec.adpcm, w.codec.mu_law) = (1.0, 0.0, 0.0))),
    ];
    for (name, wave) in cases {
        let items = voices.iter().map(|v| Item { samples: v.len(), min_steps: 1, weight: 1.0, group: 0 }).collect();
        let epoch = planner(BucketConfig::default(), wave.speed.clone(), 1, items).epoch(0);
        let augmenter = Augmenter::new(wave, Sounds { voices: Some(Arc::new(voices.clone())), ..Sounds::default() }).expect("augmenter");
        let (mut samples, mut audio) = (Vec::new(), 0.0);
        let mut cpu = f64::INFINITY;
        for _ in 0..3 {
            let start = cpu_seconds();
            audio = 0.0;
            for row in epoch.batches.iter().flat_map(|b| &b.rows) {
                samples.clone_from(&voices[row.key.utterance]);
                audio += samples.len() as f64 / 16_000.0;
                augmenter.apply(row, &mut samples).expect("apply");
            }
            cpu = cpu.min(cpu_seconds() - start);
        }
        println!("{name:>16}: {:>7.0} x real time", audio / cpu);
    }
}
