//! Child processes that cannot outlive the test.
//!
//! Each child is started by a small shell script whose standard input is the reading end of a pipe.
//! Only this process holds the writing end. When it closes, the script kills the child: after
//! [`Process::kill`], a drop, the end of the test binary, or a `kill -9` of the test. A
//! parent-death signal would not work: it follows the thread that started the child, and test
//! threads end before the servers that tests share.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::progress::human;

/// Runs its arguments, writes their process id to the file `$1`, and kills them at the end of
/// standard input.
const SUPERVISE: &str = r#"
exec 3<&0 </dev/null
pid_file=$1
shift
"$@" 3<&- &
child=$!
echo "$child" >"$pid_file.part" && mv "$pid_file.part" "$pid_file"
(read -r _ <&3; kill -KILL "$child" 2>/dev/null) &
watcher=$!
wait "$child"
code=$?
kill -KILL "$watcher" 2>/dev/null
exit "$code"
"#;

const POLL: Duration = Duration::from_millis(10);
const LOG_TAIL_BYTES: u64 = 4_096;

/// Settings of a process to start.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    folder: PathBuf,
}

impl ProcessSpec {
    /// Creates the settings for a program whose log (both output streams) is `folder/name.log`.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>, folder: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            folder: folder.into(),
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable of the child.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Starts it. The log of an earlier run with the same name is appended to.
    ///
    /// # Errors
    /// When the shell, the program or the log cannot be opened.
    pub fn spawn(&self) -> Result<Process> {
        fs::create_dir_all(&self.folder).with_context(|| format!("create {}", self.folder.display()))?;
        let log = self.folder.join(format!("{}.log", self.name));
        let pid_file = self.folder.join(format!("{}.pid", self.name));
        if pid_file.exists() {
            fs::remove_file(&pid_file).with_context(|| format!("remove {}", pid_file.display()))?;
        }
        let output = File::options().create(true).append(true).open(&log);
        let output = output.with_context(|| format!("open {}", log.display()))?;
        let supervisor = Command::new("sh")
            .args(["-c", SUPERVISE, "supervise"])
            .arg(&pid_file)
            .arg(&self.program)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(output.try_clone().context("share the log between both output streams")?)
            .stderr(output)
            // Its own process group: Ctrl-C in a terminal ends only this process, which then ends
            // the child in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        let mut process = Process {
            name: self.name.clone(),
            supervisor,
            pid: None,
            log,
        };
        process.pid = Some(process.read_pid(&pid_file)?);
        Ok(process)
    }
}

/// A running child. Dropping it ends the process.
#[derive(Debug)]
pub struct Process {
    name: String,
    supervisor: Child,
    pid: Option<Pid>,
    log: PathBuf,
}

impl Process {
    fn read_pid(&mut self, pid_file: &Path) -> Result<Pid> {
        let began = Instant::now();
        loop {
            if let Ok(text) = fs::read_to_string(pid_file) {
                let number = text
                    .trim()
                    .parse()
                    .with_context(|| format!("process id of {}", self.name))?;
                return Pid::from_raw(number).with_context(|| format!("process id of {} is zero", self.name));
            }
            if let Some(status) = self.try_wait()? {
                bail!("{} ended at once ({status}):\n{}", self.name, self.log_tail());
            }
            if began.elapsed() > Duration::from_secs(10) {
                bail!(
                    "{} did not start within ten seconds:\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            std::thread::sleep(POLL);
        }
    }

    /// Returns the process id of the program itself.
    pub fn pid(&self) -> u32 {
        self.pid
            .map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Returns the path of the log with both output streams.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Returns the whole log so far. Invalid UTF-8 is replaced.
    pub fn log_text(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Returns the last lines of the log, for messages of failed tests.
    pub fn log_tail(&self) -> String {
        tail(&self.log).unwrap_or_else(|error| format!("(no log: {error})"))
    }

    /// Sends a signal, such as `Signal::TERM`, to the program.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid.context("the process has no id")?;
        kill_process(pid, signal).with_context(|| format!("signal {}", self.name))
    }

    /// Returns its exit status, or `None` while it runs. If a signal ended the program, the code is
    /// 128 plus the number of the signal.
    ///
    /// # Errors
    /// When the operating system returns an error.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        self.supervisor
            .try_wait()
            .with_context(|| format!("wait for {}", self.name))
    }

    /// Waits until it has ended by itself or by a signal. Blocks the thread.
    ///
    /// # Errors
    /// When it still runs after `limit`; the last lines of the log are in the message.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            if began.elapsed() > limit {
                bail!(
                    "{} still runs after {}:\n{}",
                    self.name,
                    human(limit),
                    self.log_tail()
                );
            }
            std::thread::sleep(POLL);
        }
    }

    /// Fails with the end of the log if the program has ended.
    ///
    /// # Errors
    /// When it has ended.
    pub fn ensure_running(&mut self) -> Result<()> {
        match self.try_wait()? {
            Some(status) => {
                let code = status.code().or(status.signal()).unwrap_or_default();
                bail!(
                    "{} ended with code {code}; the end of its log:\n{}",
                    self.name,
                    self.log_tail()
                )
            }
            None => Ok(()),
        }
    }

    /// Kills it (signal 9) and waits until it has ended.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Removes a folder when this process ends, for whatever reason.
pub(crate) fn remove_at_exit(folder: &Path) -> Result<Child> {
    Command::new("sh")
        // Servers that end for the same reason may still write for a second.
        .args(["-c", r#"read -r _; sleep 1; rm -rf -- "$1""#, "remove"])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("start the shell that removes the folder")
}

fn tail(path: &Path) -> Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
