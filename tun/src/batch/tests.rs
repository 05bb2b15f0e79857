use super::*;

fn received(len: usize, stride: usize) -> Received {
    Received { remote: ([192, 0, 2, 1], 7).into(), local: None, ecn: Ecn::NotEct, len, stride }
}

#[test]
fn packets_keep_their_bytes_and_their_tail() {
    let mut batch = PacketBatch::with_capacity(2 * MAX_ENTRY, 100);
    for round in 0..3_u8 {
        batch.clear();
        let mut sizes = Vec::new();
        for len in [1, 20, 1420, 0, 9000, 65_535].into_iter().cycle() {
            let Some(slot) = batch.slot() else { break };
            assert_eq!(slot.len(), MAX_PACKET);
            slot[..len].fill(len as u8 ^ round);
            batch.commit(len);
            sizes.push(len);
        }
        assert!(batch.is_full() && sizes.len() == batch.len() && sizes.len() >= 6);
        // Padding one packet must not reach into the next one.
        for index in 0..batch.len() {
            let BatchPacket { buffer, len, .. } = batch.packet(index).unwrap();
            assert_eq!(buffer.len(), len + TAILROOM);
            buffer[len..].fill(0xee);
        }
        for (index, expected) in sizes.iter().enumerate() {
            let BatchPacket { buffer, len, .. } = batch.packet(index).unwrap();
            assert_eq!(len, *expected);
            assert!(buffer[..len].iter().all(|byte| *byte == len as u8 ^ round));
        }
    }
}

#[test]
fn a_full_batch_takes_nothing_more() {
    let mut batch = PacketBatch::with_capacity(0, 1);
    batch.slot().unwrap();
    batch.commit(10);
    assert!(batch.slot().is_none());
    batch.commit(10);
    assert_eq!(batch.len(), 1);
    batch.clear();
    batch.commit(MAX_PACKET + 1);
    assert!(batch.is_empty());
}

#[test]
fn copies_are_added_behind_what_was_read() {
    let mut batch = PacketBatch::with_capacity(MAX_ENTRY + 200, 4);
    batch.slot().unwrap()[..3].fill(1);
    batch.commit(3);
    assert!(batch.is_roomy() && batch.push(&[2; 20]) && batch.push(&[3; MAX_PACKET]) && !batch.is_roomy());
    assert!(!batch.push(&[4; MAX_PACKET]) && batch.push(&[5; MAX_PACKET + 1]) && !batch.push(&[]));
    let packets: Vec<_> = (0..batch.len()).map(|index| batch.packet(index).unwrap().len).collect();
    assert_eq!(packets, [3, 20, MAX_PACKET, 0]);
    let arena = batch.arena.as_ptr() as usize;
    for (index, byte) in [1, 2, 3].into_iter().enumerate() {
        let BatchPacket { buffer, len, .. } = batch.packet(index).unwrap();
        assert!((buffer.as_ptr() as usize - arena).is_multiple_of(ALIGN));
        assert!(buffer[..len].iter().all(|found| *found == byte));
    }
}

#[test]
fn one_call_fills_many_rooms() {
    let mut batch = PacketBatch::with_capacity(MAX_ENTRY, 100);
    assert!(batch.push(&[9; 50]));
    batch.set_limit(4);
    let lens = [104, 0, 54];
    let mut rooms = 0;
    for (index, room) in batch.spare(4, 100).enumerate() {
        assert_eq!(room.len(), 104);
        room.fill(index as u8);
        rooms += 1;
    }
    assert_eq!(rooms, 3, "the limit counts what is there");
    batch.commit_spare(4, 100, lens.into_iter(), |framed| framed.len().saturating_sub(4));
    assert!(batch.is_full());
    let packets: Vec<_> = (0..batch.len()).map(|index| batch.packet(index).unwrap().len).collect();
    assert_eq!(packets, [50, 100, 0, 50]);
    let BatchPacket { buffer, len, .. } = batch.packet(3).unwrap();
    assert!(buffer[..len].iter().all(|byte| *byte == 2));
    batch.commit_spare(4, 100, lens.into_iter(), <[u8]>::len);
    assert_eq!((batch.len(), batch.spare(4, 100).count()), (4, 0));
    batch.set_limit(100);
    let free = batch.arena.len() - batch.end;
    assert_eq!(batch.spare(4, MAX_PACKET).count(), free / MAX_ENTRY);
    assert_eq!(batch.spare(4, 2000).count(), free / PacketBatch::stride(2000));
}

#[test]
fn an_appetite_grows_with_what_there_is() {
    let mut appetite = Appetite::new(2, 100);
    let limits: Vec<usize> = [(2, true), (8, true), (32, true), (100, true), (30, false), (10, false), (0, false)]
        .into_iter()
        .map(|(taken, full)| {
            appetite.learn(taken, full);
            appetite.limit()
        })
        .collect();
    assert_eq!(limits, [8, 32, 100, 100, 100, 25, 6]);
    appetite.learn(0, false);
    appetite.learn(0, false);
    assert_eq!(appetite.limit(), 2);
}

#[test]
fn a_limit_is_a_full_batch() {
    let mut packets = PacketBatch::new();
    packets.set_limit(2);
    for expected in [true, true, false] {
        assert_eq!(packets.slot().is_some(), expected);
        packets.commit(1);
    }
    assert!(packets.is_full() && packets.len() == 2);
    packets.set_limit(3);
    assert!(!packets.is_full());
    let mut datagrams = DatagramBatch::new();
    datagrams.set_limit(2);
    assert_eq!(datagrams.free().len(), 2);
    datagrams.commit(received(1, 1));
    assert!(datagrams.free().len() == 1 && !datagrams.is_full());
    datagrams.commit(received(1, 1));
    assert!(datagrams.free().len() == 0 && datagrams.is_full());
}

#[test]
fn runs_are_cut_at_the_stride() {
    let mut batch = DatagramBatch::new();
    for slot in batch.free().take(3) {
        slot[..250].copy_from_slice(&std::array::from_fn::<u8, 250, _>(|i| (i / 100) as u8));
    }
    batch.commit(received(250, 100));
    batch.commit(received(0, 0));
    batch.commit(received(40, 9000));
    let lens: Vec<Vec<usize>> = batch.runs().map(|run| run.datagrams().map(<[u8]>::len).collect()).collect();
    assert_eq!(lens, [vec![100, 100, 50], vec![0], vec![40]]);
    let first = batch.runs().next().unwrap();
    for (index, datagram) in first.datagrams().enumerate() {
        assert!(datagram.iter().all(|byte| usize::from(*byte) == index));
    }
}

#[test]
fn slots_are_bounded() {
    let mut batch = DatagramBatch::new();
    for _ in 0..DatagramBatch::SLOTS {
        assert!(!batch.is_full());
        batch.commit(received(usize::MAX, 1200));
    }
    assert!(batch.is_full() && batch.free().len() == 0);
    batch.commit(received(1, 1));
    assert_eq!(batch.len(), DatagramBatch::SLOTS);
    assert!(batch.runs().all(|run| run.bytes.len() == RECEIVE_SLOT));
}
