//! The other side of a bench: a peer's script in a Python environment of its own.

use crate::memory;
use include_dir::{Dir, include_dir};
use offprint_core::bench::Case;
use offprint_core::{Error, Result, artifact};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

static SCRIPTS: Dir = include_dir!("$CARGO_MANIFEST_DIR/../../peers");

/// The environment of a field's peers, and the script of one paper in it.
pub struct Environment {
    home: PathBuf,
    script: PathBuf,
    requirements: &'static str,
}

/// A peer's process, ready to do one workload again and again.
pub struct Peer {
    child: Child,
    requests: ChildStdin,
    replies: BufReader<ChildStdout>,
    /// Names and versions of the peer's packages.
    pub versions: String,
}

impl Environment {
    /// The environment for the peer of `slug` in the room `field`; `None` if it has no peer. Nothing is installed yet.
    pub fn of(slug: &str, field: &str) -> Result<Option<Self>> {
        let name = format!("{slug}.py");
        let text = |name: &str| SCRIPTS.get_file(name).and_then(|f| f.contents_utf8());
        let (Some(script), Some(requirements)) = (text(&name), text(&format!("requirements-{field}.txt"))) else {
            return Ok(None);
        };
        let home = cache()?.join("peers").join(field);
        std::fs::create_dir_all(&home).map_err(|e| Error::file("create", &home, e))?;
        let place = |name: &str, text: &str| {
            let path = home.join(name);
            artifact::write_whole(&path, |out| out.write_all(text.as_bytes())).map(|()| path)
        };
        place("offprint_peer.py", text("offprint_peer.py").expect("beside the scripts"))?;
        let script = place(&name, script)?;
        Ok(Some(Self { home, script, requirements }))
    }

    fn python(&self) -> PathBuf {
        self.home.join(if cfg!(windows) { "venv/Scripts/python.exe" } else { "venv/bin/python" })
    }

    /// Whether the requirements were installed, and have not changed since.
    pub fn is_installed(&self) -> bool {
        std::fs::read_to_string(self.home.join("installed.txt")).is_ok_and(|r| r == self.requirements)
            && self.python().exists()
    }

    /// Makes the environment and installs the requirements from PyPI.
    pub fn install(&self) -> Result<()> {
        let requirements = self.home.join("requirements.txt");
        artifact::write_whole(&requirements, |out| out.write_all(self.requirements.as_bytes()))?;
        let python = if cfg!(windows) { "python" } else { "python3" };
        let venv = self.home.join("venv");
        let file: &OsStr = requirements.as_ref();
        command(python.as_ref(), &["-m".as_ref(), "venv".as_ref(), venv.as_ref()])?;
        command(
            &self.python(),
            &["-m".as_ref(), "pip".as_ref(), "install".as_ref(), "--quiet".as_ref(), "-r".as_ref(), file],
        )?;
        artifact::write_whole(&self.home.join("installed.txt"), |out| out.write_all(self.requirements.as_bytes()))
    }

    /// Starts the peer on `case`, whose inputs lie in `directory`, with `threads` threads.
    pub fn start(&self, case: &Case, directory: &Path, threads: usize) -> Result<Peer> {
        let mut command = Command::new(self.python());
        command.arg(&self.script).stdin(Stdio::piped()).stdout(Stdio::piped());
        for variable in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"] {
            command.env(variable, threads.to_string());
        }
        // A peer that waits for its next turn must not burn the core that ours is timed on.
        command.env("OMP_WAIT_POLICY", "PASSIVE").env("PYTHONUNBUFFERED", "1");
        if threads == 1 {
            command.env("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1");
        }
        let mut child = command.spawn().map_err(|e| Error::file("start", &self.python(), e))?;
        let requests = child.stdin.take().expect("piped");
        let replies = BufReader::new(child.stdout.take().expect("piped"));
        let mut peer = Peer { child, requests, replies, versions: String::new() };
        let reply = peer.ask(&json!({ "case": case.name, "directory": directory, "settings": case.settings }))?;
        let versions: Vec<&str> = reply["ready"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        peer.versions = versions.join(", ");
        Ok(peer)
    }
}

impl Peer {
    /// Does the work once: seconds, and the answer.
    pub fn run(&mut self) -> Result<(f64, Vec<f64>)> {
        let reply = self.ask(&json!({ "run": true }))?;
        let seconds = reply["seconds"].as_f64().unwrap_or(f64::NAN);
        let answer = reply["answer"].as_array().into_iter().flatten().map(|x| x.as_f64().unwrap_or(f64::NAN)).collect();
        Ok((seconds, answer))
    }

    /// The most memory that the peer's process has held so far, in bytes.
    pub fn peak_memory(&self) -> Option<u64> {
        memory::peak(self.child.id())
    }

    fn ask(&mut self, request: &Value) -> Result<Value> {
        let failed = |what: String| Error::Numerical(format!("the peer {what}"));
        writeln!(self.requests, "{request}").map_err(|e| failed(format!("went away: {e}")))?;
        let mut line = String::new();
        self.replies.read_line(&mut line).map_err(|e| failed(format!("went away: {e}")))?;
        // Python writes NaN and Infinity, which JSON does not know.
        let line = line.replace("NaN", "null").replace("-Infinity", "null").replace("Infinity", "null");
        let reply: Value = serde_json::from_str(&line)
            .map_err(|_| failed("ended without an answer; what it said stands above".into()))?;
        match reply["error"].as_str() {
            Some(error) => Err(failed(format!("failed: {error}"))),
            None => Ok(reply),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may be in the middle of a long computation; nobody waits for the answer any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where environments are kept between runs: `OFFPRINT_CACHE`, or the user's cache directory.
fn cache() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    variable("OFFPRINT_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|d| d.join("offprint")))
        .or_else(|| variable("HOME").map(|d| d.join(".cache/offprint")))
        .or_else(|| variable("LOCALAPPDATA").map(|d| d.join("offprint")))
        .ok_or_else(|| {
            Error::Numerical("no place for the peer's environment: set OFFPRINT_CACHE to a directory".into())
        })
}

fn command(program: &Path, arguments: &[&OsStr]) -> Result<()> {
    // Standard output belongs to the result.
    let done = Command::new(program).args(arguments).stdout(Stdio::null()).status();
    let status = done.map_err(|e| Error::file("start", program, e))?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::Numerical(format!("{} {} failed ({status})", program.display(), arguments[1].display())))
    }
}
