//! The training loop.

use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Device;

use crate::checkpoint::directory::{FORMAT_VERSION, ModelConfig, ModelDirectory};
use crate::checkpoint::safetensors_file::write_atomically;
use crate::checkpoint::weights;
use crate::dataset::Loader;
use crate::dataset::augment::{Augmenter, Sounds};
use crate::error::{Error, Result};
use crate::features::FrontEnd;
use crate::kernel::rng::SplitMix;
use crate::model::asr::AsrModel;
use crate::model::pass::Pass;
use crate::text::Tokenizer;
use crate::train::batch::{HostBatch, Preparer, encode_targets, log, read_sounds};
use crate::train::clusters;
use crate::train::config::RunConfig;
use crate::train::context::ContextDraw;
use crate::train::evaluate::Dev;
use crate::train::journal::{self, Journal, Line};
use crate::train::optimizer::Optimizer;
use crate::train::plot;
use crate::train::prepare::{load_dev, load_speech, planner, prepare_model_parts, start_from};
use crate::train::state::{self, Progress};
use crate::train::step::{Objective, batch_gradients};

/// Batches prepared ahead of the step.
const PREFETCH: usize = 6;
/// Steps in a row without a finite gradient after which a run gives up.
const MAX_SKIPPED: u64 = 50;

/// What a run ended with.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Steps taken.
    pub steps: u64,
    /// Audio hours seen.
    pub audio_hours: f64,
    /// CTC loss per token of the last logged stretch.
    pub last_loss: f64,
    /// WER on all dev sets together at the end, as a fraction.
    pub dev_wer: Option<f64>,
}

/// Trains until the audio hours of `config` are seen; goes on from the run folder's checkpoint if there is one.
///
/// # Errors
/// [`Error::Config`], [`Error::Io`], [`Error::Manifest`], [`Error::Checkpoint`], [`Error::Training`]
pub fn run(config: &RunConfig, device: &Device) -> Result<Outcome> {
    let mut session = Session::start(config, device)?;
    while !session.done() {
        session.step()?;
    }
    session.finish()
}

/// A run under way.
struct Session<'a> {
    config: &'a RunConfig,
    device: Device,
    tokenizer: Tokenizer,
    objective: Objective,
    model_config: ModelConfig,
    front_end: FrontEnd,
    dev: Option<Dev>,
    loader: Loader<crate::dataset::BatchPlan, HostBatch>,
    model: AsrModel,
    optimizer: Optimizer,
    progress: Progress,
    journal: Journal,
    /// Start of the stretch that `speed` is measured over, and the audio seconds in it.
    clock: (Instant, f64),
    last_save: Instant,
    next_evaluation: f64,
    /// WER of the evaluation of the present step, if there was one.
    evaluated: Option<(u64, Option<f64>)>,
    skipped_in_a_row: u64,
    last_loss: f64,
}

impl<'a> Session<'a> {
    fn start(config: &'a RunConfig, device: &Device) -> Result<Self> {
        config.validate()?;
        std::fs::create_dir_all(&config.output).map_err(|e| Error::io(&config.output, e))?;
        let speech = load_speech(config)?;
        log(format_args!("{}", speech.corpus.report()));
        let (tokenizer, front_end_config) = prepare_model_parts(config, &speech)?;
        let front_end = FrontEnd::new(front_end_config.clone())?;
        let targets = encode_targets(&speech.corpus, config.data.text, &tokenizer, &config.data.train)?;
        let planner = planner(config, &speech, &targets, &front_end)?;
        let voices: Arc<dyn crate::dataset::augment::Clips> = Arc::new(speech.sounds());
        let sounds = match &config.data.noise {
            Some(manifest) => read_sounds(manifest, voices.clone())?,
            None => Sounds { voices: Some(voices.clone()), ..Sounds::default() },
        };
        let augmenter = Augmenter::new(config.augment.clone(), sounds)?;
        let contexts = ContextDraw::new(config.seed, config.streaming, config.encoder.context.clone());
        if config.streaming.probability > 0.0 && front_end_config.normalization.running(front_end_config.mels).is_none() {
            return Err(Error::config(&config.output, "streaming.probability: the front end's normalisation cannot run in a stream"));
        }
        let preparer = Preparer::new(voices, targets, augmenter, config.spec_augment.clone(), front_end.clone(), contexts);
        let dev = load_dev(config)?;

        let training = device.clone().autodiff();
        let mut model = AsrModel::new(&config.encoder, tokenizer.vocab_size(), config.seed, &training)?;
        if let Some(init) = &config.init {
            model = start_from(&ModelDirectory::open(init)?, model)?;
        }
        let mut optimizer = Optimizer::new(config.optimizer, &model);
        log(format_args!("{:.2} M parameters, {} tokens", optimizer.parameters() as f64 / 1e6, tokenizer.vocab_size()));
        let progress = match state::load(&config.output.join("checkpoint.safetensors"), &mut optimizer)? {
            Some(progress) => {
                log(format_args!("resuming at step {}, {:.2} audio hours", progress.step, progress.seconds / 3600.0));
                model = optimizer.install(model);
                progress
            }
            None => Progress::default(),
        };
        echo(config)?;
        let journal = Journal::open(&config.output.join("log.jsonl"), progress.step)?;
        let plans = Arc::new(planner).batches_from(progress.position());
        let loader = Loader::new(plans, config.control.loader_threads, PREFETCH, move |plan| preparer.prepare(plan))?;
        let model_config = ModelConfig {
            format_version: FORMAT_VERSION,
            name: config.name.clone(),
            front_end: front_end_config,
            encoder: config.encoder.clone(),
        };
        model_config.validate()?;
        let next_evaluation = next_evaluation(config, &progress);
        Ok(Self {
            config,
            device: training,
            objective: Objective { blank: tokenizer.blank(), loss: config.loss, languages: config.languages.unwrap_or_default() },
            tokenizer,
            model_config,
            front_end,
            dev,
            loader,
            model,
            optimizer,
            progress,
            journal,
            clock: (Instant::now(), 0.0),
            last_save: Instant::now(),
            next_evaluation,
            evaluated: None,
            skipped_in_a_row: 0,
            last_loss: f64::NAN,
        })
    }

