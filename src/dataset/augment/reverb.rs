//! Reverberation: a simulated shoebox room (image sources, then a diffuse tail) or a recorded impulse response.

use serde::{Deserialize, Serialize};

use super::{Workspace, power};
use crate::dataset::rng::Rng;
use crate::dataset::{Span, check_probability, check_span};
use crate::error::Result;

/// Rooms. The direct sound keeps its place in time and the clip its mean power.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReverbConfig {
    /// Share of rows.
    pub probability: f32,
    /// Of those, share with a recorded impulse response.
    pub recorded: f32,
    /// Time in which the simulated tail falls by 60 dB, seconds.
    pub rt60: Span,
    /// Length and width of a simulated room, metres.
    pub room: Span,
    /// From mouth to microphone, metres.
    pub distance: Span,
    /// Loss of high frequencies in the tail: coefficient of a one-pole low-pass, 0 none.
    pub damping: Span,
}

impl Default for ReverbConfig {
    fn default() -> Self {
        Self { probability: 0.0, recorded: 0.0, rt60: [0.15, 0.8], room: [2.5, 10.0], distance: [0.3, 3.0], damping: [0.0, 0.7] }
    }
}

const RATE: f32 = 16_000.0;
/// Speed of sound at 20 degrees, m/s.
const SOUND: f32 = 343.0;
/// Ceiling heights, metres.
const HEIGHT: Span = [2.4, 3.5];
/// Nearest a mouth or microphone comes to a wall, metres.
const WALL: f32 = 0.2;
/// The tail is cut after this share of rt60, where it has fallen by 45 dB.
const TAIL_SHARE: f32 = 0.75;
/// Longest part of a recorded response that is used, samples (1 s).
const MOST_RECORDED: usize = 16_000;

impl ReverbConfig {
    /// Checks every value against its range.
    ///
    /// # Errors
    /// [`crate::Error::Config`]: a value out of range.
    pub fn validate(&self) -> Result<()> {
        check_probability("reverb.probability", self.probability)?;
        check_probability("reverb.recorded", self.recorded)?;
        check_span("reverb.rt60", self.rt60, 0.05, 3.0)?;
        check_span("reverb.room", self.room, 1.0, 100.0)?;
        check_span("reverb.distance", self.distance, 0.05, 50.0)?;
        check_span("reverb.damping", self.damping, 0.0, 0.95)
    }

    pub(super) fn apply(&self, samples: &mut [f32], rooms: &[Vec<f32>], rng: &mut Rng, workspace: &mut Workspace) {
        if !rng.chance(self.probability) {
            return;
        }
        let before = power(samples);
        let recorded = rng.chance(self.recorded);
        match rooms.get(rng.below(rooms.len())).filter(|_| recorded) {
            Some(room) => {
                // The strongest sample is the direct sound.
                let direct = (0..room.len()).max_by(|&a, &b| room[a].abs().total_cmp(&room[b].abs())).unwrap_or(0);
                workspace.convolver.convolve(samples, &room[..room.len().min(direct + MOST_RECORDED)], direct);
            }
            None => {
                let response = self.response(rng);
                workspace.convolver.convolve(samples, &response, 0);
            }
        }
        let after = power(samples);
        if after > 0.0 {
            let gain = (before / after).sqrt();
            samples.iter_mut().for_each(|x| *x *= gain);
        }
    }

