//! A host for tests: it records what it is told, answers when told to, and waits with a deadline.

use std::ffi::{CStr, c_char, c_void};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use adit_ffi::*;
use serde_json::Value;

/// An event as it was told.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) kind: u32,
    pub(crate) state: u32,
    pub(crate) result: AditResult,
    pub(crate) generation: u64,
    pub(crate) json: Value,
    pub(crate) thread: String,
}

type Reaction = Box<dyn Fn(&Host, AditTunnel, &Told) + Send>;

/// The context of a tunnel's callbacks.
#[derive(Default)]
pub(crate) struct Host {
    pub(crate) told: Mutex<Vec<Told>>,
    pub(crate) packets: Mutex<Vec<(Vec<u8>, i32)>>,
    /// Is called in the event callback after the event was recorded.
    pub(crate) reaction: Mutex<Option<Reaction>>,
    changed: Condvar,
}

/// A tunnel with its host; freed at the end.
pub(crate) struct Tunnel {
    pub(crate) handle: AditTunnel,
    pub(crate) host: Arc<Host>,
    _room: RwLockReadGuard<'static, ()>,
}

impl Host {
    /// A host that says yes to all settings.
    pub(crate) fn willing() -> Arc<Self> {
        let host = Arc::new(Self::default());
        host.react(|_, tunnel, told| {
            if told.kind == ADIT_EVENT_SETTINGS {
                assert_eq!(adit_tunnel_settings_applied(tunnel, told.generation), ADIT_OK);
            }
        });
        host
    }

    pub(crate) fn react(&self, reaction: impl Fn(&Self, AditTunnel, &Told) + Send + 'static) {
        *self.reaction.lock().unwrap() = Some(Box::new(reaction));
    }

    pub(crate) fn context(self: &Arc<Self>) -> *mut c_void {
        Arc::as_ptr(self).cast_mut().cast()
    }

    pub(crate) fn kinds(&self) -> Vec<u32> {
        self.told.lock().unwrap().iter().map(|told| told.kind).collect()
    }

    pub(crate) fn count(&self, kind: u32) -> usize {
        self.kinds().into_iter().filter(|told| *told == kind).count()
    }

    /// Waits for the `nth` event of a kind, from 1.
    pub(crate) fn wait(&self, kind: u32, nth: usize) -> Told {
        let find = |told: &Vec<Told>| told.iter().filter(|told| told.kind == kind).nth(nth - 1).cloned();
        wait(&self.changed, self.told.lock().unwrap(), &format!("event {kind}, {nth}"), find)
    }

    /// Waits until packets have come, and takes them.
    pub(crate) fn wait_packets(&self, count: usize) -> Vec<(Vec<u8>, i32)> {
        let take = |packets: &mut Vec<_>| (packets.len() >= count).then(|| std::mem::take(packets));
        wait_mut(&self.changed, self.packets.lock().unwrap(), "packets", take)
    }
}

impl Tunnel {
    /// Makes a tunnel of a wg-quick configuration.
    pub(crate) fn new(configuration: &str, host: Arc<Host>) -> Self {
        Self::with_options(configuration, host, &AditOptions::default())
    }

    pub(crate) fn with_options(configuration: &str, host: Arc<Host>, options: &AditOptions) -> Self {
        let room = room();
        let mut handle = 0;
        let made = unsafe {
            let (text, length) = bytes(configuration);
            adit_tunnel_new(text, length, options, Some(on_event), host.context(), &mut handle)
        };
        assert_eq!(made, ADIT_OK);
        assert_ne!(handle, 0);
        Self { handle, host, _room: room }
    }

    pub(crate) fn start(&self) -> AditResult {
        unsafe { adit_tunnel_start_callbacks(self.handle, Some(on_packets), self.host.context()) }
    }

