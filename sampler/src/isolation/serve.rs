//! The child's own side.

use std::env;
use std::io;
use std::os::fd::OwnedFd;
use std::process;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::channel::Channel;
use super::child::Limits;
use super::confinement;

/// What a child is called instead of its program's name, by which it knows
/// itself.
pub(super) const CHILD_NAME: &str = "sampler: parser";

/// What a parent may send at once.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// The exit codes of a child.
const DONE: i32 = 0;
const REFUSED: i32 = 3;

/// What a child does.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// The name that [`super::Child::start`] asks for.
    pub name: &'static str,
    /// Serves until the parent has no more to ask.
    pub run: fn(Parent),
}

/// The first thing that a child says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Hello {
    /// It has no rights any more.
    Confined,
    /// It still has some; this is what has failed.
    Refused(String),
}

/// The parent, as its child sees it.
#[derive(Debug)]
pub struct Parent {
    channel: Channel,
}

impl Parent {
    /// Receives a message and the file that came with it. An error says that
    /// there will be none.
    pub fn receive<T: DeserializeOwned>(&self) -> io::Result<(T, Option<OwnedFd>)> {
        let frame = self.channel.receive(MAX_MESSAGE_BYTES, true, None)?;
        let message = postcard::from_bytes(&frame.bytes).map_err(io::Error::other)?;
        Ok((message, frame.file))
    }

    /// Sends a message. An error says that nobody will receive it.
    pub fn send(&self, message: &impl Serialize) -> io::Result<()> {
        let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
        self.send_bytes(&bytes)
    }

    /// Sends bytes that are a message as they are.
    pub fn send_bytes(&self, bytes: &[u8]) -> io::Result<()> {
        self.channel.send(bytes, None, None)
    }
}

/// Becomes a child, if this process was started as one, and does not return
/// then. To be called before anything else, while there is one thread.
pub fn serve_if_child(services: &[Service]) {
    let mut arguments = env::args_os();
    if arguments.next().is_none_or(|name| name != CHILD_NAME) {
        return;
    }
    let arguments: Vec<String> = arguments
        .filter_map(|argument| argument.into_string().ok())
        .collect();
    let service = services
        .iter()
        .find(|service| arguments.first().is_some_and(|name| name == service.name));
    let numbers: Vec<u64> = arguments
        .iter()
        .skip(1)
        .filter_map(|argument| argument.parse().ok())
        .collect();
    let (Some(service), [parent, data_bytes, stack_bytes]) = (service, &numbers[..]) else {
        process::exit(REFUSED);
    };
    // What a panic has to say nobody would read, and it may quote what is hostile.
    std::panic::set_hook(Box::new(|_| {}));
    let limits = Limits {
        data_bytes: *data_bytes,
        stack_bytes: *stack_bytes,
    };
    let Ok(socket) = confinement::keep_only_the_socket() else {
        process::exit(REFUSED);
    };
    let parent_end = Parent {
        channel: Channel::new(socket),
    };
    match confinement::confine(*parent as u32, limits) {
        Ok(()) if parent_end.send(&Hello::Confined).is_ok() => {
            (service.run)(parent_end);
            process::exit(DONE)
        }
        Ok(()) => process::exit(REFUSED),
        Err(failed) => {
            let _ = parent_end.send(&Hello::Refused(failed.to_string()));
            process::exit(REFUSED)
        }
    }
}
