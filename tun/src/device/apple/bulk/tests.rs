use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixStream};

use adit_core::Reservation;

use super::*;

/// What the system's functions do, on a socket with boundaries.
const WORKING: Functions = Functions { recv: Some(receive), send: Some(send) };

unsafe extern "C" fn receive(
    fd: libc::c_int,
    messages: *mut MsghdrX,
    count: libc::c_uint,
    flags: libc::c_int,
) -> isize {
    // SAFETY: the caller gives as many messages.
    let messages = unsafe { std::slice::from_raw_parts_mut(messages, count as usize) };
    let mut done = 0;
    for message in messages {
        assert_eq!(message.iovlen, 1);
        // SAFETY: each message has one piece, which points to memory of its length.
        let (iov, len) = unsafe {
            let iov = *message.iov;
            (iov, libc::recv(fd, iov.iov_base, iov.iov_len, flags | libc::MSG_TRUNC))
        };
        if len < 0 {
            return if done > 0 { done } else { -1 };
        }
        message.flags = if len as usize > iov.iov_len { libc::MSG_TRUNC } else { 0 };
        message.datalen = (len as usize).min(iov.iov_len);
        done += 1;
    }
    done
}

/// Sends at most five messages in one call.
unsafe extern "C" fn send(fd: libc::c_int, messages: *const MsghdrX, count: libc::c_uint, flags: libc::c_int) -> isize {
    // SAFETY: the caller gives as many messages.
    let messages = unsafe { std::slice::from_raw_parts(messages, count as usize) };
    let mut done = 0;
    for message in &messages[..messages.len().min(5)] {
        // SAFETY: each message has one piece, which points to memory of its length.
        let sent = unsafe {
            assert_eq!((message.iovlen, message.datalen), (1, (*message.iov).iov_len));
            libc::send(fd, (*message.iov).iov_base, (*message.iov).iov_len, flags)
        };
        if sent < 0 {
            return if done > 0 { done } else { -1 };
        }
        done += 1;
    }
    done
}

/// A function that fails with `errno`.
macro_rules! failing {
    ($errno:expr) => {{
        unsafe extern "C" fn receive(_: libc::c_int, _: *mut MsghdrX, _: libc::c_uint, _: libc::c_int) -> isize {
            $errno.set();
            -1
        }
        unsafe extern "C" fn send(_: libc::c_int, _: *const MsghdrX, _: libc::c_uint, _: libc::c_int) -> isize {
            $errno.set();
            -1
        }
        Functions { recv: Some(receive), send: Some(send) }
    }};
}

fn ipv4(number: usize, len: usize) -> Vec<u8> {
    let mut packet = vec![number as u8; len];
    packet[0] = 0x45;
    packet
}

fn write(queue: &mut WriteQueue, packet: &[u8]) {
    let mut room = Reservation::new(queue, (), packet.len()).unwrap();
    room.bytes().copy_from_slice(packet);
    room.commit(packet.len());
}

fn queue(packets: usize) -> WriteQueue {
    let mut queue = WriteQueue::new();
    for number in 0..packets {
        write(&mut queue, &ipv4(number, 20 + number));
    }
    queue
}

#[test]
fn packets_cross_in_batches_and_in_order() {
    let (a, b) = UnixDatagram::pair().unwrap();
    let (mut sender, mut receiver) = (Bulk::new(WORKING), Bulk::new(WORKING));
    let mut queue = queue(100);
    // What is no packet is dropped, wherever it is.
    write(&mut queue, &[0x15; 20]);
    write(&mut queue, &ipv4(100, 120));
    let (mut batch, mut received) = (PacketBatch::new(), 0);
    let mut progress = WriteProgress::default();
    while received < 101 {
        progress.blocked = false;
        assert!(sender.send(Framing::Utun, a.as_fd(), &mut queue, &mut progress).unwrap());
        batch.clear();
        receiver.recv(Framing::Utun, b.as_fd(), &mut batch).unwrap().unwrap();
        for index in 0..batch.len() {
            let packet = batch.packet(index).unwrap();
            assert_eq!(packet.buffer[..packet.len], ipv4(received, 20 + received));
            received += 1;
        }
    }
    assert_eq!(progress, WriteProgress { written: 101, dropped: 1, ..WriteProgress::default() });
    assert_eq!(receiver.recv(Framing::Utun, b.as_fd(), &mut PacketBatch::new()).unwrap().unwrap(), 0);
}

#[test]
fn room_grows_with_what_did_not_fit() {
    let (a, b) = UnixDatagram::pair().unwrap();
    let mut bulk = Bulk::new(WORKING);
    let long = [&[0, 0, 0, 2][..], &ipv4(1, 9000)].concat();
    let mut batch = PacketBatch::new();
    for expected in [0, 0, 0, 9000, 9000] {
        a.send(&long).unwrap();
        batch.clear();
        batch.set_limit(2);
        assert_eq!(bulk.recv(Framing::Utun, b.as_fd(), &mut batch).unwrap().unwrap(), 1);
        assert_eq!(batch.packet(0).unwrap().len, expected, "of a packet that was cut off there is none");
    }
    assert!(bulk.room >= 9000 && bulk.room <= MAX_PACKET);
}

#[test]
fn a_batch_that_the_system_does_not_know_is_no_batch_any_more() {
    let (a, _b) = UnixDatagram::pair().unwrap();
    for functions in [failing!(Errno::ENOSYS), failing!(Errno::EOPNOTSUPP), Functions::NONE] {
        let mut bulk = Bulk::new(functions);
        let (mut queue, mut progress) = (queue(3), WriteProgress::default());
        assert!(!bulk.send(Framing::Utun, a.as_fd(), &mut queue, &mut progress).unwrap());
        assert_eq!((queue.len(), progress), (3, WriteProgress::default()), "they can still go one by one");
        assert!(bulk.recv(Framing::Utun, a.as_fd(), &mut PacketBatch::new()).is_none());
        assert!(bulk.functions.recv.is_none() && bulk.functions.send.is_none());
    }
}

#[test]
fn errors_are_the_packets_or_the_moments_or_the_end() {
    let (a, _b) = UnixDatagram::pair().unwrap();
    let mut progress = WriteProgress::default();
    let mut after = |functions| {
        progress = WriteProgress::default();
        let mut queue = queue(3);
        let result = Bulk::new(functions).send(Framing::Utun, a.as_fd(), &mut queue, &mut progress);
        (result.is_ok(), queue.len(), progress.dropped, progress.blocked)
    };
    assert_eq!(after(failing!(Errno::ENOBUFS)), (true, 0, 3, false), "sending them again might send some twice");
    assert_eq!(after(failing!(Errno::EAGAIN)), (true, 3, 0, true));
    assert_eq!(after(failing!(Errno::ENOTCONN)), (false, 3, 0, false));

    let receive = |functions| Bulk::new(functions).recv(Framing::Utun, a.as_fd(), &mut PacketBatch::new());
    assert_eq!(receive(failing!(Errno::ENOBUFS)).unwrap().unwrap(), 0);
    assert!(receive(failing!(Errno::ENOTCONN)).unwrap().is_err());
    let (end, _) = UnixStream::pair().unwrap();
    let result = Bulk::new(WORKING).recv(Framing::Utun, end.as_fd(), &mut PacketBatch::new());
    assert!(result.unwrap().is_err(), "nothing at all is the end");
}
