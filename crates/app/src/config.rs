//! Settings that all bridges share, and the rules for reading any setting: all wrong settings are
//! reported at once, before anything starts, by flag and environment variable. Values are never
//! printed: a setting pasted into the wrong place may be a secret.

mod tail;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jiff::SignedDuration;

use crate::fatal::Fatal;
pub use crate::invalid_value::InvalidValue;
use audit_bridge_core::any_sink::AnySink;
use audit_bridge_core::batch;
use audit_bridge_core::dead_letter::{self, WhenFull};
use audit_bridge_core::deliver::ConcurrencyLimit;
use audit_bridge_core::event::conformance;
use audit_bridge_core::json_lines::{Format, JsonLinesOutput};
use audit_bridge_core::webhook::{self, Webhook, WebhookError, WebhookSettings};
pub use tail::{TailArgs, TailFlags, bad_position};

/// With less, not even a large record has room.
const DEAD_LETTER_BYTES_LEAST: u64 = 1 << 20;

/// Collects everything that is wrong with the settings.
#[derive(Debug, Default)]
pub struct Problems {
    found: Vec<String>,
}

impl Problems {
    /// Adds a problem with this flag (named without its dashes).
    pub fn add(&mut self, flag: &str, what: impl fmt::Display) {
        self.found
            .push(format!("--{flag} ({}): {what}", variable(flag)));
    }

    /// Parses a flag's value. Returns the default if it is missing or empty; if `parse` refuses it,
    /// adds a problem and returns the default as well.
    pub fn read<T>(
        &mut self,
        flag: &str,
        value: Option<&str>,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, InvalidValue>,
    ) -> T {
        match given(value).map(parse) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(what)) => {
                self.add(flag, what);
                default
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the configuration is wrong:")?;
        self.found
            .iter()
            .try_for_each(|problem| writeln!(f, "  {problem}"))
    }
}

/// A value that is set: an empty variable counts as unset, as manifests often have them.
pub fn given(value: Option<&str>) -> Option<&str> {
    value.map(str::trim).filter(|value| !value.is_empty())
}

/// The name of a flag's environment variable.
pub(crate) fn variable(flag: &str) -> String {
    format!(
        "AUDIT_BRIDGE_{}",
        flag.to_ascii_uppercase().replace('-', "_")
    )
}

/// A number of bytes: `1MiB`, `250KiB`, `4096`.
pub fn bytes(text: &str) -> Result<usize, InvalidValue> {
    let size: bytesize::ByteSize = text
        .parse()
        .map_err(|_| "is no size; write it like 1MiB, 250KiB or 4096")?;
    match usize::try_from(size.as_u64()) {
        Ok(0) => Err("must be more than 0".into()),
        Ok(bytes) => Ok(bytes),
        Err(_) => Err("is too large".into()),
    }
}

/// A time span above zero: `10s`, `5m`, `1h30m`, `500ms`.
pub fn duration(text: &str) -> Result<Duration, InvalidValue> {
    text.parse::<SignedDuration>()
        .ok()
        .and_then(|span| Duration::try_from(span).ok())
        .filter(|span| !span.is_zero())
        .ok_or_else(|| "is no time span; write it like 10s, 5m or 500ms".into())
}

/// A whole number above zero.
pub fn count(text: &str) -> Result<usize, InvalidValue> {
    match text.parse() {
        Ok(0) | Err(_) => Err("is no whole number above 0".into()),
        Ok(number) => Ok(number),
    }
}

/// A number that is not below `least`.
fn require_at_least(number: usize, least: usize, unit: &str) -> Result<usize, InvalidValue> {
    match number >= least {
        true => Ok(number),
        false => Err(format!("must be at least {least} {unit}").into()),
    }
}

/// `true` or `false`.
pub fn flag(text: &str) -> Result<bool, InvalidValue> {
    text.parse().map_err(|_| "is neither true nor false".into())
}

/// The words of a comma-separated list.
pub fn split_list(text: &str) -> impl Iterator<Item = String> {
    text.split(',')
        .filter_map(|word| given(Some(word)))
        .map(str::to_owned)
}

