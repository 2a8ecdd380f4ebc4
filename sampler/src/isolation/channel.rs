//! Messages over a socket: a length, that many bytes, and at most one file.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::time::Instant;

/// The length before each message: 32 bits, little-endian.
const HEADER_BYTES: usize = 4;
/// Room for the control message that carries one descriptor, aligned as it has
/// to be: 24 bytes on 64-bit systems.
const CONTROL_WORDS: usize = 3;

/// One end of the socket.
#[derive(Debug)]
pub(super) struct Channel {
    socket: OwnedFd,
}

/// A message as it came.
#[derive(Debug)]
pub(super) struct Frame {
    pub bytes: Vec<u8>,
    pub file: Option<OwnedFd>,
}

impl Channel {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Sends a message, with a file if there is one. Gives up at the deadline
    /// with `TimedOut`.
    pub(super) fn send(
        &self,
        bytes: &[u8],
        file: Option<BorrowedFd<'_>>,
        deadline: Option<Instant>,
    ) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let header = length.to_le_bytes();
        let (mut parts, mut file) = ([&header[..], bytes], file);
        while parts.iter().any(|part| !part.is_empty()) {
            self.wait(libc::POLLOUT, deadline)?;
            let Some(mut sent) = attempted(self.send_some(parts, file, deadline.is_some()))? else {
                continue;
            };
            // The first byte has taken it along.
            file = None;
            for part in &mut parts {
                let of_this = sent.min(part.len());
                *part = &part[of_this..];
                sent -= of_this;
            }
        }
        Ok(())
    }

    fn send_some(
        &self,
        parts: [&[u8]; 2],
        file: Option<BorrowedFd<'_>>,
        at_once: bool,
    ) -> io::Result<usize> {
        let mut vectors = parts.map(|part| libc::iovec {
            iov_base: part.as_ptr().cast_mut().cast(),
            iov_len: part.len(),
        });
        let mut control = [0_u64; CONTROL_WORDS];
        // SAFETY: all zeros is a valid header of an empty message.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = vectors.as_mut_ptr();
        message.msg_iovlen = vectors.len() as _;
        if let Some(file) = file {
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = size_of_val(&control) as _;
            // SAFETY: the control buffer is aligned and has room for one header
            // and one descriptor, so the header is inside of it.
            unsafe {
                let header = libc::CMSG_FIRSTHDR(&raw const message);
                (*header).cmsg_level = libc::SOL_SOCKET;
                (*header).cmsg_type = libc::SCM_RIGHTS;
                (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
                libc::CMSG_DATA(header)
                    .cast::<RawFd>()
                    .write_unaligned(file.as_raw_fd());
            }
        }
        let flags = libc::MSG_NOSIGNAL | if at_once { libc::MSG_DONTWAIT } else { 0 };
        // SAFETY: the message points to parts and a control buffer that live for
        // the call, which only reads them.
        count(unsafe { libc::sendmsg(self.socket.as_raw_fd(), &raw const message, flags) })
    }

    /// Receives a message of at most so many bytes. One that is longer is
    /// `InvalidData`, the end of the other side `UnexpectedEof`. Files are taken
    /// only where `takes_file` says so; the kernel closes others.
    pub(super) fn receive(
        &self,
        max_bytes: usize,
        takes_file: bool,
        deadline: Option<Instant>,
    ) -> io::Result<Frame> {
        let mut header = [0; HEADER_BYTES];
        let mut file = None;
        self.fill(&mut header, takes_file.then_some(&mut file), deadline)?;
        let length = u32::from_le_bytes(header) as usize;
        if length > max_bytes {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; length];
        self.fill(&mut bytes, None, deadline)?;
        Ok(Frame { bytes, file })
    }

    /// Receives exactly as many bytes as fit into the buffer.
    pub(super) fn fill(
        &self,
        mut buffer: &mut [u8],
        mut file: Option<&mut Option<OwnedFd>>,
        deadline: Option<Instant>,
    ) -> io::Result<()> {
        while !buffer.is_empty() {
            self.wait(libc::POLLIN, deadline)?;
            let received = self.receive_some(buffer, file.as_deref_mut(), deadline.is_some());
            match attempted(received)? {
                Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(received) => buffer = &mut buffer[received..],
                None => {}
            }
        }
        Ok(())
    }

    fn receive_some(
        &self,
        buffer: &mut [u8],
        file: Option<&mut Option<OwnedFd>>,
        at_once: bool,
    ) -> io::Result<usize> {
        let mut vector = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        let mut control = [0_u64; CONTROL_WORDS];
        // SAFETY: all zeros is a valid header of an empty message.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        if file.is_some() {
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = size_of_val(&control) as _;
        }
        let flags = libc::MSG_CMSG_CLOEXEC | if at_once { libc::MSG_DONTWAIT } else { 0 };
        // SAFETY: the message points to a buffer and a control buffer that live
        // for the call and are as long as it says.
        let received =
            count(unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, flags) })?;
        if let Some(file) = file {
            // SAFETY: the kernel has filled in the message and the control
            // buffer, which has room for one header with one descriptor.
            let found = unsafe { descriptor(&message) };
            *file = found.or(file.take());
        }
        Ok(received)
    }

    /// Whether the other side is there and has sent nothing.
    pub(super) fn is_quiet(&self) -> bool {
        matches!(self.poll(libc::POLLIN, 0), Ok(0))
    }

    /// Waits until the socket is ready, where there is a deadline.
    fn wait(&self, events: libc::c_short, deadline: Option<Instant>) -> io::Result<()> {
        let Some(deadline) = deadline else {
            return Ok(());
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let left_ms = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).max(1);
        // Whoever asks tries to send or receive, and comes back if that was in vain.
        attempted(self.poll(events, left_ms)).map(|_| ())
    }

    /// How many of one socket are ready.
    fn poll(&self, events: libc::c_short, wait_ms: i32) -> io::Result<usize> {
        let mut watched = libc::pollfd {
            fd: self.socket.as_raw_fd(),
            events,
            revents: 0,
        };
        // SAFETY: one descriptor is watched, in a structure that lives for the call.
        count(unsafe { libc::poll(&raw mut watched, 1, wait_ms) } as isize)
    }
}

