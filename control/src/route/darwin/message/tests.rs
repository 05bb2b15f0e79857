use proptest::prelude::*;

use super::*;

fn add(destination: &str, gateway: Gateway) -> Request {
    let destination = destination.parse().unwrap();
    Request { action: Action::Add, sequence: 7, destination, gateway: Some(gateway), scope: 0 }
}

fn router(address: &str) -> Gateway {
    Gateway::Router { address: address.parse().unwrap(), scope: 0 }
}

/// The header's fields in their order, each at the offset that route.h gives it: length 0, version 2, type 3, index 4,
/// padding 6, flags 8, addresses 12, process 16, sequence 20, error 24, use 28, inits 32, fourteen metrics 36.
fn header(length: u16, kind: u8, index: u16, flags: u32, addresses: u32, sequence: i32) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(length.to_ne_bytes());
    out.extend([5, kind]);
    out.extend(index.to_ne_bytes());
    out.extend([0; 2]);
    out.extend(flags.to_ne_bytes());
    out.extend(addresses.to_ne_bytes());
    out.extend([0; 4]);
    out.extend(sequence.to_ne_bytes());
    out.extend([0; 4 + 4 + 4 + 14 * 4]);
    assert_eq!(out.len(), 92);
    out
}

#[test]
fn half_of_ipv4_into_an_interface() {
    // UP 1, STATIC 0x800; destination 1, gateway 2 and netmask 4; two sockaddr_in of 16 and a sockaddr_dl of 20.
    let mut expected = header(92 + 16 + 20 + 16, 1, 0, 0x801, 7, 7);
    expected.extend([16, 2, 0, 0, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([20, 18]);
    expected.extend(11u16.to_ne_bytes());
    expected.extend([0; 16]);
    expected.extend([16, 2, 0, 0, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(add("128.0.0.0/1", Gateway::Interface(11)).encode(), expected);
}

#[test]
fn one_host_by_a_router() {
    // UP, GATEWAY 2, HOST 4, STATIC; a host route has no netmask.
    let mut expected = header(92 + 16 + 16, 1, 0, 0x807, 3, 7);
    expected.extend([16, 2, 0, 0, 192, 0, 2, 9, 0, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([16, 2, 0, 0, 192, 168, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(add("192.0.2.9/32", router("192.168.1.1")).encode(), expected);
}

#[test]
fn an_ipv6_prefix_by_a_link_local_router() {
    let gateway = Gateway::Router { address: "fe80::1".parse().unwrap(), scope: 4 };
    // Three sockaddr_in6 of 28; the gateway's interface is in bytes 2 and 3 of its address.
    let mut expected = header(92 + 3 * 28, 1, 0, 0x803, 7, 7);
    expected.extend([28, 30, 0, 0, 0, 0, 0, 0, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([28, 30, 0, 0, 0, 0, 0, 0, 0xfe, 0x80, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    expected.extend([28, 30, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(add("2001:db8::/32", gateway).encode(), expected);
}

#[test]
fn what_is_refused_goes_by_loopback() {
    // UP, GATEWAY, REJECT 8, STATIC.
    let bytes = add("10.0.0.0/8", Gateway::Reject).encode();
    assert_eq!(bytes[8..12], 0x80bu32.to_ne_bytes());
    assert_eq!(bytes[108..116], [16, 2, 0, 0, 127, 0, 0, 1]);
}

#[test]
fn a_scoped_route_names_its_interface() {
    let request = Request { scope: 4, ..add("10.0.0.0/8", router("192.168.1.1")) };
    let bytes = request.encode();
    assert_eq!(bytes[4..6], 4u16.to_ne_bytes());
    assert_eq!(bytes[8..12], 0x100_0803u32.to_ne_bytes());
}

#[test]
fn removing_takes_no_gateway() {
    let request = Request { action: Action::Delete, gateway: None, ..add("10.0.0.0/8", Gateway::Reject) };
    let bytes = request.encode();
    assert_eq!((bytes.len(), bytes[3]), (92 + 16 + 16, 2));
    assert_eq!(bytes[12..16], 5u32.to_ne_bytes());
}

#[test]
fn an_answer_is_known_by_process_and_number() {
    let request = Request { action: Action::Get, ..add("10.0.0.0/8", router("192.168.1.1")) };
    let mut bytes = request.encode();
    bytes[16..20].copy_from_slice(&4711i32.to_ne_bytes());
    bytes[24..28].copy_from_slice(&3i32.to_ne_bytes());
    let Some(Message::Route(answer)) = messages(&bytes).next() else { panic!("no route") };
    assert_eq!(answer.errno, 3);
    assert!(answer.answers(&request, 4711));
    assert!(!answer.answers(&request, 4712));
    assert!(!answer.answers(&Request { sequence: 8, ..request }, 4711));
    assert!(!answer.answers(&Request { action: Action::Add, ..request }, 4711));
}

#[test]
fn a_default_route_of_a_dump() {
    // As `netstat -rn` has «default 192.168.1.1 UGScg en0»: destination, gateway, a mask of length 0, then interface and
    // own address behind it.
    let mut bytes = header(92 + 16 + 16 + 4 + 20 + 16, 4, 4, 0x803, 0x37, 0);
    bytes[40..44].copy_from_slice(&1500u32.to_ne_bytes());
    bytes.extend([16, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend([16, 2, 0, 0, 192, 168, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend([0, 0, 0, 0]);
    bytes.extend([20, 18, 4, 0, 6, 3, 6, 0, b'e', b'n', b'0', 2, 0, 0, 0, 0, 0, 1, 0, 0]);
    bytes.extend([16, 2, 0, 0, 192, 168, 1, 7, 0, 0, 0, 0, 0, 0, 0, 0]);
    let Some(Message::Route(route)) = messages(&bytes).next() else { panic!("no route") };
    assert_eq!(route.destination, Some("0.0.0.0/0".parse().unwrap()));
    assert_eq!(route.gateway, Some(SockAddr::Ip { address: "192.168.1.1".parse().unwrap(), scope: 0 }));
    assert_eq!((route.index, route.mtu, route.is_cloned()), (4, 1500, false));
}

#[test]
fn only_changes_by_others_are_news() {
    let told = |change: fn(&mut Route)| {
        let Some(Message::Route(mut route)) = messages(&add("10.0.0.0/8", router("192.168.1.1")).encode()).next()
        else {
            panic!("no route")
        };
        change(&mut route);
        Message::Route(route).is_news(4711)
    };
    assert!(told(|_| ()));
    assert!(told(|route| route.kind = RTM_DELETE));
    assert!(told(|route| route.pid = 1));
    assert!(!told(|route| route.pid = 4711));
    assert!(!told(|route| route.errno = 17));
    assert!(!told(|route| route.kind = RTM_GET));
    assert!(!told(|route| route.flags |= RTF_WASCLONED));
    assert!(Message::Link(Link { index: 4, flags: 0, mtu: 1500, name: None }).is_news(4711));
    assert!(!Message::Other { kind: 7 }.is_news(4711));
}

/// `if_msghdr`: length 0, version 2, type 3, addresses 4, flags 8, index 12, padding 14, and if_data from 16 on, whose
/// ninth byte begins the MTU.
fn link_message(index: u16, flags: u32, mtu: u32, name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend((112 + 20u16).to_ne_bytes());
    out.extend([5, 0xe]);
    out.extend(0x10u32.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend(index.to_ne_bytes());
    out.extend([0; 2 + 8]);
    out.extend(mtu.to_ne_bytes());
    out.extend([0; 96 - 12]);
    out.extend([20, 18]);
    out.extend(index.to_ne_bytes());
    out.extend([6, u8::try_from(name.len()).unwrap(), 0, 0]);
    out.extend(name.as_bytes());
    out.resize(112 + 20, 0);
    out
}

#[test]
fn interfaces_and_their_addresses() {
    let mut bytes = link_message(4, 0x8863, 1500, "en0");
    // `ifa_msghdr`: length 0, version 2, type 3, addresses 4, flags 8, index 12, metric 16. Mask, address, broadcast.
    let start = bytes.len();
    bytes.extend((20 + 8 + 16 + 16u16).to_ne_bytes());
    bytes.extend([5, 0xc]);
    bytes.extend((4u32 | 0x20 | 0x80).to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(4u16.to_ne_bytes());
    bytes.extend([0; 6]);
    bytes.extend([7, 2, 0, 0, 255, 255, 255, 0]);
    bytes.extend([16, 2, 0, 0, 192, 168, 1, 7, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend([16, 2, 0, 0, 192, 168, 1, 255, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes.len() - start, 60);
    let found: Vec<_> = messages(&bytes).collect();
    assert_eq!(
        found,
        [
            Message::Link(Link { index: 4, flags: 0x8863, mtu: 1500, name: Some("en0".into()) }),
            Message::Address(LinkAddress { kind: 0xc, index: 4, address: Some("192.168.1.7/24".parse().unwrap()) }),
        ]
    );
}

#[test]
fn a_list_ends_at_what_is_no_message() {
    let good = add("10.0.0.0/8", router("192.168.1.1")).encode();
    let broken = |change: fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        let tail = bytes.clone();
        let mut list = good.clone();
        list.extend(bytes);
        list.extend(tail);
        messages(&list).count()
    };
    assert_eq!(broken(|_| ()), 3);
    assert_eq!(broken(|bytes| bytes[2] = 4), 1, "another version");
    assert_eq!(broken(|bytes| bytes[..2].fill(0)), 1, "no length");
    assert_eq!(broken(|bytes| bytes[..2].copy_from_slice(&3u16.to_ne_bytes())), 1, "shorter than its type");
    assert_eq!(broken(|bytes| bytes[..2].copy_from_slice(&60_000u16.to_ne_bytes())), 1, "longer than the list");
    assert_eq!(broken(|bytes| bytes[..2].copy_from_slice(&90u16.to_ne_bytes())), 1, "shorter than its header");
}

proptest! {
    #[test]
    fn what_is_asked_for_is_read_again(address: IpAddr, length in 0u8..=128, index in 1u32..=0xffff, gateway: IpAddr, way in 0u8..3) {
        let width = if address.is_ipv4() { 32 } else { 128 };
        // The kernel writes the interface into link-local addresses, which sockaddr's own tests are about.
        prop_assume!(!matches!(address, IpAddr::V6(ip) if ip.octets()[0] >= 0xfe));
        prop_assume!(!matches!(gateway, IpAddr::V6(ip) if ip.octets()[0] >= 0xfe));
        let destination = IpNet::new(address, length.min(width)).unwrap();
        let gateway = match way {
            0 => Gateway::Router { address: gateway, scope: 0 },
            1 => Gateway::Interface(index),
            _ => Gateway::Reject,
        };
        let request = Request { action: Action::Add, sequence: 1, destination, gateway: Some(gateway), scope: 0 };
        let bytes = request.encode();
        prop_assert_eq!(usize::from(u16::from_ne_bytes([bytes[0], bytes[1]])), bytes.len());
        let all: Vec<_> = messages(&bytes).collect();
        let [Message::Route(route)] = &all[..] else { panic!("{all:?}") };
        prop_assert_eq!(route.destination, Some(destination.trunc()));
        let expected = match gateway {
            Gateway::Router { address, scope } => SockAddr::Ip { address, scope },
            Gateway::Interface(index) => SockAddr::Link { index },
            Gateway::Reject if destination.addr().is_ipv4() => SockAddr::Ip { address: LOOPBACK_V4, scope: 0 },
            Gateway::Reject => SockAddr::Ip { address: LOOPBACK_V6, scope: 0 },
        };
        prop_assert_eq!(route.gateway, Some(expected));
    }

    #[test]
    fn garbage_ends_the_list_and_nothing_else(bytes: Vec<u8>) {
        prop_assert!(messages(&bytes).count() <= bytes.len() / 4);
    }

    /// Real messages with some bytes changed, cut off anywhere.
    #[test]
    fn lies_do_no_harm(changes in prop::collection::vec((0usize..400, any::<u8>()), 0..12), cut in 0usize..400) {
        let mut bytes = link_message(4, 0x8863, 1500, "en0");
        bytes.extend(add("10.0.0.0/8", router("192.168.1.1")).encode());
        bytes.extend(add("2001:db8::/32", Gateway::Interface(3)).encode());
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(cut);
        prop_assert!(messages(&bytes).count() <= bytes.len() / 4);
    }
}
