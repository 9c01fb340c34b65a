//! Channels: every multi-channel oracle file split and mixed alike, copies and silence found, times kept.

use std::num::NonZeroUsize;
use std::path::Path;

use omniscribe::audio::{Channels, Content, Limits, Tracks, decode, read_at, resample};
use omniscribe::units::SampleRate;
use omniscribe::{Error, Result};
use proptest::prelude::*;

use crate::oracle;

const RATE: SampleRate = SampleRate::HZ_16000;

/// A WAV file of 32-bit floats with these channels.
fn wav(rate: u32, channels: &[Vec<f32>]) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let spec = hound::WavSpec {
        channels: channels.len() as u16,
        sample_rate: rate,
        bits_per_sample: 32,
        sample_format: hound::SampleFormat::Float,
    };
    let mut writer = hound::WavWriter::new(&mut bytes, spec).expect("header");
    for i in 0..channels[0].len() {
        channels.iter().for_each(|c| writer.write_sample(c[i]).expect("sample"));
    }
    writer.finalize().expect("finish");
    bytes.into_inner()
}

/// Noise of a small generator, `level` at most.
fn noise(seed: u32, samples: usize, level: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..samples).map(|_| level * next()).collect()
}

/// Everything of `tracks`, one after the other.
fn drain(tracks: &mut Tracks) -> Result<Vec<Vec<f32>>> {
    let mut all = vec![Vec::new(); tracks.count()];
    while let Some(block) = tracks.next_block()? {
        assert!(!block[0].is_empty() && block.iter().all(|b| b.len() == block[0].len()));
        all.iter_mut().zip(block).for_each(|(all, b)| all.extend_from_slice(b));
    }
    assert!(tracks.next_block()?.is_none());
    Ok(all)
}

fn split(rate: u32, channels: &[Vec<f32>]) -> (Vec<Vec<f32>>, Tracks) {
    let mut tracks = Tracks::from_bytes(Path::new("x.wav"), wav(rate, channels), Channels::Split, RATE, &Limits::default()).expect("open");
    (drain(&mut tracks).expect("read"), tracks)
}

fn one(n: usize) -> Channels {
    Channels::One(NonZeroUsize::new(n).expect("from 1"))
}

/// A resampler's rounding, where the order of mean and resampling differs.
const MIX_TOLERANCE: f32 = 2e-5;

#[test]
fn oracle_the_mean_of_the_channels_is_the_mix() {
    let list = oracle::json("08_audio/valid.json");
    let mut seen = std::collections::BTreeSet::new();
    for row in list.as_array().expect("files").iter().filter(|row| row["level"] == "required") {
        let name = row["file"].as_str().expect("file");
        let path = oracle::find(&format!("08_audio/{name}"));
        let mix = read_at(&path, RATE, &Limits::default()).expect("mix").samples;
        let open = |channels| Tracks::open(&path, channels, RATE, &Limits::default());
        let mut tracks = open(Channels::Split).expect("open");
        let count = tracks.count();
        assert_eq!(Some(count as u64), row["channels"].as_u64().or(Some(count as u64)), "{name}");
        let parts = drain(&mut tracks).expect("split");
        assert_eq!(parts[0].len(), mix.len(), "{name}");
        assert_eq!(drain(&mut open(Channels::Mix).expect("open")).expect("mix"), std::slice::from_ref(&mix), "{name}");
        let mut sum = vec![0.0f32; mix.len()];
        for n in 1..=count {
            let channel = drain(&mut open(one(n)).expect("open")).expect("one").remove(0);
            sum.iter_mut().zip(&channel).for_each(|(s, x)| *s += x / count as f32);
            if tracks.contents()[n - 1] == Content::Own {
                assert_eq!(channel, parts[n - 1], "{name}: channel {n}");
            }
        }
        let worst = sum.iter().zip(&mix).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < MIX_TOLERANCE, "{name}: {worst}");
        assert!(matches!(open(one(count + 1)), Err(Error::Config { .. })), "{name}");
        if count > 1 {
            seen.insert(row["codec"].to_string());
        }
    }
    println!("codecs with several channels: {seen:?}");
    assert!(seen.len() > 3);
}