    fn hours(&self) -> f64 {
        self.progress.seconds / 3600.0
    }

    fn done(&self) -> bool {
        self.hours() >= self.config.control.audio_hours
    }

    /// One optimiser step and whatever is due after it.
    fn step(&mut self) -> Result<()> {
        let precision = self.config.control.precision.into();
        for _ in 0..self.config.optimizer.accumulate {
            let batch = self.loader.next().ok_or_else(|| Error::Training { reason: "the batches ended".into() })??;
            let seed = SplitMix::stream(self.config.seed, self.progress.batch).next_u64();
            let pass = || Pass::training(precision, seed).with_chunk(batch.chunk);
            let (gradients, report) = batch_gradients(&self.model, &batch, &self.objective, pass, &self.device);
            self.optimizer.accumulate(&self.model, &gradients);
            clusters::follow(&self.model, &mut self.optimizer, &report.spreads);
            self.progress.window.add(&report);
            self.clock.1 += batch.seconds;
            self.progress.batch += 1;
            self.progress.seconds += batch.seconds;
            let next = batch.plan.position.batch + 1;
            let ended = next >= batch.plan.batches;
            self.progress.epoch = batch.plan.position.epoch + u64::from(ended);
            self.progress.batch_in_epoch = if ended { 0 } else { next };
        }
        let share = self.hours() / self.config.control.audio_hours.max(1e-9);
        let lr = self.config.optimizer.lr * self.config.schedule.factor(self.optimizer.steps(), share);
        let scale = 1.0 / self.config.optimizer.accumulate as f64;
        let (model, report) = self.optimizer.step(self.model.clone(), lr, scale);
        self.model = model;
        self.progress.step = self.optimizer.steps();
        let window = &mut self.progress.window;
        window.steps += 1;
        window.lr = lr;
        if report.applied {
            window.norm += report.norm;
            self.skipped_in_a_row = 0;
        } else {
            window.skipped += 1;
            self.skipped_in_a_row += 1;
            if self.skipped_in_a_row >= MAX_SKIPPED {
                let reason = format!("no finite gradient in {MAX_SKIPPED} steps before step {}: lower optimizer.lr", self.progress.step);
                return Err(Error::Training { reason });
            }
        }
        if self.progress.window.steps >= self.config.control.log_every || self.done() {
            self.log()?;
        }
        if self.hours() >= self.next_evaluation {
            self.evaluate()?;
            self.next_evaluation = next_evaluation(self.config, &self.progress);
        }
        if self.last_save.elapsed().as_secs_f64() > 60.0 * self.config.control.checkpoint_minutes {
            self.save()?;
        }
        Ok(())
    }

