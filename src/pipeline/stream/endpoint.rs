//! When an utterance is over.

use serde::Serialize;

use crate::error::{Error, Result};

/// The three rules of sherpa's endpointing, with its times. The first that holds ends the utterance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Endpointing {
    /// Silence that ends an utterance in which nothing was said, seconds.
    pub silence: f64,
    /// Silence that ends an utterance in which something was said, seconds.
    pub pause: f64,
    /// Length at which an utterance is cut, seconds: after the last word that is over.
    pub longest: f64,
}

/// Defaults of sherpa-onnx's rules 1, 2 and 3.
impl Default for Endpointing {
    fn default() -> Self {
        Self { silence: 2.4, pause: 1.2, longest: 20.0 }
    }
}

/// Which rule ended an utterance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Nothing was said for a while.
    Silence,
    /// Nothing more was said after something was.
    Pause,
    /// It became too long.
    Length,
    /// The audio ended.
    End,
}

impl Endpointing {
    /// # Errors
    /// [`Error::Config`] naming the rule that is broken.
    pub fn validate(&self) -> Result<()> {
        for (name, seconds) in [("silence", self.silence), ("pause", self.pause)] {
            // A NaN is no time either.
            if seconds.is_nan() || seconds < 0.1 {
                return Err(Error::config("endpoint", format!("{name} is {seconds} s, it must be at least 0.1 s")));
            }
        }
        if !(1.0..=300.0).contains(&self.longest) {
            return Err(Error::config("endpoint", format!("longest is {} s, it must lie in 1..=300 s", self.longest)));
        }
        Ok(())
    }

    /// The rule by which an utterance ends that has lasted for `length` seconds, the last `trailing` of them without speech; `spoken`: something
    /// was said before.
    pub fn rule(&self, length: f64, trailing: f64, spoken: Spoken) -> Option<Rule> {
        if spoken == Spoken::Something && trailing >= self.pause {
            Some(Rule::Pause)
        } else if trailing >= self.silence {
            Some(Rule::Silence)
        } else if length >= self.longest {
            Some(Rule::Length)
        } else {
            None
        }
    }
}

/// Whether an utterance has a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// None yet.
    Nothing,
    /// One at least.
    Something,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_rules() {
        let rules = Endpointing::default();
        assert_eq!(rules.rule(2.3, 2.3, Spoken::Nothing), None);
        assert_eq!(rules.rule(2.4, 2.4, Spoken::Nothing), Some(Rule::Silence));
        assert_eq!(rules.rule(5.0, 1.1, Spoken::Something), None);
        assert_eq!(rules.rule(5.0, 1.2, Spoken::Something), Some(Rule::Pause));
        assert_eq!(rules.rule(19.9, 0.1, Spoken::Something), None);
        assert_eq!(rules.rule(20.0, 0.1, Spoken::Something), Some(Rule::Length));
        rules.validate().unwrap();
        for bad in
            [Endpointing { silence: 0.0, ..rules }, Endpointing { pause: f64::NAN, ..rules }, Endpointing { longest: 301.0, ..rules }]
        {
            assert!(bad.validate().is_err(), "{bad:?}");
        }
    }
}
