//! `tidegate compile-guest`: what the gateway starts to compile one guest, under limits. For its own
//! use, and hidden.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::rollout::CompileLimits;
use crate::rollout::compile::{NOT_COMPILED, compile_here};

/// Compile the component on stdin into a file
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[arg(long)]
    cpu_s: u64,
    #[arg(long)]
    memory_bytes_max: u64,
    #[arg(long)]
    output_bytes_max: u64,
    #[arg(long)]
    keep_priority: bool,
    into: PathBuf,
}

pub fn compile_guest(arguments: &Arguments) -> ExitCode {
    let limits = CompileLimits {
        cpu_s: arguments.cpu_s,
        memory_bytes_max: arguments.memory_bytes_max,
        output_bytes_max: arguments.output_bytes_max,
        keeps_priority: arguments.keep_priority,
        ..CompileLimits::default()
    };
    match compile_here(limits, &arguments.into) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{}", why.chars().take(2_000).collect::<String>());
            ExitCode::from(NOT_COMPILED)
        }
    }
}
