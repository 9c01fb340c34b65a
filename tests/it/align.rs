//! Forced alignment against torchaudio's golden paths, brute force, a plain trellis, and three hours of made-up speech.

use std::ops::Range;
use std::path::Path;
use std::process::Command;

use omniscribe::Result;
use omniscribe::decode::align::{Alignment, Costs, Emissions, Fit, Matrix, Options, Search, TokenSpan, align};
use omniscribe::decode::spans::{Widening, blank_column, widen};
use proptest::prelude::*;
use safetensors::SafeTensors;
use serde_json::Value;

use crate::oracle;

/// Log-probabilities of the oracles are f32 (the README's tolerance of 05_ctc_decode).
const LOG_PROB_TOLERANCE: f64 = 1e-4;
/// Mean probabilities: a log-probability off by the tolerance above moves a probability below 1 by no more.
const PROBABILITY_TOLERANCE: f64 = LOG_PROB_TOLERANCE;

fn log_softmax(logits: &[f32], vocab: usize) -> Vec<f32> {
    let rows = logits.chunks_exact(vocab).flat_map(|row| {
        let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
        row.iter().map(move |&x| (f64::from(x) - sum.ln()) as f32)
    });
    rows.collect()
}

fn numbers<T: TryFrom<u64>>(value: &Value) -> Vec<T> {
    let one = |v: &Value| T::try_from(v.as_u64().expect("a number")).ok().expect("in range");
    value.as_array().expect("a list").iter().map(one).collect()
}

fn options(blank: u32, separator: Option<u32>, fit: Fit) -> Options {
    Options { fit, ..Options::new(blank, separator) }
}

#[test]
fn oracle_forced_alignment() {
    let own = oracle::tensors("05_ctc_decode/forced_align.safetensors");
    let emissions = oracle::tensors("05_ctc_decode/emissions.safetensors");
    let labels = oracle::json("05_ctc_decode/labels.json");
    let space = labels["space_id"].as_u64().expect("space_id") as u32;
    let rows = oracle::json_lines("05_ctc_decode/forced_align.jsonl");
    let (mut paths, mut errors, mut words) = (0, 0, 0);
    for row in &rows {
        let name = row["name"].as_str().expect("name");
        let logits = own.get(&format!("{name}.logits")).or_else(|| emissions.get(&format!("{}.logits", name.trim_start_matches("utt_"))));
        let logits = logits.unwrap_or_else(|| panic!("no logits of {name}"));
        let vocab = logits.shape[1];
        let log_probs = log_softmax(&logits.f32(), vocab);
        let targets: Vec<u32> = numbers(&row["targets"]);
        let blank = row["blank"].as_u64().expect("blank") as u32;
        let whole = align(&mut Matrix::new(&log_probs, vocab), std::slice::from_ref(&targets), &options(blank, None, Fit::Exact));
        if row["error"].is_string() {
            let message = whole.expect_err(name).to_string();
            assert!(message.contains("steps"), "{message}");
            errors += 1;
            continue;
        }
        let whole = whole.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(whole.path, numbers::<u32>(&row["path"]), "{name}");
        let golden: Vec<f64> = row["frame_logp"].as_array().expect("frame_logp").iter().map(|v| v.as_f64().expect("a number")).collect();
        let ours: Vec<f64> = whole.log_probs.iter().map(|&p| f64::from(p)).collect();
        oracle::assert_close(&format!("{name}: log-probabilities"), &ours, &golden, LOG_PROB_TOLERANCE);
        let total = row["path_logp"].as_f64().expect("path_logp");
        assert!((whole.score - total).abs() <= LOG_PROB_TOLERANCE * golden.len() as f64, "{name}: {} against {total}", whole.score);
        if let Some(best) = row["brute_force_best_logp"].as_f64() {
            assert!((whole.score - best).abs() <= LOG_PROB_TOLERANCE * golden.len() as f64, "{name}: {} against {best}", whole.score);
        }
        assert_spans(name, &whole.spans(blank), row["spans"].as_array().expect("spans"));
        paths += 1;

        // The same as words with a separator between.
        let Some(golden) = row["words"].as_array() else { continue };
        let split: Vec<Vec<u32>> = targets.split(|&token| token == space).map(<[u32]>::to_vec).collect();
        let by_word = align(&mut Matrix::new(&log_probs, vocab), &split, &options(blank, Some(space), Fit::Exact)).expect(name);
        assert_eq!((&by_word.path, &by_word.log_probs), (&whole.path, &whole.log_probs), "{name}");
        assert_eq!(by_word.words.len(), golden.len(), "{name}");
        for (ours, golden) in by_word.words.iter().zip(golden) {
            let ours = ours.as_ref().expect("present");
            let place = [ours.start as u64, ours.end as u64];
            assert_eq!(place, ["start", "end"].map(|key| golden[key].as_u64().expect(key)), "{name}: {golden}");
            let score = ours.tokens.iter().map(|t| f64::from(t.probability)).sum::<f64>() / ours.tokens.len() as f64;
            assert!((score - golden["score"].as_f64().expect("score")).abs() <= PROBABILITY_TOLERANCE, "{name}: {score}, {golden}");
            words += 1;
        }
    }
    assert!(paths > 0 && errors > 0 && words > 0, "{paths} paths, {errors} errors, {words} words");
}