    /// Starts one that waits to be called, and is up without a handshake: its socket is there when this returns, so that
    /// the peer's first message is not lost.
    pub(crate) fn start_waiting(&self) {
        assert_eq!(self.start(), ADIT_OK);
        assert_eq!(self.host.wait(ADIT_EVENT_STARTED, 1).result, ADIT_OK);
    }

    pub(crate) fn inject(&self, packets: &[&[u8]]) -> (AditResult, usize) {
        let slices: Vec<_> = packets.iter().map(|p| AditSlice { data: p.as_ptr(), length: p.len() }).collect();
        let mut accepted = usize::MAX;
        let null = std::ptr::null();
        let result = unsafe { adit_tunnel_inject(self.handle, slices.as_ptr(), slices.len(), null, 0, &mut accepted) };
        (result, accepted)
    }

    pub(crate) fn stats(&self) -> AditStats {
        let mut stats = AditStats { size: size_of::<AditStats>(), ..AditStats::default() };
        assert_eq!(unsafe { adit_tunnel_stats(self.handle, &mut stats) }, ADIT_OK);
        stats
    }

    pub(crate) fn settings(&self) -> Value {
        let mut text = no_text();
        assert_eq!(unsafe { adit_tunnel_settings(self.handle, &mut text) }, ADIT_OK);
        take(text)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // One that the test has freed is no handle any more.
        let freed = adit_tunnel_free(self.handle);
        if !std::thread::panicking() {
            assert!([ADIT_OK, ADIT_ERROR_INVALID_HANDLE].contains(&freed), "{freed}");
        }
    }
}

/// Keeps [`alone`] away, for who makes tunnels by hand.
pub(crate) fn room() -> RwLockReadGuard<'static, ()> {
    ROOM.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Keeps all tunnels of other tests away: there is room for 64 in a process.
pub(crate) fn alone() -> RwLockWriteGuard<'static, ()> {
    ROOM.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Two tunnels that know each other: the first waits for the second, on a port of 127.0.0.1.
pub(crate) fn pair_of_configurations() -> (String, String) {
    let (first, second) = (private_key(1), private_key(2));
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let waiting = format!(
        "[Interface]\nPrivateKey = {first}\nListenPort = {port}\nAddress = 10.7.0.1/24\n\
         [Peer]\nPublicKey = {}\nAllowedIPs = 10.7.0.2/32\n",
        public_key(&second)
    );
    let calling = format!(
        "[Interface]\nPrivateKey = {second}\nAddress = 10.7.0.2/24\nDNS = 10.7.0.1\nMTU = 1280\n\
         [Peer]\nPublicKey = {}\nAllowedIPs = 10.7.0.0/24\nEndpoint = 127.0.0.1:{port}\nPersistentKeepalive = 25\n",
        public_key(&first)
    );
    (waiting, calling)
}

/// A configuration whose peer never answers.
pub(crate) fn lonely_configuration() -> String {
    let peer = public_key(&private_key(4));
    // Port 9 discards what it gets, if anybody listens there at all.
    format!(
        "[Interface]\nPrivateKey = {}\nAddress = 10.7.0.2/24\n\
         [Peer]\nPublicKey = {peer}\nAllowedIPs = 0.0.0.0/0\nEndpoint = 127.0.0.1:9\n",
        private_key(3)
    )
}

