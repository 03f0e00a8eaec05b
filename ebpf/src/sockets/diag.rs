//! NETLINK_SOCK_DIAG, sock_diag(7): lists a namespace's sockets and ends some.
//!
//! The messages are two fixed structures, so they are written and read here, by their offsets in
//! include/uapi/linux/inet_diag.h.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};
use tombolo_core::id::Addr;
use tombolo_core::model::Protocol;

use super::Target;

// include/uapi/linux/netlink.h and sock_diag.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct inet_diag_req_v2`: family, protocol, extensions, padding, states, then the socket.
const REQUEST: usize = 56;
/// `struct inet_diag_sockid`: ports, addresses, interface, cookie.
const SOCKET: usize = 48;

/// A bit for every state in which a socket has a peer: all but TIME_WAIT, CLOSE, LISTEN and NEW_SYN_RECV
/// (include/net/tcp_states.h). A connected UDP socket is in state ESTABLISHED.
const WITH_PEER: u32 = 0xfff & !(1 << 6 | 1 << 7 | 1 << 10);

/// The kernel answers at once; this is only against waiting for ever.
const PATIENCE: Duration = Duration::from_secs(5);

/// A socket as the kernel lists it.
struct Listed {
    family: u8,
    protocol: u8,
    id: [u8; SOCKET],
}

impl Listed {
    fn cookie(&self) -> u64 {
        let word = |at: usize| u64::from(u32::from_ne_bytes(part(&self.id, at)));
        word(40) | word(44) << 32
    }

    fn peer(&self) -> (Addr, u16) {
        let addr = match self.family {
            AF_INET => Addr::from(std::net::Ipv4Addr::from(part::<4>(&self.id, 20))),
            _ => Addr::from(part::<16>(&self.id, 20)),
        };
        (addr, u16::from_be_bytes(part(&self.id, 2)))
    }
}

/// Ends those of the targets that are in this thread's namespace, and takes all that were found out of them; how many
/// were ended. EOPNOTSUPP when the kernel was built without.
pub(super) fn destroy(targets: &mut BTreeMap<u64, Target>) -> io::Result<usize> {
    let socket = open()?;
    let mut destroyed = 0;
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        for family in [AF_INET, AF_INET6] {
            if targets.values().any(|target| target.protocol == protocol) {
                for found in list(&socket, family, protocol)? {
                    let Some(target) = targets.remove(&found.cookie()) else { continue };
                    if found.peer() == target.peer && end(&socket, &found)? {
                        destroyed += 1;
                    }
                }
            }
        }
    }
    Ok(destroyed)
}

/// Asks to end a socket that cannot be: one of nowhere to nowhere.
pub(super) fn can_destroy() -> io::Result<()> {
    let socket = open()?;
    list(&socket, AF_INET, Protocol::Udp)?;
    let mut id = [0; SOCKET];
    id[40] = 1; // a cookie that is not the one for any
    end(&socket, &Listed { family: AF_INET, protocol: number(Protocol::Udp), id }).map(drop)
}

fn open() -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    Ok(socket)
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => tombolo_ebpf_layout::TCP,
        _ => tombolo_ebpf_layout::UDP,
    }
}

/// The sockets of a family and protocol that have a peer.
fn list(socket: &OwnedFd, family: u8, protocol: Protocol) -> io::Result<Vec<Listed>> {
    let protocol = number(protocol);
    ask(socket, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &Listed { family, protocol, id: [0; SOCKET] })?;
    let (mut listed, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let (len, _) = recv(socket, &mut buffer[..], RecvFlags::empty())?;
        for (kind, body) in messages(&buffer[..len]) {
            match kind {
                NLMSG_DONE => return Ok(listed),
                // No such family or protocol to ask about, in a kernel built without.
                NLMSG_ERROR if error(body).raw_os_error() == Some(libc::ENOENT) => return Err(unsupported()),
                NLMSG_ERROR => return Err(error(body)),
                // `struct inet_diag_msg`: family, state, timer, retransmits, then the socket.
                _ => listed.extend(body.get(4..4 + SOCKET).map(|id| Listed { family, protocol, id: part(id, 0) })),
            }
        }
    }
}

/// Ends a socket; false when it is gone already.
fn end(socket: &OwnedFd, listed: &Listed) -> io::Result<bool> {
    ask(socket, SOCK_DESTROY, NLM_F_ACK, listed)?;
    let mut buffer = [0; 1024];
    let (len, _) = recv(socket, &mut buffer[..], RecvFlags::empty())?;
    match messages(&buffer[..len]).next() {
        Some((NLMSG_ERROR, body)) => match error(body) {
            e if e.raw_os_error() == Some(0) => Ok(true),
            e if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            e => Err(e),
        },
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Sends a request about sockets of a family and protocol that have a peer, or about one of them.
fn ask(socket: &OwnedFd, kind: u16, flags: u16, about: &Listed) -> io::Result<()> {
    let mut message = Vec::with_capacity(HEADER + REQUEST);
    message.extend(((HEADER + REQUEST) as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    message.extend([0; 8]); // sequence, port
    message.extend([about.family, about.protocol, 0, 0]);
    message.extend(WITH_PEER.to_ne_bytes());
    message.extend(about.id);
    send(socket, &message, SendFlags::empty())?;
    Ok(())
}

/// The messages of a datagram: kind and body.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.get(..HEADER)?;
        let len = u32::from_ne_bytes(part(header, 0)) as usize;
        let body = bytes.get(HEADER..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes(part(header, 4)), body))
    })
}

/// `struct nlmsgerr`: a negative error number; 0 is an acknowledgement.
fn error(body: &[u8]) -> io::Error {
    body.first_chunk().map_or(io::ErrorKind::InvalidData.into(), |number| {
        io::Error::from_raw_os_error(i32::from_ne_bytes(*number).saturating_neg())
    })
}

fn unsupported() -> io::Error {
    io::Error::from_raw_os_error(libc::EOPNOTSUPP)
}

/// `N` bytes from a place that is known to be there.
fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[at..at + N]);
    part
}

#[cfg(test)]
mod tests {
    use super::{Listed, messages};

    #[test]
    fn messages_end_where_they_say_or_where_the_bytes_do() {
        let mut bytes = Vec::new();
        bytes.extend(18_u32.to_ne_bytes());
        bytes.extend([7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0]);
        bytes.extend(17_u32.to_ne_bytes());
        bytes.extend([8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
        let found: Vec<_> = messages(&bytes).collect();
        assert_eq!(found, [(u16::from_ne_bytes([7, 0]), &[1, 2][..]), (u16::from_ne_bytes([8, 0]), &[3][..])]);
        assert_eq!(messages(&bytes[..30]).count(), 1, "cut off");
        assert_eq!(messages(&[0; 64]).count(), 0, "a length of nothing");
    }

    #[test]
    fn a_listed_socket_has_its_peer_and_cookie() {
        let mut id = [0; 48];
        id[2..4].copy_from_slice(&53_u16.to_be_bytes());
        id[20..24].copy_from_slice(&[127, 0, 0, 1]);
        id[40..44].copy_from_slice(&5_u32.to_ne_bytes());
        id[44..48].copy_from_slice(&1_u32.to_ne_bytes());
        let listed = Listed { family: 2, protocol: 17, id };
        assert_eq!(listed.cookie(), 5 + (1 << 32));
        assert_eq!(listed.peer(), (std::net::Ipv4Addr::LOCALHOST.into(), 53));
    }
}
