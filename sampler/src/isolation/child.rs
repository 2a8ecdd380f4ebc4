//! A child, as its parent sees it.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::census;
use super::channel::Channel;
use super::serve::{CHILD_NAME, Hello};

/// How long a child may take until it has given up its rights.
const START: Duration = Duration::from_secs(20);
/// How long a killed child is waited for. One that hangs in the kernel, on a
/// file system that does not answer, stays behind.
const END: Duration = Duration::from_secs(2);
/// What a greeting may be long.
const MAX_HELLO_BYTES: usize = 4 << 10;

/// What a child may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory that no file backs, its program's own included, in bytes.
    pub data_bytes: u64,
    /// Its stack, in bytes.
    pub stack_bytes: u64,
}

/// Why there is nothing more to expect of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// It has ended, or was ended by somebody else.
    #[error("it has ended")]
    Ended,
    /// It has not answered in time.
    #[error("it does not answer")]
    TimedOut,
    /// It has answered what no sound child would.
    #[error("its answer makes no sense")]
    Nonsense,
}

impl From<io::Error> for Lost {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::InvalidData => Self::Nonsense,
            _ => Self::Ended,
        }
    }
}

/// A child without rights. It is killed when this is dropped.
#[derive(Debug)]
pub struct Child {
    pid: libc::pid_t,
    channel: Channel,
}

impl Child {
    /// Starts a child that runs a service, and waits until it is confined.
    ///
    /// It ends with the thread that starts it, at the latest.
    pub fn start(service: &str, limits: Limits) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let started = Command::new("/proc/self/exe")
            .arg0(CHILD_NAME)
            .arg(service)
            .arg(std::process::id().to_string())
            .arg(limits.data_bytes.to_string())
            .arg(limits.stack_bytes.to_string())
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A terminal's signals are not meant for it.
            .process_group(0)
            .spawn()?;
        let pid = started.id() as libc::pid_t;
        census::born(pid);
        let child = Self {
            pid,
            channel: Channel::new(ours.into()),
        };
        let hello = child.receive(MAX_HELLO_BYTES, Instant::now() + START);
        match hello.map_err(io::Error::other)? {
            Hello::Confined => Ok(child),
            Hello::Refused(step) => Err(io::Error::other(format!("it cannot be confined: {step}"))),
        }
    }

    /// Its process ID.
    pub fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// Sends a message, with a file if there is one.
    pub fn send(
        &self,
        message: &impl Serialize,
        file: Option<BorrowedFd<'_>>,
        deadline: Instant,
    ) -> Result<(), Lost> {
        let bytes = postcard::to_stdvec(message).map_err(|_| Lost::Nonsense)?;
        Ok(self.channel.send(&bytes, file, Some(deadline))?)
    }

    /// Receives a message of at most so many bytes.
    pub fn receive<T: DeserializeOwned>(
        &self,
        max_bytes: usize,
        deadline: Instant,
    ) -> Result<T, Lost> {
        let frame = self.channel.receive(max_bytes, false, Some(deadline))?;
        match postcard::take_from_bytes(&frame.bytes) {
            Ok((message, [])) => Ok(message),
            _ => Err(Lost::Nonsense),
        }
    }

    /// Receives what [`super::Parent::send_bytes`] sends, at most so many bytes.
    pub fn receive_bytes(&self, max_bytes: usize, deadline: Instant) -> Result<Vec<u8>, Lost> {
        let frame = self.channel.receive(max_bytes, false, Some(deadline))?;
        Ok(frame.bytes)
    }

    /// Whether it waits to be asked: one that talks unasked, or is gone, does not.
    pub fn is_ready(&self) -> bool {
        self.channel.is_quiet()
    }

    /// CPU time that it has used, in nanoseconds.
    pub fn cpu_ns(&self) -> u64 {
        census::cpu_ns_of(self.pid)
    }

    /// Lets it use so much more CPU time before the kernel ends it.
    pub fn allow_cpu(&self, more: Duration) {
        let used_ns = self.cpu_ns();
        let limit = libc::rlimit {
            rlim_cur: (Duration::from_nanos(used_ns) + more).as_secs() + 1,
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: the kernel reads one limit. It can fail only for a child that
        // is gone, which whoever asks it will hear of.
        unsafe {
            libc::prlimit(
                self.pid,
                libc::RLIMIT_CPU,
                &raw const limit,
                ptr::null_mut(),
            )
        };
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: signals a child that has not been waited for, so the number is
        // still its own.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        let deadline = Instant::now() + END;
        loop {
            if let Some(status) = census::reap(self.pid) {
                tracing::debug!(self.pid, status, "a child has ended");
                return;
            }
            if Instant::now() >= deadline {
                tracing::warn!(self.pid, "a child cannot be ended");
                return;
            }
            thread::sleep(Duration::from_micros(200));
        }
    }
}