#[test]
fn each_channel_is_what_it_would_be_alone() {
    let channels = [noise(1, 40_000, 0.3), noise(2, 40_000, 0.1), noise(3, 40_000, 0.5)];
    for rate in [8_000, 16_000, 44_100] {
        let (tracks, state) = split(rate, &channels);
        for (track, channel) in tracks.iter().zip(&channels) {
            assert_eq!(*track, resample(channel, SampleRate(rate), RATE).expect("resample"), "{rate} Hz");
        }
        assert_eq!((state.contents(), state.warnings()), (vec![Content::Own; 3], vec![]));
        assert_eq!([0, 1, 2].map(|t| state.channel(t)), [Some(1), Some(2), Some(3)]);
    }
}

#[test]
fn copies_are_heard_once_at_any_level_and_sign() {
    let voice = noise(1, 50_000, 0.3);
    for gain in [1.0, 0.4, 1.7, -1.0] {
        let copy: Vec<f32> = voice.iter().zip(noise(9, 50_000, 1e-3)).map(|(x, n)| gain * x + n).collect();
        let (tracks, state) = split(16_000, &[voice.clone(), copy]);
        assert_eq!(tracks[0], voice, "gain {gain}");
        assert!(tracks[1].iter().all(|&x| x == 0.0), "gain {gain}");
        assert_eq!(state.contents(), [Content::Own, Content::Copy { of: 1 }]);
        assert_eq!(state.channel(0), None, "one voice has no channel");
        assert_eq!(state.warnings(), ["channel 2 is the same as channel 1: heard once"]);
    }
    let (_, state) = split(16_000, &[noise(5, 50_000, 0.2), voice.clone(), voice]);
    assert_eq!(state.contents(), [Content::Own, Content::Own, Content::Copy { of: 2 }]);
    assert_eq!(state.channel(1), Some(2));
}

/// Half a minute, in windows of half a second.
#[test]
fn a_channel_that_becomes_its_own_is_heard_from_there_on() {
    let (mut left, mut right) = (noise(1, 480_000, 0.2), noise(1, 480_000, 0.2));
    let starts = 163_210;
    right[starts..].copy_from_slice(&noise(2, 480_000 - starts, 0.2));
    left[300_000..].fill(0.0);
    let (tracks, state) = split(16_000, &[left.clone(), right.clone()]);
    assert_eq!(tracks[0], left);
    let window = starts / 8_000 * 8_000;
    assert!(tracks[1][..window].iter().all(|&x| x == 0.0));
    assert_eq!(tracks[1][window..], right[window..], "all of what differs, in its place");
    assert_eq!(state.contents(), [Content::Own, Content::Own]);
}

#[test]
fn silent_channels_are_named_whichever_they_are() {
    let (voice, hiss) = (noise(1, 40_000, 0.2), noise(2, 40_000, 3e-4));
    let (tracks, state) = split(16_000, &[voice.clone(), hiss.clone()]);
    assert_eq!((&tracks[0], state.contents()), (&voice, vec![Content::Own, Content::Silence]));
    assert_eq!((state.channel(0), state.warnings()), (Some(1), vec!["channel 2 is silent".to_string()]));
    let (tracks, state) = split(16_000, &[hiss, voice.clone()]);
    assert_eq!((&tracks[1], state.contents()), (&voice, vec![Content::Silence, Content::Own]));
    // A word between long silences is enough.
    let mut word = vec![0.0; 400_000];
    word[200_000..204_000].copy_from_slice(&noise(3, 4_000, 0.02));
    let (tracks, state) = split(16_000, &[noise(1, 400_000, 0.2), word.clone()]);
    assert_eq!((&tracks[1][192_000..], state.contents()), (&word[192_000..], vec![Content::Own; 2]));
}

#[test]
fn two_microphones_are_two_channels() {
    let voice = noise(4, 160_000, 0.2);
    // The same sound one sample later, and with an echo.
    let later: Vec<f32> = (0..voice.len()).map(|i| 0.8 * voice[i.saturating_sub(1)]).collect();
    let echo: Vec<f32> = (0..voice.len()).map(|i| 0.7 * voice[i] + 0.3 * voice[i.saturating_sub(90)]).collect();
    for other in [later, echo] {
        assert_eq!(split(16_000, &[voice.clone(), other]).1.contents(), [Content::Own; 2]);
    }
}

