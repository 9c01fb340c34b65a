//! How a stream looks: JSON lines, plain lines, or a terminal with partial words in grey.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use console::{Term, style};

use crate::pipeline::stream::Event;

/// What a live view shows beside the words.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Status {
    /// Largest magnitude of the samples at hand.
    peak: Option<f32>,
    /// How often samples were lost.
    overruns: u64,
}

impl Status {
    /// Of the samples at hand; `lost`: samples lost, and how often.
    pub fn of(samples: &[f32], lost: (u64, u64)) -> Self {
        let peak = samples.iter().map(|x| x.abs()).reduce(f32::max);
        Self { peak, overruns: lost.1 }
    }
}

/// Where events go.
pub enum View {
    /// A line for each event.
    Json {
        /// Since when `at` counts.
        start: Instant,
    },
    /// A line for each utterance.
    Plain,
    /// A line that is rewritten while it changes.
    Terminal(Line),
}

/// The line at the bottom of a terminal.
pub struct Line {
    term: Term,
    meter: bool,
    level: char,
    overruns: u64,
    /// Final words that stand on the line.
    said: String,
    partial: String,
}

impl View {
    /// The view for standard output; `live`: with a level meter.
    pub fn new(json: bool, live: bool, start: Instant) -> Self {
        if json {
            Self::Json { start }
        } else if std::io::stdout().is_terminal() {
            let (said, partial) = (String::new(), String::new());
            Self::Terminal(Line { term: Term::stdout(), meter: live, level: ' ', overruns: 0, said, partial })
        } else {
            Self::Plain
        }
    }

    /// Shows what happened.
    pub fn show(&mut self, events: &[Event], status: Status) -> anyhow::Result<()> {
        match self {
            Self::Json { start } => {
                let at = (start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
                events.iter().try_for_each(|event| {
                    let mut value = serde_json::to_value(event)?;
                    if let Some(object) = value.as_object_mut() {
                        object.insert("at".into(), at.into());
                    }
                    print(&format!("{value}\n"))
                })
            }
            Self::Plain => events.iter().try_for_each(|event| match event {
                Event::Endpoint { text, .. } => print(&format!("{text}\n")),
                Event::Partial { .. } | Event::Final { .. } => Ok(()),
            }),
            Self::Terminal(line) => line.show(events, status),
        }
    }

    /// Leaves the terminal in order.
    pub fn finish(&mut self) -> anyhow::Result<()> {
        let Self::Terminal(line) = self else { return Ok(()) };
        line.meter = false;
        line.partial.clear();
        line.draw()
    }
}

/// Writes to standard output at once.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

impl Line {
    fn show(&mut self, events: &[Event], status: Status) -> anyhow::Result<()> {
        let level = status.peak.map_or(self.level, bar);
        if events.is_empty() && (!self.meter || (level, status.overruns) == (self.level, self.overruns)) {
            return Ok(());
        }
        (self.level, self.overruns) = (level, status.overruns);
        for event in events {
            match event {
                Event::Partial { text, .. } => self.partial.clone_from(text),
                Event::Final { text, .. } => {
                    self.partial.clear();
                    text.split(' ').try_for_each(|word| self.say(word))?;
                }
                Event::Endpoint { .. } => {
                    self.partial.clear();
                    self.draw_with(false)?;
                    self.term.write_str("\n")?;
                    self.said.clear();
                }
            }
        }
        self.draw()
    }

    /// Room for text, columns.
    fn columns(&self) -> usize {
        let (_, columns) = self.term.size();
        usize::from(columns).saturating_sub(1 + self.status(self.meter).chars().count()).max(10)
    }

    /// A word is final: a full line is left as it is, and the next one begins.
    fn say(&mut self, word: &str) -> anyhow::Result<()> {
        if !self.said.is_empty() && self.said.chars().count() + 1 + word.chars().count() > self.columns() {
            self.draw_with(false)?;
            self.term.write_str("\n")?;
            self.said.clear();
        }
        if !self.said.is_empty() {
            self.said.push(' ');
        }
        self.said.push_str(word);
        Ok(())
    }

    fn status(&self, meter: bool) -> String {
        match (meter, self.overruns) {
            (false, _) => String::new(),
            (true, 0) => format!("{} ", self.level),
            (true, overruns) => format!("{} {overruns} overruns ", self.level),
        }
    }

    fn draw(&self) -> anyhow::Result<()> {
        self.draw_with(self.meter)
    }

    fn draw_with(&self, meter: bool) -> anyhow::Result<()> {
        let room = self.columns().saturating_sub(self.said.chars().count() + 1);
        let length = self.partial.chars().count();
        // Of partial words that do not fit, the last ones.
        let shown: String = self.partial.chars().skip(length.saturating_sub(room)).collect();
        let space = if self.said.is_empty() || shown.is_empty() { "" } else { " " };
        let line = format!("\r{}{}{space}{}\x1b[K", style(self.status(meter)).cyan(), self.said, style(shown).bright().black());
        self.term.write_str(&line)?;
        Ok(self.term.flush()?)
    }
}

/// A level from -60 dB of full scale to 0 as a bar.
fn bar(peak: f32) -> char {
    const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let decibels = 20.0 * peak.max(1e-6).log10();
    BARS[(((decibels + 60.0) / 60.0).clamp(0.0, 1.0) * 8.0).round() as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_rise_with_the_level() {
        assert_eq!([0.0, 0.001, 0.03, 0.5, 1.0].map(bar), [' ', ' ', '▄', '▇', '█']);
        assert_eq!(Status::of(&[0.1, -0.5], (3, 1)), Status { peak: Some(0.5), overruns: 1 });
    }
}