fn assert_spans(name: &str, ours: &[TokenSpan], golden: &[Value]) {
    assert_eq!(ours.len(), golden.len(), "{name}");
    for (ours, golden) in ours.iter().zip(golden) {
        let place = [u64::from(ours.token), ours.start as u64, ours.end as u64];
        assert_eq!(place, ["token", "start", "end"].map(|key| golden[key].as_u64().expect(key)), "{name}: {golden}");
        let score = golden["score"].as_f64().expect("score");
        assert!((f64::from(ours.probability) - score).abs() <= PROBABILITY_TOLERANCE, "{name}: {ours:?}, {golden}");
    }
}

/// The same few numbers added in another order, in f64.
const ROUNDING: f64 = 1e-9;

/// A text as a list of places, and what it costs to be in one after another: the definition, written out.
struct Places<'a> {
    /// `Some(token)` or a blank; whether a blank stands at the edge of a word; the word of a token.
    all: Vec<(Option<u32>, bool, Option<usize>)>,
    words: &'a [Vec<u32>],
    separator: Option<u32>,
    costs: Option<Costs>,
}

impl<'a> Places<'a> {
    fn new(words: &'a [Vec<u32>], separator: Option<u32>, costs: Option<Costs>) -> Self {
        let mut all = vec![];
        for (i, word) in words.iter().enumerate() {
            if let Some(separator) = separator.filter(|_| i > 0) {
                all.extend([(None, true, None), (Some(separator), true, None)]);
            }
            for (j, &token) in word.iter().enumerate() {
                all.extend([(None, j == 0, None), (Some(token), false, Some(i))]);
            }
        }
        all.push((None, true, None));
        Self { all, words, separator, costs }
    }

    fn first(&self, word: usize) -> usize {
        self.all.iter().position(|place| place.2 == Some(word)).unwrap_or(self.all.len())
    }

    /// Price of passing over the words `from..to`.
    fn skip(&self, words: Range<usize>) -> f64 {
        let separator = usize::from(self.separator.is_some());
        words.map(|w| self.costs.map_or(f64::INFINITY, |c| c.missing * (self.words[w].len() + separator) as f64)).sum()
    }

    /// Price of going from one place (`None`: before the first step) to another in one step; infinite if that is not allowed.
    fn price(&self, from: Option<usize>, to: usize) -> f64 {
        let Some(from) = from else {
            return match self.all[to].2 {
                _ if to < 2 => 0.0,
                Some(word) if to == self.first(word) => self.skip(0..word),
                _ => f64::INFINITY,
            };
        };
        let jump = to == from + 2 && self.all[to].0.is_some() && self.all[to].0 != self.all[from].0;
        if to == from || to == from + 1 || jump {
            return 0.0;
        }
        match self.all[to].2 {
            Some(word) if to == self.first(word) => self.leave(from, word),
            _ => f64::INFINITY,
        }
    }