/// Parses annotations, `KEY=VALUE`. One value may hold several, separated by commas, since an
/// environment variable has to; a comma inside a value is kept if no `KEY=` follows it.
fn annotations(values: &[String]) -> Result<Vec<(String, String)>, InvalidValue> {
    let mut all: Vec<(String, String)> = Vec::new();
    for value in values.iter().filter_map(|value| given(Some(value))) {
        let mut first = true;
        for part in value.split(',') {
            match (part.split_once('='), all.last_mut()) {
                (Some((key, value)), _) if !key.trim().is_empty() => {
                    all.push((key.trim().to_owned(), value.to_owned()));
                }
                (None, Some((_, last))) if !first => {
                    last.push(',');
                    last.push_str(part);
                }
                _ => return Err("is not KEY=VALUE".into()),
            }
            first = false;
        }
    }
    Ok(all)
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The flags of logging, which every command has.
#[derive(Debug, Clone, Args)]
pub(crate) struct LogArgs {
    /// How log lines are written: text or json [default: text on a terminal, else json]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

impl LogArgs {
    /// The format; if not given, it depends on whether the output is a terminal.
    pub(crate) fn format(&self, terminal: bool, problems: &mut Problems) -> LogFormat {
        let default = if terminal {
            LogFormat::Text
        } else {
            LogFormat::Json
        };
        problems.read(
            "log-format",
            self.log_format.as_deref(),
            default,
            |text| match text {
                "text" => Ok(LogFormat::Text),
                "json" => Ok(LogFormat::Json),
                _ => Err("is neither text nor json".into()),
            },
        )
    }
}

/// The flags of delivery that all bridges share.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Delivery")]
pub(crate) struct DeliveryArgs {
    /// Where to POST the events
    #[arg(long, value_name = "URL")]
    pub webhook_url: Option<String>,
    /// Write the events here instead of to a webhook: a file, or - for standard output
    #[arg(long, value_name = "-|PATH")]
    pub output: Option<String>,
    /// With --output: event-list (one POST body per line) or events (one event per line) [default: event-list]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// PEM file with the certificate authority of the webhook, besides the system's
    #[arg(long, value_name = "PATH")]
    pub webhook_ca_file: Option<PathBuf>,
    /// Trust the authority of --webhook-ca-file only, not the system's
    #[arg(long, value_name = "BOOL")]
    pub webhook_ca_only: Option<String>,
    /// PEM file with a client certificate for the webhook, read again when it changes
    #[arg(long, value_name = "PATH")]
    pub webhook_client_cert_file: Option<PathBuf>,
    /// PEM file with the key of the client certificate
    #[arg(long, value_name = "PATH")]
    pub webhook_client_key_file: Option<PathBuf>,
    /// File with a bearer token for the webhook, read again when it changes
    #[arg(long, value_name = "PATH")]
    pub webhook_token_file: Option<PathBuf>,
    /// How long one POST may take [default: 10s]
    #[arg(long, value_name = "SPAN")]
    pub webhook_timeout: Option<String>,
    /// Most events of one POST [default: 400]
    #[arg(long, value_name = "N")]
    pub batch_events_max: Option<String>,
    /// Most bytes of one POST [default: 1MiB]
    #[arg(long, value_name = "SIZE")]
    pub batch_bytes_max: Option<String>,
    /// Longest time that an event waits for others [default: 1s]
    #[arg(long, value_name = "SPAN")]
    pub batch_wait_max: Option<String>,
    /// Largest event; a larger one is shortened, never left out [default: 250KiB]
    #[arg(long, value_name = "SIZE")]
    pub event_bytes_max: Option<String>,
    /// Deepest nesting of a body, the list around its events included; what lies deeper is left
    /// out of the event [default: 250]
    #[arg(long, value_name = "LEVELS")]
    pub event_depth_max: Option<String>,
    /// POSTs at the same time; 1 keeps the order [default: 4]
    #[arg(long, value_name = "N")]
    pub in_flight_batches_max: Option<String>,
    /// Bytes of records read and not yet settled [default: 32MiB]
    #[arg(long, value_name = "SIZE")]
    pub in_flight_bytes_max: Option<String>,
    /// Annotation for every event, KEY=VALUE; may be repeated
    #[arg(long, value_name = "K=V")]
    pub annotate: Vec<String>,
    /// File to keep what cannot be delivered, as JSON Lines
    #[arg(long, value_name = "PATH")]
    pub dead_letter: Option<PathBuf>,
    /// Most bytes of the dead letter, all its files together; 0 is no limit [default: 256MiB]
    #[arg(long, value_name = "SIZE")]
    pub dead_letter_bytes_max: Option<String>,
    /// When the dead letter is full: drop payloads and go on, or hold and read nothing more [default: drop]
    #[arg(long, value_name = "drop|hold")]
    pub dead_letter_full: Option<String>,
}

/// Where events go.
#[derive(Debug, Clone)]
pub(crate) enum Destination {
    /// To a webhook.
    Webhook(WebhookSettings),
    /// To a file, or to standard output (`-`).
    Output(String, Format),
}

impl Destination {
    /// Opens the sink.
    ///
    /// # Errors
    /// The output cannot be written, or a file of the webhook's settings cannot be used: which, and
    /// what to do.
    pub(crate) fn open(&self) -> Result<AnySink, Fatal> {
        match self {
            Destination::Webhook(settings) => Webhook::new(settings)
                .map(AnySink::Webhook)
                .map_err(|error| Fatal::of(&error)),
            Destination::Output(target, format) => JsonLinesOutput::open(target, *format)
                .map(AnySink::Output)
                .map_err(|error| Fatal::of(&error)),
        }
    }
}

/// [`DeliveryArgs`], checked.
#[derive(Debug, Clone)]
pub(crate) struct DeliveryConfig {
    pub destination: Destination,
    pub batch: batch::BatchLimits,
    /// The most concurrent POSTs.
    pub in_flight_batches_max: usize,
    /// Bytes of records read and not yet settled.
    pub in_flight_bytes_max: usize,
    /// Options for every event.
    pub native: conformance::EventOptions,
    pub dead_letter: Option<PathBuf>,
    /// The limits of the dead letter.
    pub dead_letter_limits: dead_letter::DeadLetterLimits,
}

impl DeliveryArgs {
    /// Checks all flags. `default_output` says whether standard output is used if neither a webhook
    /// nor an output is given.
    pub(crate) fn check(&self, default_output: bool, problems: &mut Problems) -> DeliveryConfig {
        let event = conformance::EventOptions::default();
        let native = conformance::EventOptions {
            event_bytes_max: problems.read(
                "event-bytes-max",
                self.event_bytes_max.as_deref(),
                event.event_bytes_max,
                |text| {
                    require_at_least(
                        bytes(text)?,
                        conformance::EventOptions::EVENT_BYTES_MIN,
                        "bytes",
                    )
                },
            ),
            event_depth_max: problems.read(
                "event-depth-max",
                self.event_depth_max.as_deref(),
                event.event_depth_max,
                |text| {
                    require_at_least(
                        count(text)?,
                        conformance::EventOptions::EVENT_DEPTH_MIN,
                        "levels",
                    )
                },
            ),
            annotations: annotations(&self.annotate).unwrap_or_else(|what| {
                problems.add("annotate", what);
                Vec::new()
            }),
        };
        let limits = batch::BatchLimits::default();
        let batch = batch::BatchLimits {
            events_max: problems.read(
                "batch-events-max",
                self.batch_events_max.as_deref(),
                limits.events_max,
                count,
            ),
            bytes_max: problems.read(
                "batch-bytes-max",
                self.batch_bytes_max.as_deref(),
                limits.bytes_max,
                bytes,
            ),
            wait_max: problems.read(
                "batch-wait-max",
                self.batch_wait_max.as_deref(),
                limits.wait_max,
                duration,
            ),
        };
        DeliveryConfig {
            destination: self.destination(default_output, problems),
            batch,
            in_flight_batches_max: problems.read(
                "in-flight-batches-max",
                self.in_flight_batches_max.as_deref(),
                ConcurrencyLimit::default().in_flight_batches_max,
                count,
            ),
            in_flight_bytes_max: problems.read(
                "in-flight-bytes-max",
                self.in_flight_bytes_max.as_deref(),
                32 << 20,
                bytes,
            ),
            native,
            dead_letter: path(self.dead_letter.as_ref()),
            dead_letter_limits: self.dead_letter_limits(problems),
        }
    }

    fn dead_letter_limits(&self, problems: &mut Problems) -> dead_letter::DeadLetterLimits {
        dead_letter::DeadLetterLimits {
            bytes_max: problems.read(
                "dead-letter-bytes-max",
                self.dead_letter_bytes_max.as_deref(),
                Some(dead_letter::DeadLetterLimits::BYTES_MAX),
                |text| match text.parse() {
                    Ok(0_u64) => Ok(None),
                    _ => match bytes(text)? as u64 {
                        size if size >= DEAD_LETTER_BYTES_LEAST => Ok(Some(size)),
                        _ => Err("is too small: 1MiB at least, or 0 for no limit".into()),
                    },
                },
            ),
            when_full: problems.read(
                "dead-letter-full",
                self.dead_letter_full.as_deref(),
                WhenFull::default(),
                |text| match text {
                    "drop" => Ok(WhenFull::Drop),
                    "hold" => Ok(WhenFull::Hold),
                    _ => Err("is neither drop nor hold".into()),
                },
            ),
            ..dead_letter::DeadLetterLimits::default()
        }
    }

    fn destination(&self, default_output: bool, problems: &mut Problems) -> Destination {
        let format = problems.read(
            "format",
            self.format.as_deref(),
            Format::EventList,
            |text| match text {
                "event-list" => Ok(Format::EventList),
                "events" => Ok(Format::Events),
                _ => Err("is neither event-list nor events".into()),
            },
        );
        let output = given(self.output.as_deref());
        let Some(url) = given(self.webhook_url.as_deref()) else {
            if output.is_none() && !default_output {
                problems.add(
                    "webhook-url",
                    "is missing; say where to POST the events, or write them with --output",
                );
            }
            return Destination::Output(output.unwrap_or("-").to_owned(), format);
        };
        if output.is_some() {
            problems.add(
                "output",
                "cannot be combined with --webhook-url; give one of the two",
            );
        }
        if let Err(what) = webhook::parse_url(url) {
            problems.add("webhook-url", what);
        }
        Destination::Webhook(self.webhook(url, problems))
    }

    fn webhook(&self, url: &str, problems: &mut Problems) -> WebhookSettings {
        let timeout = problems.read(
            "webhook-timeout",
            self.webhook_timeout.as_deref(),
            WebhookSettings::TIMEOUT,
            duration,
        );
        let client_cert_file = path(self.webhook_client_cert_file.as_ref());
        let client_key_file = path(self.webhook_client_key_file.as_ref());
        match (&client_cert_file, &client_key_file) {
            (Some(_), None) => problems.add(
                "webhook-client-key-file",
                "is missing; --webhook-client-cert-file needs its key",
            ),
            (None, Some(_)) => problems.add(
                "webhook-client-cert-file",
                "is missing; --webhook-client-key-file needs its certificate",
            ),
            _ => {}
        }
        for (flag, file) in [
            ("webhook-ca-file", self.webhook_ca_file.as_ref()),
            ("webhook-client-cert-file", client_cert_file.as_ref()),
            ("webhook-client-key-file", client_key_file.as_ref()),
            ("webhook-token-file", self.webhook_token_file.as_ref()),
        ] {
            if let Some(error) = path(file).and_then(|file| std::fs::File::open(file).err()) {
                problems.add(flag, format_args!("the file cannot be read: {error}"));
            }
        }
        let ca_file = path(self.webhook_ca_file.as_ref());
        let ca_only = self.webhook_ca_only.as_deref();
        let ca_only = problems.read("webhook-ca-only", ca_only, false, flag);
        if ca_only && ca_file.is_none() {
            problems.add(
                "webhook-ca-only",
                "needs --webhook-ca-file: nobody would be trusted",
            );
        }
        let settings = WebhookSettings {
            ca_file,
            ca_only,
            client_cert_file,
            client_key_file,
            token_file: path(self.webhook_token_file.as_ref()),
            timeout,
            ..WebhookSettings::new(url)
        };
        for error in settings.wrong_files() {
            // Files that cannot be read are reported above.
            if let WebhookError::Unusable {
                flag,
                path,
                problem,
            } = error
            {
                let what = format_args!("{} {problem}", path.display());
                problems.add(flag.trim_start_matches('-'), what);
            }
        }
        settings
    }
}

/// A path that is set: an empty variable counts as unset.
pub fn path(path: Option<&PathBuf>) -> Option<PathBuf> {
    path.filter(|path| !path.as_os_str().is_empty()).cloned()
}