/// The descriptor in a message's control buffer.
///
/// # Safety
///
/// The message is as `recvmsg` left it, and its control buffer is still there.
unsafe fn descriptor(message: &libc::msghdr) -> Option<OwnedFd> {
    // SAFETY: the caller says that the buffer is as the kernel wrote it; it
    // writes whole headers with whole descriptors only.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(message).as_ref()?;
        if header.cmsg_level != libc::SOL_SOCKET || header.cmsg_type != libc::SCM_RIGHTS {
            return None;
        }
        let fd: RawFd = libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned();
        Some(OwnedFd::from_raw_fd(fd))
    }
}

fn count(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// `None` if it is to be tried again.
fn attempted(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is the failure report
    use std::fs::File;
    use std::io::Read as _;
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn channels() -> (Channel, Channel) {
        let (one, other) = UnixStream::pair().unwrap();
        (Channel::new(one.into()), Channel::new(other.into()))
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(50)
    }

    #[test]
    fn messages_arrive_as_they_were_sent_whatever_their_length() {
        let (here, there) = channels();
        let long: Vec<u8> = (0..3 << 20).map(|at: u32| at as u8).collect();
        let expected = long.clone();
        let sender = thread::spawn(move || {
            for message in [&b"one"[..], b"", &long] {
                here.send(message, None, None).unwrap();
            }
        });
        for message in [&b"one"[..], b"", &expected] {
            let frame = there.receive(4 << 20, false, None).unwrap();
            assert_eq!(frame.bytes, message);
        }
        sender.join().unwrap();
        let error = there.receive(1, false, None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_file_comes_with_its_message_where_it_is_wanted() {
        let (here, there) = channels();
        let file = File::open("/proc/self/comm").unwrap();
        here.send(b"a", Some(file.as_fd()), Some(soon())).unwrap();
        here.send(b"b", Some(file.as_fd()), None).unwrap();
        let frame = there.receive(1, true, Some(soon())).unwrap();
        let mut text = String::new();
        File::from(frame.file.unwrap())
            .read_to_string(&mut text)
            .unwrap();
        assert!(!text.is_empty());
        assert!(there.receive(1, false, None).unwrap().file.is_none());
    }

    #[test]
    fn a_message_longer_than_allowed_is_not_taken() {
        let (here, there) = channels();
        here.send(b"12345", None, None).unwrap();
        let error = there.receive(4, false, Some(soon())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn neither_end_waits_beyond_the_deadline() {
        let (here, there) = channels();
        let error = there.receive(4, false, Some(soon())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let error = here
            .send(&vec![0; 64 << 20], None, Some(soon()))
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
