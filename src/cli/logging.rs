//! The log: human or JSON lines on standard error, from rank 0 unless asked otherwise.

use std::fmt;
use std::io::IsTerminal;
use std::time::Instant;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What and how to log; the same for every subcommand.
#[derive(Clone, Debug, clap::Args)]
pub struct LogOptions {
    /// Log lines for people, or one JSON object a line.
    #[arg(long, value_enum, default_value = "text", global = true, help_heading = "Logging")]
    pub log_format: LogFormat,
    /// What to log: error, warn, info, debug, trace, or a filter as of tracing's EnvFilter.
    #[arg(long, default_value = "info", value_name = "LEVEL", global = true, help_heading = "Logging")]
    pub log_level: String,
    /// Let every MPI rank log, not only rank 0 (errors come from all ranks anyway).
    #[arg(long, global = true, help_heading = "Logging")]
    pub log_all_ranks: bool,
}

/// Seconds since the start, to the tenth: what a person can read.
struct Elapsed(Instant);

impl FormatTime for Elapsed {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{:8.1} s", self.0.elapsed().as_secs_f64())
    }
}

/// Starts the log of this process. Ranks other than 0 say warnings and errors only, unless `--log-all-ranks`.
pub fn start(options: &LogOptions, rank: usize) {
    let level = if rank == 0 || options.log_all_ranks { options.log_level.as_str() } else { "warn" };
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        // Of a log that cannot be written (a full disk) there is nobody to tell; the run is worth more.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    // A second start (tests) keeps the first subscriber.
    let _ = match options.log_format {
        LogFormat::Json => subscriber.json().try_init(),
        LogFormat::Text => subscriber.with_timer(Elapsed(Instant::now())).try_init(),
    };
}
