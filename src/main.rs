//! The `omniscribe` program: parse, run, print the error chain, exit 0 (done), 1 (failed) or 2 (usage).

use std::process::ExitCode;

use clap::Parser;
use omniscribe::cli::{Cli, run};

fn main() -> ExitCode {
    omniscribe::kernel::memory::keep_freed_memory();
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
