//! The host's routing, for real: each test runs in a fresh network namespace with a tun device and a veth pair as the
//! physical network, and reads the kernel's answers back with `ip`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod host;
mod inspect;
mod monitor;
mod strict;

use adit_control::journal::{Device, Entry, Journal, Target};
use adit_control::route::{self, RouteError};
use adit_control::settings::{MtuSource, RouteTable, Settings, Wanted};

use host::{SRC_VALID_MARK, TUN, full_tunnel, in_namespace, settings};

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn split_routes_are_added_once_and_undone() {
    in_namespace(|host| async move {
        let _tun = host.tun();
        let before = host.snapshot();
        let allowed = ["10.9.0.0/24", "192.0.2.0/24", "192.0.2.128/25", "fd10::/48", "fd09::9/128"];
        let settings = settings(&["10.9.0.2/24", "fd09::2/64"], &allowed, |wanted| wanted.mtu = Some(1380));
        let mut journal = host.journal();
        let applied = route::apply(TUN, &settings, &mut journal).await.unwrap();
        assert_eq!((applied.mtu, applied.fwmark, applied.table), (1380, None, None));

        let main = host.ip(&["-4", "route", "show", "dev", TUN]);
        assert!(main.contains("192.0.2.0/24 proto 173 scope link"), "{main}");
        assert!(main.contains("192.0.2.128/25 proto 173 scope link"), "{main}");
        assert_eq!(main.matches("10.9.0.0/24").count(), 1, "the connected route only: {main}");
        let main6 = host.ip(&["-6", "route", "show", "dev", TUN, "proto", "173"]);
        assert_eq!(main6.trim(), "fd10::/48 metric 1024 pref medium", "{main6}");
        assert!(host.ip(&["link", "show", TUN]).contains("mtu 1380"));
        assert!(!host.ip(&["address", "show", TUN]).contains("brd "));
        assert_eq!(host.device_to("192.0.2.200", 0), TUN);
        assert_eq!(host.device_to("fd10::1", 0), TUN);
        assert_eq!(host.device_to("203.0.113.9", 0), "v0");

        let (up, entries) = (host.snapshot(), journal.entries().to_vec());
        route::apply(TUN, &settings, &mut journal).await.unwrap();
        assert_eq!((host.snapshot(), journal.entries()), (up.clone(), entries.as_slice()));

        host.ip(&["route", "delete", "192.0.2.0/24", "dev", TUN]);
        route::apply(TUN, &settings, &mut journal).await.unwrap();
        assert_eq!((host.snapshot(), journal.entries()), (up, entries.as_slice()), "what somebody removed is back");

        route::undo(&mut journal).await.unwrap();
        assert_eq!((host.snapshot(), journal.entries().len()), (before, 0));
        route::undo(&mut journal).await.unwrap();
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_full_tunnel_takes_all_but_the_local_network_and_its_own_packets() {
    in_namespace(|host| async move {
        let _tun = host.tun();
        let before = host.snapshot();
        assert_eq!(host.sysctl(), "0");
        let mut journal = host.journal();
        let mut settings = full_tunnel();
        assert_eq!(route::pin(&mut settings, &journal).await.unwrap(), Some(51820));
        let applied = route::apply(TUN, &settings, &mut journal).await.unwrap();
        assert_eq!((applied.fwmark, applied.table, applied.mtu), (Some(51820), Some(51820), 1420));

        for (destination, mark, device) in [
            ("203.0.113.9", 0, TUN),
            ("203.0.113.9", 51820, "v0"),
            ("198.51.100.77", 0, "v0"),
            ("2001:db8:1::9", 0, TUN),
            ("2001:db8:1::9", 51820, "v0"),
            ("2001:db8:0:1::77", 0, "v0"),
        ] {
            assert_eq!(host.device_to(destination, mark), device, "{destination} mark {mark}");
        }
        for family in ["-4", "-6"] {
            let rules = host.ip(&[family, "rule"]);
            assert!(rules.contains("32764:\tfrom all lookup main suppress_prefixlength 0 proto 173"), "{rules}");
            assert!(rules.contains("32765:\tnot from all fwmark 0xca6c lookup 51820 proto 173"), "{rules}");
            let table = host.ip(&[family, "route", "show", "table", "51820"]);
            assert!(table.contains("unreachable default") && table.contains("metric 4278198272"), "{table}");
        }
        assert_eq!(host.sysctl(), "1");

        let (up, entries) = (host.snapshot(), journal.entries().to_vec());
        let again = route::apply(TUN, &full_tunnel(), &mut journal).await.unwrap();
        assert!(applied.changed > 0);
        let same = route::Applied { changed: 0, ..applied };
        assert_eq!((again, host.snapshot(), journal.entries()), (same, up, entries.as_slice()));

        route::undo(&mut journal).await.unwrap();
        assert_eq!((host.snapshot(), journal.entries().len()), (before, 0));
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_full_tunnel_of_one_family_leaves_the_other_alone() {
    in_namespace(|host| async move {
        let _tun = host.tun();
        let mut journal = host.journal();
        let rules = host.ip(&["-4", "rule"]);
        route::apply(TUN, &settings(&["fd09::2/128"], &["::/0"], |_| ()), &mut journal).await.unwrap();
        assert_eq!((host.ip(&["-4", "rule"]), host.sysctl()), (rules, "0".to_owned()));
        assert_eq!(host.device_to("203.0.113.9", 0), "v0");
        assert_eq!(host.device_to("2001:db8:1::9", 0), TUN);
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn tables_and_priorities_that_others_use_are_passed_over() {
    in_namespace(|host| async move {
        let _tun = host.tun();
        host.ip(&["-6", "route", "add", "fd77::/64", "dev", "v0", "table", "51820"]);
        host.ip(&["-4", "rule", "add", "from", "192.0.2.1", "table", "51821", "priority", "32764"]);
        let before = host.snapshot();
        let mut journal = host.journal();
        let applied = route::apply(TUN, &full_tunnel(), &mut journal).await.unwrap();
        assert_eq!((applied.table, applied.fwmark), (Some(51822), Some(51822)));
        let rules = host.ip(&["-4", "rule"]);
        let order: Vec<&str> = rules.lines().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(order, ["0", "32762", "32763", "32764", "32766", "32767"], "{rules}");
        assert!(rules.contains("32762:\tfrom all lookup main suppress_prefixlength 0"), "{rules}");
        assert_eq!(host.device_to("203.0.113.9", 0), TUN);
        assert_eq!(host.device_to("198.51.100.77", 0), "v0");
        route::undo(&mut journal).await.unwrap();
        assert_eq!(host.snapshot(), before);
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_configured_mark_is_used_and_a_table_number_means_no_rules() {
    in_namespace(|host| async move {
        let _tun = host.tun();
        let mut journal = host.journal();
        let marked = settings(&["10.9.0.2/32"], &["0.0.0.0/0"], |wanted| wanted.fwmark = Some(1234));
        let applied = route::apply(TUN, &marked, &mut journal).await.unwrap();
        assert_eq!((applied.fwmark, applied.table), (Some(1234), Some(1234)));
        assert_eq!(host.device_to("203.0.113.9", 0), TUN);
        assert_eq!(host.device_to("203.0.113.9", 1234), "v0");

        let rules =
            settings(&["10.9.0.2/32"], &["0.0.0.0/0", "::/0"], |wanted| wanted.table = RouteTable::Number(1000));
        route::apply(TUN, &rules, &mut journal).await.unwrap();
        assert!(!host.ip(&["-4", "rule"]).contains("proto 173"));
        assert_eq!(host.device_to("203.0.113.9", 0), "v0");
        assert!(host.ip(&["-4", "route", "show", "table", "1000"]).starts_with(&format!("default dev {TUN}")));
        assert!(host.ip(&["-6", "route", "show", "table", "1000"]).starts_with(&format!("default dev {TUN}")));
        assert_eq!(host.ip(&["route", "show", "table", "1234"]), "");
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_vanished_device_fails_closed_and_a_crash_is_undone_from_the_file() {
    in_namespace(|host| async move {
        let before = host.snapshot();
        let tun = host.tun();
        let mut journal = host.journal();
        route::apply(TUN, &full_tunnel(), &mut journal).await.unwrap();
        drop(journal);
        drop(tun);

        for destination in ["203.0.113.9", "2001:db8:1::9"] {
            let error = host.try_ip(&["route", "get", destination]).unwrap_err();
            assert!(error.contains("unreachable") || error.contains("No route to host"), "{error}");
            assert_eq!(host.device_to(destination, 51820), "v0");
        }
        assert_eq!(host.device_to("198.51.100.77", 0), "v0");

        let mut left = Journal::load(host.dir.path(), TUN).unwrap().unwrap();
        assert!(!left.entries().is_empty());
        route::undo(&mut left).await.unwrap();
        assert_eq!((host.snapshot(), left.entries().len()), (before, 0));
        left.remove().unwrap();
        assert!(Journal::load(host.dir.path(), TUN).unwrap().is_none());
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn undo_leaves_a_new_device_of_the_same_name_alone() {
    in_namespace(|host| async move {
        let first = host.tun();
        let mut journal = host.journal();
        let settings = settings(&["10.9.0.2/24"], &["192.0.2.0/24"], |_| ());
        route::apply(TUN, &settings, &mut journal).await.unwrap();
        drop(first);
        let _second = host.tun();
        host.ip(&["address", "add", "10.9.0.2/24", "dev", TUN]);
        host.ip(&["link", "set", TUN, "up"]);
        host.ip(&["route", "add", "192.0.2.0/24", "dev", TUN]);
        let before = host.snapshot();
        route::undo(&mut journal).await.unwrap();
        assert_eq!(host.snapshot(), before);
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_failure_in_the_middle_leaves_nothing_behind() {
    in_namespace(|host| async move {
        let _tun = host.tun();
        host.ip(&["route", "add", "192.0.2.0/24", "via", "198.51.100.1"]);
        let before = host.snapshot();
        let mut journal = host.journal();
        let allowed = ["192.0.2.0/24", "192.0.2.128/25", "0.0.0.0/0", "::/0", "fd10::/48"];
        let plain = settings(&["10.9.0.2/24", "fd09::2/64"], &allowed, |_| ());
        let error = route::apply(TUN, &plain, &mut journal).await.unwrap_err();
        assert!(matches!(error, RouteError::Conflict { .. }), "{error}");
        assert!(error.to_string().contains("the route 192.0.2.0/24 dev adt0 table 254"), "{error}");
        assert_eq!((host.snapshot(), journal.entries().len()), (before.clone(), 0));

        host.ip(&["-6", "route", "add", "default", "dev", "v0", "table", "1234"]);
        let before = host.snapshot();
        let marked = settings(&["10.9.0.2/24"], &["0.0.0.0/0", "::/0"], |wanted| wanted.fwmark = Some(1234));
        let error = route::apply(TUN, &marked, &mut journal).await.unwrap_err();
        assert!(error.to_string().contains("the route ::/0 dev adt0 table 1234"), "{error}");
        assert_eq!((host.snapshot(), journal.entries().len()), (before, 0));
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_failed_reload_keeps_the_old_settings_in_force() {
    in_namespace(|host| async move {
        let _tun = host.tun();
        host.ip(&["route", "add", "192.0.2.0/24", "via", "198.51.100.1"]);
        let mut journal = host.journal();
        route::apply(TUN, &full_tunnel(), &mut journal).await.unwrap();
        let (up, entries) = (host.snapshot(), journal.entries().to_vec());
        let mtu = |wanted: &mut Wanted| wanted.mtu = Some(1300);
        let bad = settings(&["10.10.0.2/24"], &["10.66.0.0/16", "192.0.2.0/24"], mtu);
        route::apply(TUN, &bad, &mut journal).await.unwrap_err();
        assert_eq!((host.snapshot(), sorted(journal.entries())), (up, sorted(&entries)));
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_reload_adds_what_is_new_and_removes_what_is_gone() {
    in_namespace(|host| async move {
        let _tun = host.tun();
        let before = host.snapshot();
        let mut journal = host.journal();
        // A new address in the old one's network dies with it unless it is restored, and so do the routes.
        let first = settings(&["10.9.0.2/24"], &["10.9.0.0/24", "192.0.2.0/24", "0.0.0.0/0"], |w| w.mtu = Some(1400));
        let second =
            settings(&["10.9.0.3/24"], &["192.0.2.0/24", "192.168.9.0/24", "0.0.0.0/0"], |w| w.mtu = Some(1300));
        let third = settings(&["10.8.0.3/32"], &["10.9.0.0/24"], |w| w.mtu = Some(1300));

        let one = route::apply(TUN, &first, &mut journal).await.unwrap();
        let two = route::apply(TUN, &second, &mut journal).await.unwrap();
        assert_eq!((one.table, one.fwmark), (two.table, two.fwmark));
        let addresses = host.ip(&["-4", "address", "show", TUN]);
        assert!(addresses.contains("10.9.0.3/24") && !addresses.contains("10.9.0.2/24"), "{addresses}");
        for destination in ["192.0.2.1", "192.168.9.1", "203.0.113.9", "10.9.0.77"] {
            assert_eq!(host.device_to(destination, 0), TUN, "{destination}");
        }
        assert!(host.ip(&["link", "show", TUN]).contains("mtu 1300"));
        let up = host.snapshot();
        route::apply(TUN, &second, &mut journal).await.unwrap();
        assert_eq!(host.snapshot(), up);

        route::apply(TUN, &third, &mut journal).await.unwrap();
        assert_eq!((host.device_to("203.0.113.9", 0), host.sysctl()), ("v0".into(), "0".into()));
        let main = host.ip(&["-4", "route", "show", "dev", TUN]);
        assert_eq!(main.trim(), "10.9.0.0/24 proto 173 scope link", "{main}");
        assert!(!host.ip(&["rule"]).contains("proto 173"));

        route::undo(&mut journal).await.unwrap();
        assert_eq!((host.snapshot(), journal.entries().len()), (before, 0));
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn the_mtu_is_the_underlays_less_eighty() {
    in_namespace(|host| async move {
        let _tun = host.tun();
        let mut journal = host.journal();
        host.ip(&["route", "add", "192.0.2.0/25", "via", "198.51.100.1", "mtu", "1400"]);
        host.ip(&["route", "add", "192.0.2.128/25", "via", "198.51.100.1", "mtu", "900"]);
        host.ip(&["link", "set", "v0", "mtu", "1480"]);
        for (addresses, endpoints, expected) in [
            (&["10.9.0.2/24"][..], &["203.0.113.9:1"][..], 1400),
            (&["10.9.0.2/24"], &["203.0.113.9:1", "192.0.2.1:1"], 1320),
            (&["10.9.0.2/24"], &["[2001:db8:1::9]:1", "192.0.2.1:1"], 1320),
            (&["10.9.0.2/24"], &["192.0.2.129:1"], 820),
            (&["10.9.0.2/24", "fd09::2/64"], &["192.0.2.129:1"], 1280),
            (&["10.9.0.2/24"], &[], 1400),
        ] {
            let parsed = endpoints.iter().map(|text| text.parse().unwrap()).collect();
            let settings = settings(addresses, &[], |wanted| wanted.endpoints = parsed);
            let applied = route::apply(TUN, &settings, &mut journal).await.unwrap();
            assert_eq!(applied.mtu, expected, "{addresses:?} {endpoints:?}");
            assert!(host.ip(&["link", "show", TUN]).contains(&format!("mtu {expected} ")));
        }

        // A full tunnel that is up is not its own underlay, nor is a route of the tunnel's that covers the endpoint.
        let endpoint = |wanted: &mut Wanted| wanted.endpoints = vec!["203.0.113.9:1".parse().unwrap()];
        for allowed in ["0.0.0.0/0", "203.0.113.0/24"] {
            let settings = settings(&["10.9.0.2/24"], &[allowed], endpoint);
            for _ in 0..2 {
                assert_eq!(route::apply(TUN, &settings, &mut journal).await.unwrap().mtu, 1400);
            }
        }

        host.ip(&["route", "delete", "default"]);
        host.ip(&["-6", "route", "delete", "default"]);
        let settings = settings(&["10.9.0.2/24"], &[], |_| ());
        assert_eq!(route::apply(TUN, &settings, &mut journal).await.unwrap().mtu, 1400, "what was known last");
        route::undo(&mut journal).await.unwrap();
        assert_eq!(route::apply(TUN, &settings, &mut journal).await.unwrap().mtu, 1420);

        // Somebody's own choice stays, until the settings want another one.
        host.ip(&["link", "set", TUN, "mtu", "1300"]);
        assert_eq!(route::apply(TUN, &settings, &mut journal).await.unwrap().changed, 0);
        assert!(host.ip(&["link", "show", TUN]).contains("mtu 1300 "));
        let settings = Settings { mtu: MtuSource::Fixed(1380), ..settings };
        route::apply(TUN, &settings, &mut journal).await.unwrap();
        assert!(host.ip(&["link", "show", TUN]).contains("mtu 1380 "));
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn the_last_of_two_full_tunnels_restores_the_parameter() {
    in_namespace(|host| async move {
        let before = host.sysctl();
        let (_one, _two) = (host.tun(), host.tun_named("adt1"));
        let mut first = host.journal();
        let mut second = Journal::create(host.dir.path(), "adt1").unwrap();
        let a = route::apply(TUN, &full_tunnel(), &mut first).await.unwrap();
        let settings = settings(&["10.8.0.2/24"], &["0.0.0.0/0"], |_| ());
        let b = route::apply("adt1", &settings, &mut second).await.unwrap();
        assert_ne!((a.table, a.fwmark), (b.table, b.fwmark));
        assert_eq!(host.device_to("203.0.113.9", 0), "adt1", "the later tunnel's rules come first");

        route::undo(&mut first).await.unwrap();
        assert_eq!((host.device_to("203.0.113.9", 0), host.sysctl()), ("adt1".into(), "1".into()));
        route::undo(&mut second).await.unwrap();
        assert_eq!((host.device_to("203.0.113.9", 0), host.sysctl()), ("v0".into(), before));
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn what_somebody_changed_since_is_left_alone() {
    in_namespace(|host| async move {
        let _tun = host.tun();
        let mut journal = host.journal();
        route::apply(TUN, &full_tunnel(), &mut journal).await.unwrap();
        std::fs::write(SRC_VALID_MARK, "2").unwrap();
        host.ip(&["link", "set", TUN, "mtu", "1333"]);
        // The same priority and selector without "not" is another rule.
        host.ip(&["rule", "delete", "priority", "32765"]);
        host.ip(&["rule", "add", "fwmark", "51820", "table", "51820", "priority", "32765", "protocol", "173"]);
        route::undo(&mut journal).await.unwrap();
        assert_eq!(host.sysctl(), "2");
        assert!(host.ip(&["link", "show", TUN]).contains("mtu 1333"));
        assert!(host.ip(&["rule"]).contains("32765:\tfrom all fwmark 0xca6c lookup 51820"));
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn bad_requests_are_refused_before_anything_is_changed() {
    in_namespace(|host| async move {
        let _tun = host.tun();
        let before = host.snapshot();
        let mut journal = host.journal();
        for name in ["nope0", "", "a-name-that-is-too-long-for-linux"] {
            let error = route::apply(name, &full_tunnel(), &mut journal).await.unwrap_err();
            assert_eq!(error.to_string(), format!("there is no network interface `{name}`"));
        }
        let small = settings(&["fd09::2/64"], &[], |wanted| wanted.mtu = Some(1279));
        let error = route::apply(TUN, &small, &mut journal).await.unwrap_err().to_string();
        assert!(error.contains("MTU 1279") && error.contains("1280"), "{error}");

        std::fs::write(format!("/proc/sys/net/ipv6/conf/{TUN}/disable_ipv6"), "1").unwrap();
        let error = route::apply(TUN, &full_tunnel(), &mut journal).await.unwrap_err().to_string();
        assert!(error.contains("fd09::2/64 dev adt0") && error.contains("IPv6 is switched off"), "{error}");
        assert_eq!((host.snapshot(), journal.entries().len()), (before, 0));
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn without_privileges_the_error_says_which_one_is_missing() {
    in_namespace(|host| async move {
        let _tun = host.tun();
        let mut journal = host.journal();
        std::os::unix::fs::chown(host.dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        be(NOBODY);
        let error = route::apply(TUN, &full_tunnel(), &mut journal).await.unwrap_err();
        // Only root can remove the test's folder.
        be(0);
        assert!(error.is_permission() && error.to_string().contains("CAP_NET_ADMIN"), "{error}");
        assert!(journal.entries().is_empty());
    });
}

/// Takes on a user's privileges; with the saved user id the thread keeps the way back.
fn be(user: libc::uid_t) {
    // SAFETY: the system call takes integers only. Unlike the C library's function it changes this thread alone, which ends
    // with the test.
    assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, -1, user, -1) }, 0);
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_journal_of_another_namespace_is_not_undone_here() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    in_namespace(move |host| async move {
        let _tun = host.tun();
        let mut journal = Journal::create(&path, TUN).unwrap();
        route::apply(TUN, &full_tunnel(), &mut journal).await.unwrap();
        // The namespace must live while the next one is made, or its number could be used again.
        let path = path.clone();
        tokio::task::spawn_blocking(move || {
            in_namespace(move |_| async move {
                let mut journal = Journal::load(&path, TUN).unwrap().unwrap();
                let error = route::undo(&mut journal).await.unwrap_err();
                assert!(matches!(error, RouteError::OtherNamespace { .. }), "{error}");
                assert!(!journal.entries().is_empty());
            });
        })
        .await
        .unwrap();
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn recorded_links_and_sockets_are_removed_and_nothing_else_of_that_name() {
    in_namespace(|host| async move {
        let mut journal = host.journal();
        host.ip(&["link", "add", "v8", "type", "veth", "peer", "name", "v9"]);
        let index = host.index_of("v8");
        let [dead, living, file] = ["dead", "living", "file"].map(|name| host.dir.path().join(name));
        drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
        // Another program's, which has taken the name meanwhile.
        let _listener = std::os::unix::net::UnixListener::bind(&living).unwrap();
        std::fs::write(&file, "not a socket").unwrap();
        journal.record(Entry::Link(Device { name: "v8".into(), index })).unwrap();
        for path in [&dead, &living, &file, &host.dir.path().join("gone")] {
            journal.record(Entry::Socket { path: path.clone() }).unwrap();
        }
        route::undo(&mut journal).await.unwrap();
        assert!(host.try_ip(&["link", "show", "v8"]).is_err());
        assert!(!dead.exists() && living.exists() && file.exists());
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn thousands_of_routes_take_no_time_worth_mentioning() {
    in_namespace(|host| async move {
        let _tun = host.tun();
        let before = host.snapshot();
        let allowed: Vec<String> = (0..4096).map(|i| format!("172.{}.{}.0/24", 16 + i / 256, i % 256)).collect();
        let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
        let settings = settings(&["10.9.0.2/24"], &allowed, |_| ());
        let mut journal = host.journal();
        route::apply(TUN, &settings, &mut journal).await.unwrap();
        assert_eq!(host.ip(&["route", "show", "proto", "173"]).lines().count(), 4096);
        route::set_queue_length(TUN, 10_000).await.unwrap();
        assert!(host.ip(&["link", "show", TUN]).contains("qlen 10000"));
        route::set_queue_length(TUN, 500).await.unwrap();
        let mut journal = Journal::load(host.dir.path(), TUN).unwrap().unwrap();
        route::undo(&mut journal).await.unwrap();
        assert_eq!(host.snapshot(), before);
    });
}

/// Rules first, by their order of evaluation, then the rest: the order in a journal says nothing about the host.
fn sorted(entries: &[Entry]) -> Vec<String> {
    let mut texts: Vec<String> = entries
        .iter()
        .map(|entry| match entry {
            Entry::Rule(rule) if rule.target == Target::SuppressDefault => format!("0 {entry:?}"),
            _ => format!("1 {entry:?}"),
        })
        .collect();
    texts.sort();
    texts
}

const NOBODY: u32 = 65534;
