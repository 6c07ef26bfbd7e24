//! The log on standard error: text or JSON lines, from rank 0 by default.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use clap::ValueEnum;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{Format, Json, Writer};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{self, FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::parallel::World;
use crate::run_folder::log;

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// Text.
    Text,
    /// One JSON object per line.
    Json,
}

/// Log options of every subcommand.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct LogOptions {
    /// Format of log lines.
    #[arg(long, value_enum, default_value = "text", global = true, help_heading = "Logging")]
    pub log_format: LogFormat,
    /// Log level: error, warn, info, debug, trace, or a filter of tracing's EnvFilter.
    #[arg(long, default_value = "info", value_name = "LEVEL", value_parser = filter, global = true, help_heading = "Logging")]
    pub log_level: String,
    /// Log from every MPI rank, not only rank 0 (errors are always logged).
    #[arg(long, global = true, help_heading = "Logging")]
    pub log_all_ranks: bool,
}

/// A filter whose parts are levels, or targets with a level: EnvFilter takes a misspelt level for the name of a target.
fn filter(text: &str) -> Result<String, String> {
    let is_level = |part: &str| {
        part.rsplit('=').next().is_some_and(|level| !level.is_empty() && level.parse::<LevelFilter>().is_ok())
    };
    if text.split(',').all(is_level) && EnvFilter::try_new(text).is_ok() {
        return Ok(text.into());
    }
    Err("expected error, warn, info, debug, trace or off, or a filter such as info,cryosplat_mpi::train=debug".into())
}

/// Seconds since the start; on ranks other than 0 also the rank and its host, because several may log the same.
struct Elapsed {
    start: Instant,
    rank: String,
}

impl FormatTime for Elapsed {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        write!(writer, "{:8.1} s{}", self.start.elapsed().as_secs_f64(), self.rank)
    }
}

/// Events as JSON objects, each with the rank and its host.
struct JsonOfRank {
    format: Format<Json>,
    /// Members of each object: ,"rank":0,"host":"n1".
    members: String,
}

impl JsonOfRank {
    fn new(rank: usize) -> Self {
        let host = serde_json::Value::from(World::host());
        let format = tracing_subscriber::fmt::format().json().with_target(false);
        Self { format, members: format!(r#","rank":{rank},"host":{host}"#) }
    }
}

impl<S, N> FormatEvent<S, N> for JsonOfRank
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let mut object = String::new();
        self.format.format_event(context, Writer::new(&mut object), event)?;
        let open = object.trim_end().strip_suffix('}').ok_or(std::fmt::Error)?;
        writeln!(writer, "{open}{}}}", self.members)
    }
}

/// Standard error, to which each event is one line: a name with the end of a line in it cannot pass for another event.
struct Lines;

impl Write for Lines {
    /// Writes a whole event.
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        std::io::stderr().write_all(&one_line(event))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// The event without control characters, but for the end of its line and the escapes of colours: those in messages are escaped
/// already (by tracing-subscriber).
fn one_line(event: &[u8]) -> Vec<u8> {
    const ESCAPE: u8 = 0x1b;
    let text = event.strip_suffix(b"\n").unwrap_or(event);
    let plain = |&byte: &u8| if byte < b' ' && byte != ESCAPE { b' ' } else { byte };
    text.iter().map(plain).chain([b'\n']).collect()
}

/// The log in the run folder, one line for each event.
struct RunLog;

impl Write for RunLog {
    /// Writes a whole event.
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        log::write(&one_line(event));
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Starts the log of this process. Ranks other than 0 log warnings and errors only, unless `--log-all-ranks` is given.
pub(super) fn start(options: &LogOptions, rank: usize) {
    start_layers(options, rank, false);
}

/// [`start`] for a command with a run folder: the same lines, as text without colours, go to the log there once the run holds it.
pub(super) fn start_with_run_log(options: &LogOptions, rank: usize) {
    log::expect();
    start_layers(options, rank, true);
}

fn start_layers(options: &LogOptions, rank: usize, run_log: bool) {
    let level = if rank == 0 || options.log_all_ranks { options.log_level.as_str() } else { "warn" };
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let start = Instant::now();
    let time = || {
        let rank = if rank == 0 { String::new() } else { format!(" rank {rank} on {}", World::host()) };
        Elapsed { start, rank }
    };
    // A log that cannot be written (full disk) must not stop the run.
    let layer = || fmt::layer().with_target(false).log_internal_errors(false);
    let terminal = layer().with_writer(|| Lines).with_ansi(std::io::stderr().is_terminal());
    let mut layers = vec![match options.log_format {
        LogFormat::Json => terminal.json().event_format(JsonOfRank::new(rank)).boxed(),
        LogFormat::Text => terminal.with_timer(time()).boxed(),
    }];
    if run_log {
        layers.push(layer().with_writer(|| RunLog).with_ansi(false).with_timer(time()).boxed());
    }
    // A second call keeps the first subscriber.
    let _ = tracing_subscriber::registry().with(filter).with(layers).try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        assert_eq!(
            one_line("a\n 0.0 s ERROR\r\tb\u{e9}\n".as_bytes()),
            "a  0.0 s ERROR  b\u{e9}\n".as_bytes()
        );
        assert_eq!(one_line(b"\x1b[32m INFO\x1b[0m x\n"), b"\x1b[32m INFO\x1b[0m x\n");
    }

    #[test]
    fn a_misspelt_level_is_no_target() {
        for right in ["info", "WARN", "off", "info,cryosplat_mpi::train=debug", "cryosplat_mpi=trace"] {
            assert!(filter(right).is_ok(), "{right}");
        }
        for wrong in ["inof", "", "info,debgu", "cryosplat_mpi=loud", "info,"] {
            assert!(filter(wrong).unwrap_err().contains("expected error, warn"), "{wrong}");
        }
    }
}
