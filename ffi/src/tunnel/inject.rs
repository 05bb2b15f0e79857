//! Packets from the host.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use super::{AditTunnel, Tunnel, call};
use crate::caller::Caller;
use crate::packets::{ADIT_MAX_PACKETS, AditSlice, LONGEST, check};
use crate::result::{
    ADIT_ERROR_INVALID_ARGUMENT, ADIT_ERROR_PACKET, ADIT_ERROR_TOO_LARGE, AditResult, Failure, Outcome,
};

/// Gives IP packets to a tunnel that was started with `adit_tunnel_start_callbacks`: the arrays of
/// `NEPacketTunnelFlow.readPackets`. `families` are AF_INET or AF_INET6 of the system that the library was built for; it
/// may be NULL with a `family_count` of 0, else `family_count` must be `packet_count`.
///
/// `out_accepted` is how many were taken, from the first on. Fewer than `packet_count` means that there is no room:
/// `ADIT_EVENT_ROOM` tells when there is some; inject the rest then, or drop it as an interface would. A packet that is
/// empty, longer than 65535 bytes, neither IPv4 nor IPv6, or contradicts its family makes the whole call fail.
///
/// Thread: any, callbacks included; packets of several threads are taken in the order of their calls. Ownership: arrays and
/// packets stay yours and are copied. Lifetime: none beyond the call. Errors: INVALID_HANDLE; POISONED; NULL_POINTER;
/// INVALID_ARGUMENT for 0 packets and for a `family_count` that disagrees; TOO_LARGE above `ADIT_MAX_PACKETS`; PACKET, and
/// nothing was taken; INVALID_STATE if no packets are taken: they are from `ADIT_EVENT_SETTINGS` until
/// the tunnel ends, or has a descriptor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adit_tunnel_inject(
    tunnel: AditTunnel,
    packets: *const AditSlice,
    packet_count: usize,
    families: *const i32,
    family_count: usize,
    out_accepted: *mut usize,
) -> AditResult {
    call(tunnel, |tunnel| {
        // SAFETY: the header asks its caller for what is promised here.
        let caller = unsafe { Caller::promises() };
        let out = caller.out(out_accepted)?;
        let derived = families.is_null() && family_count == 0;
        if packet_count == 0 || (!derived && family_count != packet_count) {
            return Err(Failure::new(ADIT_ERROR_INVALID_ARGUMENT));
        }
        if packet_count > ADIT_MAX_PACKETS {
            return Err(Failure::new(ADIT_ERROR_TOO_LARGE));
        }
        let slices = caller.array(packets, packet_count)?;
        let families = if derived { &[] } else { caller.array(families, packet_count)? };
        // Of a shorter life from here on: the references are gone when the memory goes back.
        let mut batch: Vec<&[u8]> = BATCH.take();
        let result = fill(&mut batch, &caller, slices, families)
            .inspect_err(|failure| count(tunnel, *failure))
            .and_then(|()| tunnel.hosted.inject(&batch).map_err(Failure::from));
        batch.clear();
        BATCH.set(batch.into_iter().map(|_| -> &'static [u8] { &[] }).collect());
        out.write(result?);
        Ok(())
    })
}

/// Fills the batch with the packets, if all of them are some; `families` are none or as many.
fn fill<'call>(batch: &mut Vec<&'call [u8]>, caller: &'call Caller, slices: &[AditSlice], families: &[i32]) -> Outcome {
    for (index, slice) in slices.iter().enumerate() {
        // A length that no packet has may well be one that no memory has, so it is not looked at then.
        if slice.length > LONGEST {
            return Err(Failure::new(ADIT_ERROR_PACKET));
        }
        let packet = caller.array(slice.data, slice.length)?;
        check(packet, families.get(index).copied())?;
        batch.push(packet);
    }
    Ok(())
}

fn count(tunnel: &Tunnel, failure: Failure) {
    if failure.code() == ADIT_ERROR_PACKET {
        tunnel.refused.fetch_add(1, Ordering::Relaxed);
    }
}

thread_local! {
    /// An empty batch, whose memory is used again: a call costs no allocation.
    static BATCH: Cell<Vec<&'static [u8]>> = const { Cell::new(Vec::new()) };
}