    /// Impulse response of a random room, the direct sound first with amplitude 1.
    ///
    /// Early part: image sources (Allen and Berkley 1979, doi:10.1121/1.382599) with the wall reflection that gives rt60 by Eyring's formula.
    /// From the time the images computed no longer cover all directions on, noise with the power the images would have on average,
    /// `4 pi c / (V rate) * 10^(-6 t / rt60)` per sample: the number of images grows as t^2 while each one's power falls so.
    fn response(&self, rng: &mut Rng) -> Vec<f32> {
        let rt60 = rng.within(self.rt60);
        let size = [rng.within(self.room), rng.within(self.room), rng.within(HEIGHT)];
        let distance = rng.within(self.distance);
        let damping = rng.within(self.damping);
        let inside = |share: f32, length: f32| WALL + share * (length - 2.0 * WALL);
        let microphone = size.map(|length| inside(rng.uniform(), length));
        // Mostly level with the microphone, in a random direction; the walls may pull the mouth nearer.
        let (angle, rise) = (std::f32::consts::TAU * rng.uniform(), 0.3 * (rng.uniform() - 0.5));
        let direction = [angle.cos(), angle.sin(), rise];
        let mouth: [f32; 3] = std::array::from_fn(|i| (microphone[i] + distance * direction[i]).clamp(WALL, (size[i] - WALL).max(WALL)));
        let apart = (0..3).map(|i| (mouth[i] - microphone[i]).powi(2)).sum::<f32>().sqrt().max(0.05);

        let volume: f32 = size.iter().product();
        let surface = 2.0 * (size[0] * size[1] + size[1] * size[2] + size[2] * size[0]);
        let reflection = (-0.161 * volume / (surface * rt60)).exp().sqrt();
        let decay = -3.0 * std::f32::consts::LN_10 / rt60;
        // Images of rooms one away in each direction are complete within this travel, from the direct sound on.
        let complete = 2.0 * size.iter().copied().fold(f32::INFINITY, f32::min);
        let mixing = ((complete - apart).max(0.0) / SOUND * RATE) as usize;
        let mut response = vec![0.0; mixing.max(1) + (TAIL_SHARE * rt60 * RATE) as usize];

        let axis = |i: usize| {
            (0..6_i32).map(move |k| {
                let (n, mirrored) = ((k / 2 - 1) as f32, k % 2 == 1);
                let place = if mirrored { -mouth[i] } else { mouth[i] } + 2.0 * n * size[i];
                // Reflections on the way: |n - p| + |n|, p = 1 if mirrored.
                (place - microphone[i], (2 * (k / 2 - 1) - k % 2).abs())
            })
        };
        for (x, rx) in axis(0) {
            for (y, ry) in axis(1) {
                for (z, rz) in axis(2) {
                    let travel = (x * x + y * y + z * z).sqrt().max(apart);
                    let at = ((travel - apart) / SOUND * RATE).round() as usize;
                    if at <= mixing {
                        response[at] += apart / travel * reflection.powi(rx + ry + rz);
                    }
                }
            }
        }
        let first_travel = apart / SOUND;
        let mut level =
            apart * (4.0 * std::f32::consts::PI * SOUND / (volume * RATE)).sqrt() * (decay * (first_travel + mixing as f32 / RATE)).exp();
        let fall = (decay / RATE).exp();
        let open = ((1.0 - damping) * (1.0 + damping)).sqrt();
        let mut held = 0.0;
        for tap in &mut response[mixing + 1..] {
            held = damping * held + open * rng.normal();
            *tap += level * held;
            level *= fall;
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_falls_by_sixty_decibels_in_rt60() {
        for rt60 in [0.3, 0.6, 1.0] {
            let config = ReverbConfig { rt60: [rt60; 2], damping: [0.0, 0.0], ..ReverbConfig::default() };
            for seed in 0..10 {
                let h = config.response(&mut Rng::new(seed, &[]));
                // Slope between two stretches of the diffuse part.
                let (a, b) = ((0.15 * rt60 * RATE) as usize, (0.55 * rt60 * RATE) as usize);
                let width = (0.15 * rt60 * RATE) as usize;
                let fall = 10.0 * (power(&h[a..a + width]) / power(&h[b..b + width])).log10();
                // Early images still show in the first stretch of the shortest rooms.
                assert!((fall - 24.0).abs() < 3.0, "rt60 {rt60} seed {seed}: {fall} dB over 0.4 rt60");
            }
        }
    }

    #[test]
    fn the_direct_sound_leads_and_weakens_with_distance() {
        let ratio = |distance: f32| {
            let config = ReverbConfig { distance: [distance; 2], room: [8.0, 8.0], rt60: [0.5, 0.5], ..ReverbConfig::default() };
            let total: f32 = (0..20)
                .map(|seed| {
                    let h = config.response(&mut Rng::new(seed, &[]));
                    assert!((h[0] - 1.0).abs() < 1e-5, "{}", h[0]);
                    h[1..].iter().map(|x| x * x).sum::<f32>()
                })
                .sum();
            total / 20.0
        };
        assert!(ratio(0.3) < 0.3 * ratio(1.0) && ratio(1.0) < 0.5 * ratio(3.0), "{} {} {}", ratio(0.3), ratio(1.0), ratio(3.0));
    }

    #[test]
    fn the_tail_continues_the_images_at_their_level() {
        // Mean over rooms of the power just before and just after the mixing time: the closed form must meet the images.
        let config =
            ReverbConfig { room: [6.0, 6.0], rt60: [0.6, 0.6], distance: [1.0, 1.0], damping: [0.0, 0.0], ..ReverbConfig::default() };
        let (mut before, mut after) = (0.0, 0.0);
        for seed in 0..200 {
            let h = config.response(&mut Rng::new(seed, &[]));
            // Ceilings of 2.4 to 3.5 m and 1 m distance: mixing between sample 177 and 280.
            before += power(&h[90..170]);
            after += power(&h[290..370]);
        }
        let expected = 10.0 * 6.0 * (200.0 / RATE) / 0.6;
        let fall = 10.0 * (before / after).log10();
        assert!((fall - expected).abs() < 3.0, "{fall} dB, {expected} expected");
    }

    #[test]
    fn keeps_power_and_place() {
        let config = ReverbConfig { probability: 1.0, ..ReverbConfig::default() };
        for recorded in [0.0, 1.0] {
            let config = ReverbConfig { recorded, ..config.clone() };
            let mut x = vec![0.0; 4000];
            x[1000] = 0.5;
            let mut room = vec![0.0; 200];
            (room[50], room[90]) = (-0.8, 0.2);
            let before = power(&x);
            config.apply(&mut x, &[room], &mut Rng::new(2, &[]), &mut Workspace::default());
            assert!((power(&x) / before - 1.0).abs() < 1e-3);
            let peak = (0..4000).max_by(|&a, &b| x[a].abs().total_cmp(&x[b].abs())).unwrap();
            assert_eq!(peak, 1000);
        }
    }
}