/// Speech on both channels, coded by ffmpeg 5.1: `ffmpeg -t 3 -i assets/river.wav -af "pan=stereo|c0=c0|c1=c0" -ar 48000 -b:a RATE`, at
/// 96 kbit/s (MP2) and 64 (AAC, Opus): of the codecs and rates tried, those whose channels differ most.
#[test]
fn dual_mono_survives_lossy_codecs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/channels");
    for name in ["dual_mono.mp2", "dual_mono.m4a", "dual_mono.opus"] {
        let mut tracks = Tracks::open(&folder.join(name), Channels::Split, RATE, &Limits::default()).expect(name);
        drain(&mut tracks).expect(name);
        assert_eq!(tracks.contents(), [Content::Own, Content::Copy { of: 1 }], "{name}");
    }
}

#[test]
fn a_mono_file_is_one_track() {
    let voice = noise(1, 20_000, 0.2);
    let (tracks, state) = split(16_000, std::slice::from_ref(&voice));
    assert_eq!((tracks, state.channel(0)), (vec![voice], None));
    let open = |n| Tracks::from_bytes(Path::new("x.wav"), wav(16_000, &[noise(1, 100, 0.1)]), one(n), RATE, &Limits::default());
    assert_eq!(open(1).expect("the only one").count(), 1);
    let error = open(2).err().expect("there is no second").to_string();
    assert_eq!(error, "x.wav: channel 2 was asked for, the file has 1");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_whatever_the_channels_hold(
        kinds in prop::collection::vec((0u32..4, any::<bool>()), 1..5), length in 1usize..60_000, rate in prop::sample::select(vec![8_000u32, 16_000, 22_050]),
    ) {
        // Noise 0 to 2, or silence; a change in the middle where told.
        let sound = |kind: u32, samples| if kind == 3 { vec![0.0; samples] } else { noise(kind + 1, samples, 0.2) };
        let channels: Vec<Vec<f32>> = kinds.iter().map(|&(kind, changes)| {
            let mut channel = sound(kind, length);
            if changes {
                let half = length / 2;
                channel[half..].copy_from_slice(&noise(kind + 10, length - half, 0.1));
            }
            channel
        }).collect();
        let (tracks, state) = split(rate, &channels);
        for (k, content) in state.contents().into_iter().enumerate() {
            let alone = resample(&channels[k], SampleRate(rate), RATE).expect("resample");
            prop_assert_eq!(tracks[k].len(), alone.len());
            match content {
                // A copy of an earlier one, which holds the same samples.
                Content::Copy { of } => prop_assert_eq!(&channels[k], &channels[of as usize - 1]),
                Content::Silence => prop_assert!(channels[k].iter().all(|&x| x == 0.0)),
                Content::Own if k == 0 => prop_assert_eq!(&tracks[k], &alone),
                // From where it differs from every earlier channel, all of it.
                Content::Own => {
                    let differs = |j: usize| (0..length).find(|&i| channels[j][i] != channels[k][i]).unwrap_or(length);
                    let from = (0..k).map(differs).max().unwrap_or(0) * 16_000 / rate as usize;
                    // The block of the resampler in which that is, and the next, hear what is before.
                    let from = (from + 2_000).min(alone.len());
                    prop_assert_eq!(&tracks[k][from..], &alone[from..]);
                }
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), cut in 0usize..4_000, flip in 0usize..200) {
        let mut file = wav(16_000, &[noise(1, 400, 0.1), noise(2, 400, 0.1)]);
        file.truncate(cut);
        if let Some(byte) = file.get_mut(flip) {
            *byte ^= bytes.first().copied().unwrap_or(0x55);
        }
        for bytes in [bytes, file] {
            if let Ok(mut tracks) = Tracks::from_bytes(Path::new("x.wav"), bytes.clone(), Channels::Split, RATE, &Limits::default()) {
                let length = drain(&mut tracks).map(|t| t[0].len());
                let whole = decode(Path::new("x.wav"), bytes, &Limits::default()).map(|w| (w.samples.len() as u64 * 16_000).div_ceil(w.sample_rate.0.into()));
                prop_assert_eq!(length.ok().map(|n| n as u64), whole.ok());
            }
        }
    }
}
