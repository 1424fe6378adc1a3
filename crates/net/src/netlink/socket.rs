//! A blocking netlink socket. It keeps the namespace of the thread that opened it, whoever uses it later.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr};

use super::message::{Message, NLM_F_ACK, header_of};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The kernel answers at once; this only keeps a lost answer from hanging a thread for ever.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("netlink socket: {0}")]
    Socket(#[source] io::Error),
    #[error("{what}: {source}")]
    Refused {
        what: String,
        #[source]
        source: io::Error,
    },
}

impl NetlinkError {
    /// Whether the kernel's answer was this errno.
    pub fn is(&self, errno: i32) -> bool {
        matches!(self, Self::Refused { source, .. } if source.raw_os_error() == Some(errno))
    }
}

pub struct NetlinkSocket {
    socket: Socket,
    sequence: u32,
    sending_bytes: usize,
}

impl NetlinkSocket {
    /// Opens a socket in the calling thread's namespace. `protocol` is `libc::NETLINK_*`.
    pub fn open(protocol: i32) -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(protocol as isize).map_err(NetlinkError::Socket)?;
        socket.bind_auto().map_err(NetlinkError::Socket)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(NetlinkError::Socket)?;
        let this = Self { socket, sequence: 0, sending_bytes: 0 };
        rustix::net::sockopt::set_socket_timeout(
            this.fd(),
            rustix::net::sockopt::Timeout::Recv,
            Some(ANSWER_TIMEOUT),
        )
        .map_err(|error| NetlinkError::Socket(error.into()))?;
        Ok(this)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor belongs to `self.socket`, which outlives the borrow.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }

    pub fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends one message and waits for its acknowledgement. `what` names the operation in an error.
    pub fn request(&mut self, what: &str, message: &mut Message, sequence: u32) -> Result<(), NetlinkError> {
        message.add_flags(NLM_F_ACK);
        self.send(message.as_bytes())?;
        self.wait(what, sequence, |_, _| ())
    }

    /// Sends a dump request; every object goes to `each` as (message type, body after the netlink header).
    pub fn dump(
        &mut self,
        what: &str,
        message: &Message,
        sequence: u32,
        each: impl FnMut(u16, &[u8]),
    ) -> Result<(), NetlinkError> {
        self.send(message.as_bytes())?;
        self.wait(what, sequence, each)
    }

    /// Sends a whole transaction in one datagram, as nf_tables demands; the answer hangs on `last_sequence`.
    pub fn transaction(&mut self, what: &str, bytes: &[u8], last_sequence: u32) -> Result<(), NetlinkError> {
        let wanted = bytes.len() + 64 * 1024;
        if wanted > self.sending_bytes {
            rustix::net::sockopt::set_socket_send_buffer_size_force(self.fd(), wanted)
                .map_err(|error| NetlinkError::Socket(error.into()))?;
            self.sending_bytes = wanted;
        }
        self.send(bytes)?;
        self.wait(what, last_sequence, |_, _| ())
    }

    fn send(&self, bytes: &[u8]) -> Result<(), NetlinkError> {
        self.socket.send(bytes, 0).map(drop).map_err(NetlinkError::Socket)
    }

    /// Reads until the acknowledgement (or the end of the dump) of `sequence`. Any error of the run is the
    /// run's: in a transaction one refused message refuses all.
    fn wait(
        &mut self,
        what: &str,
        sequence: u32,
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<(), NetlinkError> {
        let refused = |code: i32| NetlinkError::Refused {
            what: what.to_owned(),
            source: io::Error::from_raw_os_error(-code),
        };
        let mut buffer: Vec<u8> = Vec::with_capacity(RECEIVE_BUFFER_BYTES);
        loop {
            buffer.clear();
            self.socket.recv(&mut buffer, 0).map_err(NetlinkError::Socket)?;
            let mut rest = &buffer[..];
            while let Some(header) = header_of(rest) {
                let body = &rest[16..header.length];
                match header.kind {
                    NLMSG_ERROR => {
                        let code =
                            body.get(..4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
                        if code != 0 {
                            self.drain();
                            return Err(refused(code));
                        }
                        if header.sequence == sequence {
                            return Ok(());
                        }
                    }
                    NLMSG_DONE if header.sequence == sequence => return Ok(()),
                    kind if header.sequence == sequence => each(kind, body),
                    _ => {}
                }
                rest = rest.get(header.length.next_multiple_of(4)..).unwrap_or(&[]);
            }
        }
    }

    /// After a refusal further answers of the same transaction may be queued; they concern nobody any more.
    fn drain(&self) {
        let mut buffer: Vec<u8> = Vec::with_capacity(RECEIVE_BUFFER_BYTES);
        while self.socket.recv(&mut buffer, libc::MSG_DONTWAIT).is_ok() {
            buffer.clear();
        }
    }
}