    fn log(&mut self) -> Result<()> {
        let window = std::mem::take(&mut self.progress.window);
        let (since, seconds) = std::mem::replace(&mut self.clock, (Instant::now(), 0.0));
        let speed = seconds / since.elapsed().as_secs_f64().max(1e-9);
        let tokens = window.tokens.max(1) as f64;
        self.last_loss = window.ctc / tokens;
        let line = Line::Train {
            step: self.progress.step,
            audio_hours: self.hours(),
            epoch: self.progress.epoch,
            loss: self.last_loss,
            intermediate: window.intermediate / tokens,
            balance: window.balance / window.batches.max(1) as f64,
            norm: window.norm / (window.steps - window.skipped).max(1) as f64,
            lr: window.lr,
            load: window.load_shares(),
            speed,
            skipped: window.skipped,
            divergence: window.languages.divergence_per_step(),
            identified: window.languages.identified_share(),
        };
        let left = (self.config.control.audio_hours - self.hours()).max(0.0) / speed;
        log(format_args!(
            "step {:>6}  {:>8.2} h  loss {:.4}  norm {:.2}  lr {:.2e}  {speed:.0}x real time  {} left",
            self.progress.step,
            self.hours(),
            self.last_loss,
            window.norm / (window.steps - window.skipped).max(1) as f64,
            window.lr,
            clock(left)
        ));
        self.journal.write(&line)
    }

    /// Dev WER of the averaged weights; also exports them.
    fn evaluate(&mut self) -> Result<Option<f64>> {
        let averaged = self.optimizer.averaged();
        let folder = self.config.output.join("model");
        ModelDirectory::save(&folder, &self.model_config, &self.tokenizer, &averaged, self.config.control.storage)?;
        let mut total = None;
        if let Some(dev) = &self.dev {
            let plain = self.device.clone().without_autodiff();
            let model = weights::apply(AsrModel::new(&self.config.encoder, self.tokenizer.vocab_size(), 0, &plain)?, &averaged, &folder)?;
            let errors = dev.evaluate(&model, &self.tokenizer, &self.front_end, self.config.control.precision.into(), &plain)?;
            let mut all = crate::eval::WordErrors::default();
            errors.values().for_each(|e| all += *e);
            let wer = errors.iter().map(|(set, e)| (set.clone(), e.wer())).collect::<std::collections::BTreeMap<_, _>>();
            let table: Vec<String> = wer.iter().map(|(set, w)| format!("{set} {:.1}", 100.0 * w)).collect();
            log(format_args!("dev WER {:.1}: {}", 100.0 * all.wer(), table.join(", ")));
            self.journal.write(&Line::Dev { step: self.progress.step, audio_hours: self.hours(), wer, all: all.wer() })?;
            total = Some(all.wer());
        }
        self.draw()?;
        self.clock = (Instant::now(), 0.0);
        self.evaluated = Some((self.progress.step, total));
        Ok(total)
    }

    fn draw(&self) -> Result<()> {
        let lines = journal::read(&self.config.output.join("log.jsonl"))?;
        let loss = plot::chart(&self.config.name, "CTC loss per token, nats", &[plot::loss_curve("training", &lines)]);
        write_atomically(&self.config.output.join("loss.svg"), loss.as_bytes())?;
        let wer = plot::chart(&self.config.name, "dev WER, %", &plot::wer_curves(&lines));
        write_atomically(&self.config.output.join("wer.svg"), wer.as_bytes())
    }

    fn save(&mut self) -> Result<()> {
        state::save(&self.config.output.join("checkpoint.safetensors"), &self.optimizer, &self.progress)?;
        self.last_save = Instant::now();
        Ok(())
    }

    fn finish(mut self) -> Result<Outcome> {
        self.save()?;
        let dev_wer = match self.evaluated {
            Some((step, wer)) if step == self.progress.step => wer,
            _ => self.evaluate()?,
        };
        Ok(Outcome { steps: self.progress.step, audio_hours: self.hours(), last_loss: self.last_loss, dev_wer })
    }
}

/// The complete configuration beside the checkpoint.
fn echo(config: &RunConfig) -> Result<()> {
    let path = config.output.join("run.toml");
    let text = toml::to_string(config).map_err(|e| Error::config(&path, e.to_string()))?;
    write_atomically(&path, text.as_bytes())
}

/// Audio hours of the first evaluation after `progress`.
fn next_evaluation(config: &RunConfig, progress: &Progress) -> f64 {
    let every = config.control.evaluate_hours;
    if every > 0.0 { ((progress.seconds / 3600.0 / every).floor() + 1.0) * every } else { f64::INFINITY }
}

fn clock(hours: f64) -> String {
    if !hours.is_finite() {
        return "?".into();
    }
    let minutes = (hours * 60.0).round() as u64;
    format!("{}:{:02} h", minutes / 60, minutes % 60)
}