/// An IPv4 packet with a payload of `fill`.
pub(crate) fn packet(from: [u8; 4], to: [u8; 4], length: usize, fill: u8) -> Vec<u8> {
    let mut packet = vec![fill; length];
    packet[..20].fill(0);
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    packet[8] = 64;
    packet[9] = 253;
    packet[12..16].copy_from_slice(&from);
    packet[16..20].copy_from_slice(&to);
    let sum: u32 = packet[..20].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

pub(crate) fn private_key(number: u8) -> String {
    let mut text = AditKeyText { text: [0; 45] };
    assert_eq!(unsafe { adit_key_to_base64(&AditKey { bytes: [number; 32] }, &mut text) }, ADIT_OK);
    unsafe { CStr::from_ptr(text.text.as_ptr()) }.to_str().unwrap().to_owned()
}

fn public_key(private: &str) -> String {
    let mut key = AditKey { bytes: [0; 32] };
    let mut text = AditKeyText { text: [0; 45] };
    unsafe {
        let (start, length) = bytes(private);
        assert_eq!(adit_key_from_base64(start, length, &mut key), ADIT_OK);
        let place = &raw mut key;
        assert_eq!(adit_key_public(place, place), ADIT_OK);
        assert_eq!(adit_key_to_base64(&key, &mut text), ADIT_OK);
        CStr::from_ptr(text.text.as_ptr()).to_str().unwrap().to_owned()
    }
}

pub(crate) fn bytes(text: &str) -> (*const c_char, usize) {
    (text.as_ptr().cast(), text.len())
}

pub(crate) fn no_text() -> AditText {
    AditText { data: std::ptr::null_mut(), length: 0 }
}

/// Reads a text of JSON and gives it back.
pub(crate) fn take(mut text: AditText) -> Value {
    let read = unsafe { CStr::from_ptr(text.data) }.to_str().unwrap().to_owned();
    assert_eq!(read.len(), text.length, "the length is that up to the NUL");
    unsafe { adit_text_free(&mut text) };
    assert!(text.data.is_null() && text.length == 0);
    serde_json::from_str(&read).unwrap()
}

pub(crate) unsafe extern "C" fn on_event(context: *mut c_void, tunnel: AditTunnel, event: *const AditEvent) {
    let event = unsafe { &*event };
    // A test that has its tunnel freed in here may end, and drop the host, before this has returned.
    let host = unsafe {
        Arc::increment_strong_count(context.cast::<Host>());
        Arc::from_raw(context.cast::<Host>())
    };
    let host = &*host;
    let json = unsafe { CStr::from_ptr(event.json) };
    assert_eq!((event.size, event.json_length), (size_of::<AditEvent>(), json.count_bytes()));
    let told = Told {
        kind: event.kind,
        state: event.state,
        result: event.result,
        generation: event.generation,
        json: serde_json::from_slice(json.to_bytes()).unwrap(),
        thread: std::thread::current().name().unwrap_or_default().to_owned(),
    };
    host.told.lock().unwrap().push(told.clone());
    host.changed.notify_all();
    // Taken out, so that a reaction that is told something itself finds none and does not wait for this one.
    let reaction = host.reaction.lock().unwrap().take();
    if let Some(reaction) = reaction {
        reaction(host, tunnel, &told);
        host.reaction.lock().unwrap().get_or_insert(reaction);
    }
}

pub(crate) unsafe extern "C" fn on_packets(
    context: *mut c_void,
    _: AditTunnel,
    packets: *const AditSlice,
    families: *const i32,
    count: usize,
) {
    let host = unsafe { &*context.cast::<Host>() };
    let mut kept = host.packets.lock().unwrap();
    for index in 0..count {
        let (packet, family) = unsafe { (&*packets.add(index), *families.add(index)) };
        let packet = unsafe { std::slice::from_raw_parts(packet.data, packet.length) };
        kept.push((packet.to_vec(), family));
    }
    drop(kept);
    host.changed.notify_all();
}

/// Waits until `find` finds something.
pub(crate) fn wait<T, U>(changed: &Condvar, guard: MutexGuard<'_, T>, what: &str, find: impl Fn(&T) -> Option<U>) -> U {
    wait_mut(changed, guard, what, |value| find(value))
}

fn wait_mut<T, U>(
    changed: &Condvar,
    mut guard: MutexGuard<'_, T>,
    what: &str,
    mut find: impl FnMut(&mut T) -> Option<U>,
) -> U {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = find(&mut guard) {
            return found;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "waited in vain for {what}");
        guard = changed.wait_timeout(guard, left).unwrap().0;
    }
}

static ROOM: RwLock<()> = RwLock::new(());

/// Enough for a machine that has much else to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
