//! `omniscribe model pull`.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::checkpoint::hub::Hub;
use crate::checkpoint::manifest::restriction;

/// Flags of `omniscribe model pull`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Repository on the hub, owner/name
    repository: String,
    /// Branch, tag or commit
    #[arg(long, default_value = "main")]
    revision: String,
}

/// Fetches and prints the folder; it can be named by the repository's name from then on.
#[expect(clippy::print_stdout, reason = "the folder is this command's data")]
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let hub = Hub::from_environment()?;
    let target = if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    bar.set_style(ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}")?);
    let pulled = hub.pull(&arguments.repository, &arguments.revision, |progress| {
        bar.set_message(progress.file.to_string());
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    })?;
    bar.finish_and_clear();
    eprintln!("{} files, {:.1} MB fetched, commit {}", pulled.files.len(), pulled.fetched as f64 / 1e6, pulled.commit);
    if let Some(licence) = &pulled.licence {
        let limit = restriction(licence).map_or_else(String::new, |limit| format!(": {limit}"));
        eprintln!("licence {licence}{limit}");
    }
    println!("{}", pulled.path.display());
    Ok(ExitCode::SUCCESS)
}
