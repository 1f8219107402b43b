//! A running bridge, observed from outside: its log, admin port and exit status.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use audit_bridge_testkit::WebhookAnswer;

use crate::command;

/// The longest that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running bridge. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    admin: Option<SocketAddr>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // After a failure, show the bridge's last log lines.
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines.iter().skip(lines.len().saturating_sub(20));
            let said = last.map(|line| format!("{line}\n")).collect::<String>();
            let _ = std::io::stderr().write_all(said.as_bytes());
        }
    }
}

impl Running {
    /// Starts `run` with these flags and variables, and its own admin port.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start(provider: &str, args: &[&str], variables: &[(&str, &str)]) -> Running {
        let mut all = vec![
            "run",
            "--admin-address",
            "127.0.0.1:0",
            "--log-format",
            "json",
        ];
        all.extend(args);
        let child = command(provider, &all)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => unreachable!("{provider}: {error}"),
        };
        let lines = Arc::new(Mutex::new(Vec::new()));
        if let Some(stderr) = child.stderr.take() {
            let lines = Arc::clone(&lines);
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                    lines.push(line);
                }
            });
        }
        Running {
            child,
            admin: None,
            lines,
        }
    }

    /// The log so far.
    pub fn log(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.join("\n")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Number of open files and connections; 0 if it has ended.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count)
    }

    /// The address of its admin port, once it is in the log.
    ///
    /// # Panics
    /// It is never logged.
    pub fn admin(&mut self) -> SocketAddr {
        if let Some(admin) = self.admin {
            return admin;
        }
        let found = wait(|| {
            let log = self.log();
            if let Ok(Some(status)) = self.child.try_wait() {
                unreachable!("it ended with {status}:\n{log}");
            }
            let started = log.lines().find(|line| line.contains("\"admin\":\""))?;
            let line: serde_json::Value = serde_json::from_str(started).ok()?;
            line["admin"].as_str()?.parse().ok()
        });
        match found {
            Some(admin) => *self.admin.insert(admin),
            None => unreachable!("it did not start:\n{}", self.log()),
        }
    }

    /// A page of its admin port: the status (0 if there is no answer) and the body.
    pub fn get(&mut self, path: &str) -> (u16, String) {
        let admin = self.admin();
        let answer = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(admin)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
            )?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        let text = answer().unwrap_or_default();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
        let status = head.split(' ').nth(1).and_then(|it| it.parse().ok());
        (status.unwrap_or(0), body.to_owned())
    }

    /// The sum of a metric over its labels; 0 if it is absent.
    pub fn metric(&mut self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| line.rsplit_once(' '))
            .filter(|(sample, _)| sample.split('{').next() == Some(name))
            .filter_map(|(_, value)| value.parse::<f64>().ok())
            .sum()
    }

    /// Waits until a metric, summed over its labels, has this value. An event that the receiver has
    /// accepted is counted a moment later, when the bridge has read the answer.
    ///
    /// # Panics
    /// It never has this value.
    pub fn until_metric(&mut self, name: &str, value: f64) {
        let mut last = f64::NAN;
        let reached = wait(|| {
            last = self.metric(name);
            ((last - value).abs() < f64::EPSILON).then_some(())
        });
        let log = self.log();
        assert!(reached.is_some(), "{name} is {last}, not {value}\n{log}");
    }

    /// Waits until a metric, summed over its labels, exceeds this.
    ///
    /// # Panics
    /// It never does.
    pub fn until_above(&mut self, name: &str, value: f64) {
        let mut last = f64::NAN;
        let reached = wait(|| {
            last = self.metric(name);
            (last > value).then_some(())
        });
        let log = self.log();
        assert!(
            reached.is_some(),
            "{name} is {last}, not above {value}\n{log}"
        );
    }

    /// Waits until `/metrics` contains this text.
    ///
    /// # Panics
    /// It never does.
    pub fn until_sample(&mut self, text: &str) {
        let mut last = String::new();
        let found = wait(|| {
            last = self.get("/metrics").1;
            last.contains(text).then_some(())
        });
        assert!(found.is_some(), "no {text} in {last}\n{}", self.log());
    }

    /// The reasons on `/readyz`; `Null` if the bridge is ready.
    pub fn not_ready(&mut self) -> serde_json::Value {
        let (status, body) = self.get("/readyz");
        match status {
            200 => serde_json::Value::Null,
            _ => serde_json::from_str::<serde_json::Value>(&body)
                .map_or_else(|_| body.into(), |body| body["not_ready"].clone()),
        }
    }

    /// Waits until the bridge is ready.
    ///
    /// # Panics
    /// It never is.
    pub fn until_ready(&mut self) {
        let mut why = serde_json::Value::Null;
        let ready = wait(|| {
            why = self.not_ready();
            why.is_null().then_some(())
        });
        assert!(ready.is_some(), "not ready: {why}\n{}", self.log());
    }

    /// Waits until a part is not ready for a reason that contains `says`. Returns the reason.
    ///
    /// # Panics
    /// That never happens.
    pub fn until_not_ready(&mut self, part: &str, says: &str) -> String {
        let mut last = serde_json::Value::Null;
        let found = wait(|| {
            last = self.not_ready();
            let why = last[part].as_str()?;
            why.contains(says).then(|| why.to_owned())
        });
        match found {
            Some(why) => why,
            None => unreachable!("{part} never said {says:?} but {last}\n{}", self.log()),
        }
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends SIGTERM and returns the exit status; -1 if the bridge does not end.
    pub fn terminate(mut self) -> i32 {
        self.signal("TERM");
        self.until_end()
    }

    /// Sends a signal, named without the SIG.
    ///
    /// # Panics
    /// That fails.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let mut kill = std::process::Command::new("kill");
        let sent = kill.args(["-s", name, &pid]).status();
        assert!(sent.is_ok_and(|sent| sent.success()), "kill {name} {pid}");
    }

    /// The exit status once the bridge ends by itself; -1 if it does not.
    pub fn until_end(&mut self) -> i32 {
        let ended = wait(|| self.child.try_wait().ok().flatten());
        ended.and_then(|status| status.code()).unwrap_or(-1)
    }
}

/// The next answers of a failing receiver: up to three, mostly errors, all of them temporary.
pub fn trouble(dice: &mut fastrand::Rng) -> Vec<WebhookAnswer> {
    let answers = 0..dice.usize(0..4);
    let answers = answers.map(|_| match dice.u32(0..7) {
        0 => WebhookAnswer::status(500),
        1 => WebhookAnswer::status(503).header("retry-after", "1"),
        2 => WebhookAnswer::status(429),
        3 => WebhookAnswer::reset_before_reading(),
        4 => WebhookAnswer::reset_after_reading(),
        5 => WebhookAnswer::half(),
        _ => WebhookAnswer::status(200).after(Duration::from_millis(60)),
    });
    answers.collect()
}

/// Polls until there is a value, with a time limit.
pub fn wait<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if begun.elapsed() > PATIENCE {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