    /// Price of having said all that is to be said when in this place at the last step.
    fn end(&self, from: usize) -> f64 {
        if from + 2 >= self.all.len() { 0.0 } else { self.leave(from, self.words.len()) }
    }

    /// Price of going from a place between two words to the front of `word`.
    fn leave(&self, from: usize, word: usize) -> f64 {
        let (Some(costs), (label, true, _)) = (self.costs, self.all[from]) else { return f64::INFINITY };
        let Some(next) = (0..self.words.len()).find(|&w| self.first(w) > from) else { return f64::INFINITY };
        let before_separator = label.is_none() && from + 3 == self.first(next);
        if next > word { f64::INFINITY } else { self.skip(next..word) + if before_separator { costs.missing } else { 0.0 } }
    }

    /// Best sum over all sequences of places that `fit`, minus infinity without any.
    fn brute_force(&self, log_probs: &[f32], vocab: usize, blank: u32, fits: impl Fn(&[usize]) -> bool) -> f64 {
        let score = |step: usize, place: usize| {
            let row = &log_probs[step * vocab..][..vocab];
            let (label, edge, _) = self.all[place];
            let own = f64::from(row[label.unwrap_or(blank) as usize]);
            let others =
                row.iter().zip(0..).filter(|&(_, token)| token != blank).map(|(&p, _)| f64::from(p)).fold(f64::NEG_INFINITY, f64::max);
            match self.costs.filter(|_| edge && label.is_none()) {
                Some(costs) => own.max(others - costs.extra),
                None => own,
            }
        };
        let steps = log_probs.len() / vocab;
        let mut best = f64::NEG_INFINITY;
        let mut stack: Vec<(Vec<usize>, f64)> = vec![(vec![], 0.0)];
        while let Some((path, sum)) = stack.pop() {
            if path.len() == steps {
                let sum = sum - self.end(path[steps - 1]);
                if sum > best && fits(&path) {
                    best = sum;
                }
                continue;
            }
            for place in 0..self.all.len() {
                let sum = sum - self.price(path.last().copied(), place) + score(path.len(), place);
                if sum > f64::NEG_INFINITY {
                    stack.push(([&path[..], &[place]].concat(), sum));
                }
            }
        }
        best
    }
}

