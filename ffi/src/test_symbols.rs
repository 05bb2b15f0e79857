//! A bug on request, for tests of what a bug does. It is in no header and in no library that is shipped.

use crate::result::{ADIT_ERROR_INVALID_ARGUMENT, AditResult, Failure};
use crate::tunnel::{AditTunnel, call};

/// Panics in this call (0), on the control thread of the tunnel (1), or in its packet loop (2), if it runs.
#[unsafe(no_mangle)]
pub extern "C" fn adit_test_panic(tunnel: AditTunnel, place: u32) -> AditResult {
    call(tunnel, |tunnel| {
        match place {
            0 => panic!("asked for by a test"),
            1 => tunnel.hosted().panic_on_control_thread(),
            2 => tunnel.hosted().panic_in_packet_loop(),
            _ => return Err(Failure::new(ADIT_ERROR_INVALID_ARGUMENT)),
        }
        Ok(())
    })
}
