//! Which core does what, by `taskset` of util-linux.

use std::process::{Command, Stdio};

/// The bridge's core, as `taskset` counts them.
pub(crate) const BRIDGE: &str = "0";
/// The receiver's.
pub(crate) const RECEIVER: &str = "1";

/// Keeps this thread, and the threads that it starts, on a core. `false` when that is not possible.
pub(crate) fn keep_this_thread_on(core: &str) -> bool {
    let Ok(thread) = std::fs::read_link("/proc/thread-self") else {
        return false;
    };
    let Some(id) = thread.file_name() else {
        return false;
    };
    Command::new("taskset")
        .args(["-c", "-p", core])
        .arg(id)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The same command, kept on a core if that is possible.
pub(crate) fn on(core: &str, command: Command) -> Command {
    let possible = Command::new("taskset")
        .args(["-c", core, "true"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !possible {
        return command;
    }
    let mut pinned = Command::new("taskset");
    pinned
        .args(["-c", core])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => pinned.env(name, value),
            None => pinned.env_remove(name),
        };
    }
    pinned
}