/// First and last step of every word of a sequence of places.
fn words_of(path: &[usize], places: &Places<'_>) -> Vec<Option<(usize, usize)>> {
    let steps = |word| path.iter().enumerate().filter(move |&(_, &p)| places.all[p].2 == Some(word)).map(|(step, _)| step);
    (0..places.words.len()).map(|word| Some((steps(word).next()?, steps(word).next_back()? + 1))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_path_is_the_best_of_all(
        values in proptest::collection::vec(-6.0f32..0.0, 4..24),
        words in proptest::collection::vec(proptest::collection::vec(2u32..4, 1..3), 1..4),
        (separated, loose) in (any::<bool>(), any::<bool>()),
        (missing, extra) in (0.0f64..3.0, 0.0f64..3.0),
    ) {
        let vocab = 4;
        let log_probs = log_softmax(&values[..values.len() / vocab * vocab], vocab);
        let separator = separated.then_some(1);
        let costs = Costs { missing, extra };
        let places = Places::new(&words, separator, loose.then_some(costs));
        let golden = places.brute_force(&log_probs, vocab, 0, |_| true);
        let fit = if loose { Fit::Loose(costs) } else { Fit::Exact };
        let ours = align(&mut Matrix::new(&log_probs, vocab), &words, &options(0, separator, fit));
        if golden == f64::NEG_INFINITY {
            prop_assert!(ours.is_err());
            return Ok(());
        }
        let ours = ours.unwrap();
        let placed: Vec<_> = ours.words.iter().map(|w| w.as_ref().map(|w| (w.start, w.end))).collect();
        let is_ours = |path: &[usize]| path.iter().zip(&ours.path).all(|(&p, &token)| places.all[p].0.unwrap_or(0) == token) && words_of(path, &places) == placed;
        let sum = places.brute_force(&log_probs, vocab, 0, is_ours);
        prop_assert!((sum - golden).abs() <= ROUNDING, "{sum} against {golden}: {ours:?}");
    }
}

/// Made-up speech, computed when asked for: each step says one token or the blank, some say a wrong one.
struct Speech {
    said: Vec<u32>,
    reads: usize,
}

const VOCAB: usize = 29;
const SPACE: u32 = 1;

impl Emissions for Speech {
    fn steps(&self) -> usize {
        self.said.len()
    }

    fn vocab(&self) -> usize {
        VOCAB
    }

    fn read(&mut self, steps: Range<usize>, rows: &mut Vec<f32>) -> Result<()> {
        self.reads += steps.len();
        rows.clear();
        for step in steps {
            let mut random = Random(step as u64);
            let heard = if random.below(10) == 0 { random.below(VOCAB) } else { self.said[step] as usize };
            rows.extend((0..VOCAB).map(|token| if token == heard { -0.1 } else { -3.5 - random.below(1000) as f32 / 250.0 }));
        }
        Ok(())
    }
}

struct Random(u64);

impl Random {
    /// SplitMix64 (Steele et al. 2014, doi:10.1145/2660193.2660195).
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// Words of a text, and for each whether it is said. Steps of speech that is not in the text are put before word `.0` of `extra`.
fn speak(words: &[(Vec<u32>, bool)], extra: &[(usize, usize)]) -> (Speech, Vec<Option<(usize, usize)>>) {
    let mut random = Random(7);
    let mut said = vec![0; 5];
    let mut truth = vec![];
    for (i, (word, is_said)) in words.iter().enumerate() {
        for &(_, steps) in extra.iter().filter(|(at, _)| *at == i) {
            (0..steps).for_each(|step| said.push(if step % 3 == 1 { 1 + random.below(VOCAB - 1) as u32 } else { 0 }));
        }
        if !is_said {
            truth.push(None);
            continue;
        }
        let start = said.len();
        for &token in word {
            said.extend(std::iter::repeat_n(token, 1 + random.below(2)));
            said.push(0);
        }
        truth.push(Some((start, said.len() - 1)));
        said.extend([SPACE, 0]);
    }
    said.extend([0; 5]);
    (Speech { said, reads: 0 }, truth)
}

fn text(words: usize) -> Vec<(Vec<u32>, bool)> {
    let mut random = Random(3);
    let word = |random: &mut Random| (0..2 + random.below(6)).map(|_| 2 + random.below(VOCAB - 2) as u32).collect();
    (0..words).map(|_| (word(&mut random), true)).collect()
}

fn tokens(words: &[(Vec<u32>, bool)]) -> Vec<Vec<u32>> {
    words.iter().map(|(word, _)| word.clone()).collect()
}

/// Share of the words that are placed within six steps of the truth on both sides (two misheard tokens move an edge so far), or rightly
/// missing.
fn share_right(alignment: &Alignment, truth: &[Option<(usize, usize)>]) -> f64 {
    let right = alignment.words.iter().zip(truth).filter(|(ours, truth)| match (ours, truth) {
        (Some(ours), Some(truth)) => ours.start.abs_diff(truth.0) <= 6 && ours.end.abs_diff(truth.1) <= 6,
        (None, None) => true,
        _ => false,
    });
    right.count() as f64 / truth.len() as f64
}

/// The best exact path by a trellis of all steps and states.
fn plain_path(speech: &mut Speech, words: &[Vec<u32>]) -> Vec<u32> {
    let flat: Vec<u32> = words.join(&SPACE);
    let label = |state: usize| if state.is_multiple_of(2) { 0 } else { flat[state / 2] };
    let states = 2 * flat.len() + 1;
    let mut rows = vec![];
    speech.read(0..speech.steps(), &mut rows).unwrap();
    let row = |step: usize, state: usize| f64::from(rows[step * VOCAB + label(state) as usize]);
    let mut scores: Vec<f64> = (0..states).map(|s| if s < 2 { row(0, s) } else { f64::NEG_INFINITY }).collect();
    let mut back: Vec<Vec<u8>> = vec![vec![]];
    for step in 1..speech.steps() {
        let old = scores.clone();
        let mut codes = vec![];
        for state in 0..states {
            let allowed = |by: &usize| *by < 2 || state % 2 == 1 && label(state) != label(state - 2);
            let by = (0..=2.min(state)).filter(allowed).max_by(|&a, &b| old[state - a].total_cmp(&old[state - b]).then(b.cmp(&a))).unwrap();
            scores[state] = old[state - by] + row(step, state);
            codes.push(by as u8);
        }
        back.push(codes);
    }
    let mut state = if scores[states - 1] > scores[states - 2] { states - 1 } else { states - 2 };
    let mut path = vec![];
    for step in (0..speech.steps()).rev() {
        path.push(label(state));
        state -= back[step].get(state).map_or(0, |&by| usize::from(by));
    }
    path.reverse();
    path
}

#[test]
fn scores_kept_at_few_steps_give_the_plain_path() {
    // 5500 steps times 4600 states are more than is kept at once.
    let words = text(420);
    let (mut speech, _) = speak(&words, &[]);
    assert!(speech.steps() > 4500, "{}", speech.steps());
    let ours = align(&mut speech, &tokens(&words), &options(0, Some(SPACE), Fit::Exact)).unwrap();
    assert!(speech.reads > speech.steps(), "the scores of all steps were kept");
    assert_eq!(ours.search, Search::Exhaustive);
    assert!(ours.path == plain_path(&mut speech, &tokens(&words)));
}

#[test]
fn missing_words_and_other_speech_are_told() {
    let mut words = text(200);
    for missing in [0, 50, 51, 52, 120, 199] {
        words[missing].1 = false;
    }
    for (longest, shortest) in [(5, 0), (60, 30)] {
        let extra = [(20, 40), (80, 3 + longest), (130, 25 + shortest)];
        let (mut speech, truth) = speak(&words, &extra);
        let ours = align(&mut speech, &tokens(&words), &Options::new(0, Some(SPACE))).unwrap();
        let share = share_right(&ours, &truth);
        assert!(share >= 0.98, "{share}");
        let missing: Vec<usize> = (0..200).filter(|&w| ours.words[w].is_none()).collect();
        assert_eq!(missing, [0, 50, 51, 52, 120, 199]);
        // The other speech is absorbed where it is.
        for (before, steps) in extra {
            let end = truth[before..].iter().flatten().next().unwrap().0;
            let found = ours.extra.iter().any(|range| range.start.abs_diff(end - steps) <= 6 && range.end.abs_diff(end) <= 6);
            assert!(found, "{steps} steps before word {before}, step {end}: {:?}", ours.extra);
        }
    }
}

#[test]
fn a_corridor_gives_the_path_of_all_paths() {
    // A chapter of 150 words is missing, and other speech is there: far more than the margin.
    for seed in 0..4 {
        let mut words = text(900);
        words.rotate_left(100 * seed);
        words[350..500].iter_mut().for_each(|word| word.1 = false);
        words.iter_mut().step_by(97).for_each(|word| word.1 = false);
        let (mut speech, truth) = speak(&words, &[(200, 800), (700, 90)]);
        let everything = Options::new(0, Some(SPACE));
        let all = align(&mut speech, &tokens(&words), &everything).unwrap();
        assert_eq!(all.search, Search::Exhaustive);
        assert!(share_right(&all, &truth) > 0.98);
        // Rectangles of more than 400 000 steps times tokens are closed.
        let narrow = Options { margin: 100, most_cells: 10_000_000, ..everything };
        let ours = align(&mut speech, &tokens(&words), &narrow).unwrap();
        assert_eq!(ours.search, Search::Corridor { unguided: 0 });
        assert!(ours.words == all.words && ours.path == all.path && ours.extra == all.extra);
    }
}

#[test]
fn a_recording_of_another_text_is_told() {
    let words = text(900);
    let (mut speech, _) = speak(&words[..450], &[]);
    let options = Options { most_cells: 1_000_000, ..Options::new(0, Some(SPACE)) };
    let ours = align(&mut speech, &tokens(&words[450..]), &options).unwrap();
    let Search::Corridor { unguided } = ours.search else { panic!("{:?}", ours.search) };
    assert!(unguided * 2 > speech.steps(), "{unguided} of {}", speech.steps());
}

/// Most memory that the alignment of three hours with 150 000 tokens may add, in kilobytes: what the module's page says, and what the test
/// itself holds (the text, the truth and a byte a step).
const MOST_KILOBYTES: u64 = 96 << 10;

#[test]
#[ignore = "run by three_hours_in_bounded_memory in a process of its own"]
#[cfg(target_os = "linux")]
fn three_hours_alone() {
    let mut words = text(27_500);
    words[9_000..9_500].iter_mut().for_each(|word| word.1 = false);
    let (mut speech, truth) = speak(&words, &[(15_000, 15_000)]);
    let spelled = tokens(&words);
    let count = spelled.iter().map(|w| w.len() + 1).sum::<usize>();
    assert!(speech.steps() > 270_000 && count > 150_000, "{} steps, {count} tokens", speech.steps());
    let before = kilobytes("VmRSS:");
    let started = std::time::Instant::now();
    let ours = align(&mut speech, &spelled, &Options::new(0, Some(SPACE))).unwrap();
    let added = kilobytes("VmHWM:") - before;
    println!("{} steps, {count} tokens: {added} kB, {:?}, {:?}", speech.steps(), started.elapsed(), ours.search);
    assert!(added < MOST_KILOBYTES, "{added} kB");
    assert!(share_right(&ours, &truth) > 0.98);
    // A word of two tokens may be taken for a piece of its neighbour.
    assert!(ours.words[9_000..9_500].iter().filter(|w| w.is_none()).count() >= 495);
}

#[cfg(target_os = "linux")]
fn kilobytes(of: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc/self/status");
    let line = status.lines().find_map(|line| line.strip_prefix(of)).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
#[cfg(target_os = "linux")]
fn three_hours_in_bounded_memory() {
    // The peak of a process includes what other tests took: a process of its own.
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).args(["--ignored", "--nocapture", "--exact", "align::three_hours_alone"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    print!("{told}");
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

#[test]
fn what_cannot_be_aligned_is_refused() {
    let log_probs = vec![-1.4f32; 12];
    let refusal = |words: &[Vec<u32>], options: &Options| align(&mut Matrix::new(&log_probs, 4), words, options).unwrap_err().to_string();
    let exact = options(0, None, Fit::Exact);
    assert_eq!(refusal(&[vec![1, 1], vec![1]], &exact), "alignment: the text takes at least 5 steps, the recording has 3");
    assert_eq!(refusal(&[vec![1], vec![]], &exact), "alignment: word 1 has no tokens");
    for bad in [0, 4, u32::MAX] {
        assert!(refusal(&[vec![1, bad]], &exact).contains(&format!("token {bad}")));
    }
    assert!(refusal(&[vec![2]], &options(0, Some(2), Fit::Exact)).contains("separator"));
    assert!(refusal(&[vec![2]], &options(9, None, Fit::Exact)).contains("blank 9"));
    assert!(refusal(&[vec![2]], &options(0, Some(4), Fit::Exact)).contains("separator"));
    for price in [f64::NAN, -1.0, f64::INFINITY] {
        assert!(refusal(&[vec![2]], &options(0, None, Fit::Loose(Costs { missing: price, extra: 1.0 }))).contains("missing"));
    }
    let dead = [f32::NAN, f32::NEG_INFINITY, f32::NAN, f32::INFINITY];
    let message = align(&mut Matrix::new(&dead, 4), &[vec![1]], &exact).unwrap_err().to_string();
    assert!(message.contains("probability above zero"), "{message}");
}

#[test]
fn nothing_said_or_nothing_written() {
    let quiet: Vec<f32> = [-0.01f32, -6.0, -6.0, -6.0].repeat(5);
    let loose = Options::new(0, Some(1));
    let ours = align(&mut Matrix::new(&quiet, 4), &[vec![2], vec![3, 2]], &loose).unwrap();
    assert_eq!((ours.words, ours.extra, ours.path), (vec![None, None], vec![], vec![0; 5]));
    let ours = align(&mut Matrix::new(&quiet, 4), &[], &options(0, None, Fit::Exact)).unwrap();
    assert_eq!((ours.words.len(), ours.path.len()), (0, 5));
    let ours = align(&mut Matrix::new(&[], 4), &[vec![2]], &loose).unwrap();
    assert_eq!(ours.words, [None]);
    assert!(align(&mut Matrix::new(&[], 4), &[vec![2]], &options(0, None, Fit::Exact)).is_err());
}

/// Largest mean errors of word starts and ends, in seconds, widened: a little over what was measured when the files were made (40 and 34 ms).
const MOST_START_ERROR: f64 = 0.045;
const MOST_END_ERROR: f64 = 0.040;
/// A wider start has to be worth it: the mean error falls at least by this factor (from 62 ms).
const LEAST_GAIN: f64 = 1.3;

/// Twelve utterances of `benchmarks/boundaries.py`, whose word times are known, as the character model `base` heard them.
#[test]
fn word_times_of_synthetic_speech() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/boundaries");
    let bytes = std::fs::read(root.join("log_probs.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let alphabet = " 'abcdefghijklmnopqrstuvwxyz";
    let spell = |word: &str| word.chars().map(|c| alphabet.find(c).unwrap() as u32 + 1).collect::<Vec<_>>();
    let (mut raw, mut start, mut end, mut words) = (0.0, 0.0, 0.0, 0.0);
    for row in std::fs::read_to_string(root.join("words.jsonl")).unwrap().lines() {
        let row: Value = serde_json::from_str(row).unwrap();
        let view = file.tensor(row["name"].as_str().unwrap()).unwrap();
        let log_probs: Vec<f32> = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let golden = row["words"].as_array().unwrap();
        let spelled: Vec<_> = golden.iter().map(|w| spell(w["word"].as_str().unwrap())).collect();
        let ours = align(&mut Matrix::new(&log_probs, view.shape()[1]), &spelled, &options(0, Some(1), Fit::Exact)).unwrap();
        let mut spans: Vec<Range<usize>> = ours.words.iter().flatten().map(|w| w.start..w.end).collect();
        let peaks = spans.clone();
        widen(&mut spans, &ours.blanks, Widening::default());
        assert_eq!(ours.blanks, blank_column(&log_probs, view.shape()[1], 0));
        let step = row["seconds_per_step"].as_f64().unwrap();
        for ((peak, span), golden) in peaks.iter().zip(&spans).zip(golden) {
            let error = |at: usize, key: &str| (at as f64 * step - golden[key].as_f64().unwrap()).abs();
            raw += error(peak.start, "start");
            start += error(span.start, "start");
            end += error(span.end, "end");
            words += 1.0;
        }
    }
    println!("{words} words: starts {:.3} s off, widened {:.3} s; ends {:.3} s", raw / words, start / words, end / words);
    assert!(start / words < MOST_START_ERROR && end / words < MOST_END_ERROR, "{} {}", start / words, end / words);
    assert!(raw > LEAST_GAIN * start, "{raw} {start}");
}
