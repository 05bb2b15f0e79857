//! What is in the kernel before, during and after, and what becomes of it when nft cannot be used or somebody interferes.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use adit_control::firewall::{self, Firewall, FirewallError, Part};
use ipnet::{IpNet, Ipv4Net};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::host::{TUN, closed, in_namespace, nft, open_to, sysctl};

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn foreign_tables_stay_and_removal_leaves_no_trace() {
    in_namespace(|_host| async move {
        nft("add table inet adit-adt01");
        nft("add table ip adit-adt0");
        nft("add table inet other; add chain inet other c { type filter hook output priority 5; }");
        nft("add rule inet other c ip daddr 192.0.2.77 counter accept");
        let before = nft("list ruleset");
        assert!(!firewall::exists(TUN).await.unwrap());
        firewall::remove(TUN).await.unwrap();
        firewall::check(Part::KillSwitch).await.unwrap();
        firewall::check(Part::ReplyProtection).await.unwrap();
        assert_eq!(nft("list ruleset"), before, "neither a check nor a removal of nothing changes anything");

        let everything = Firewall { reply_protection: true, ..open_to(&["192.0.2.0/24", "::/0"], &["10.0.0.0/8"]) };
        firewall::apply(&everything).await.unwrap();
        let first = nft("list ruleset");
        assert!(first.starts_with(&before) && first.len() > before.len(), "{first}");
        firewall::apply(&everything).await.unwrap();
        assert_eq!(nft("list ruleset"), first);
        assert!(firewall::exists(TUN).await.unwrap() && firewall::is_in_force(&everything).await.unwrap());

        firewall::remove(TUN).await.unwrap();
        assert_eq!(nft("list ruleset"), before);
        firewall::remove(TUN).await.unwrap();
        assert!(!firewall::exists(TUN).await.unwrap() && !firewall::is_in_force(&everything).await.unwrap());
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn each_kind_of_interference_is_noticed_and_repaired() {
    in_namespace(|_host| async move {
        let wanted = Firewall {
            reply_protection: true,
            ..open_to(&["192.0.2.0/25", "192.0.2.128/26", "198.18.0.1/32"], &["fd77::/64"])
        };
        let handle_of_loopback = || {
            let listing = crate::host::run("nft", &["-a", "list", "chain", "inet", "adit-adt0", "output"]);
            let line = listing.lines().find(|line| line.contains("loopback")).unwrap().to_owned();
            line.rsplit(' ').next().unwrap().to_owned()
        };
        let interferences = [
            "flush ruleset",
            "delete table inet adit-adt0",
            "flush table inet adit-adt0",
            "flush chain inet adit-adt0 forward",
            "delete chain inet adit-adt0 output",
            "delete rule inet adit-adt0 output handle HANDLE",
            "replace rule inet adit-adt0 output handle HANDLE counter accept",
            "insert rule inet adit-adt0 output counter accept",
            "add rule inet adit-adt0 refuse counter",
            "add chain inet adit-adt0 output { policy accept; }",
            "add chain inet adit-adt0 more",
            "add set inet adit-adt0 more { type ipv4_addr; }",
            "add element inet adit-adt0 excluded4 { 203.0.113.0/24 }",
            "delete element inet adit-adt0 excluded4 { 198.18.0.1 }",
            "flush set inet adit-adt0 local6",
            "add table inet adit-adt0 { flags dormant; }",
        ];
        for interference in interferences {
            firewall::apply(&wanted).await.unwrap();
            assert!(firewall::is_in_force(&wanted).await.unwrap(), "before: {interference}");
            nft(&interference.replace("HANDLE", &handle_of_loopback()));
            assert!(!firewall::is_in_force(&wanted).await.unwrap(), "{interference}");
        }
        firewall::apply(&wanted).await.unwrap();
        assert!(firewall::is_in_force(&wanted).await.unwrap());
        for other in [closed(), Firewall { fwmark: 5, ..wanted.clone() }, Firewall { addresses: vec![], ..wanted }] {
            assert!(!firewall::is_in_force(&other).await.unwrap(), "{other:?}");
        }
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_hundred_thousand_exclusions_are_a_matter_of_seconds() {
    in_namespace(|_host| async move {
        let net = |n: u32| Ipv4Net::new(Ipv4Addr::from_bits((10 << 24) + (n << 9)), 24).unwrap();
        let mut many = closed();
        let excluded: Vec<IpNet> = (0..100_000).map(|n| net(n).into()).collect();
        many.kill_switch.as_mut().unwrap().excluded = excluded;
        let start = Instant::now();
        firewall::apply(&many).await.unwrap();
        let applied = start.elapsed();
        assert!(firewall::is_in_force(&many).await.unwrap());
        nft(&format!("delete element inet adit-adt0 excluded4 {{ {} }}", net(77_777)));
        assert!(!firewall::is_in_force(&many).await.unwrap());
        firewall::apply(&closed()).await.unwrap();
        assert!(firewall::is_in_force(&closed()).await.unwrap());
        assert!(applied < Duration::from_secs(10), "{applied:?}");
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn without_ipv6_the_rules_are_accepted_all_the_same() {
    in_namespace(|_host| async move {
        sysctl("ipv6/conf/all/disable_ipv6", "1");
        let firewall = Firewall { reply_protection: true, ..open_to(&["2001:db8::/32"], &["10.0.0.0/8"]) };
        firewall::apply(&firewall).await.unwrap();
        assert!(firewall::is_in_force(&firewall).await.unwrap());
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_name_that_means_something_to_nftables_is_refused() {
    in_namespace(|_host| async move {
        for name in ["", "adt*", "@set", "a b", "sixteen-letters-", "..", "a\"b"] {
            let firewall = Firewall { ifname: name.into(), ..closed() };
            let refused = firewall::apply(&firewall).await;
            assert!(matches!(refused, Err(FirewallError::Name { .. })), "{name}: {refused:?}");
            assert!(firewall::remove(name).await.is_err() && firewall::exists(name).await.is_err());
        }
        let odd = Firewall { ifname: "a=+-._b".into(), ..closed() };
        firewall::apply(&odd).await.unwrap();
        assert!(firewall::is_in_force(&odd).await.unwrap());
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_host_without_nft_is_told_what_to_install() {
    in_namespace(|_host| async move {
        firewall::check(Part::KillSwitch).await.unwrap();
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let folders = std::env::var("PATH").unwrap();
        for folder in folders.split(':').chain(["/usr/sbin", "/sbin"]) {
            if std::path::Path::new(folder).join("nft").exists() {
                mount(None::<&str>, folder, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
            }
        }
        for result in
            [firewall::check(Part::KillSwitch).await, firewall::apply(&closed()).await, firewall::remove(TUN).await]
        {
            let error = result.unwrap_err();
            assert!(matches!(error, FirewallError::NoProgram) && error.is_unavailable(), "{error}");
            assert!(error.to_string().contains("install the package `nftables`"), "{error}");
        }
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_process_without_the_capability_is_told_so() {
    in_namespace(|_host| async move {
        firewall::apply(&closed()).await.unwrap();
        // glibc's function would change the whole process.
        // SAFETY: a system call that takes three numbers and touches no memory.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
        assert_eq!(changed, 0);
        let results = [
            firewall::check(Part::KillSwitch).await,
            firewall::apply(&closed()).await,
            firewall::remove(TUN).await,
            firewall::is_in_force(&closed()).await.map(drop),
            firewall::exists(TUN).await.map(drop),
        ];
        for result in results {
            let error = result.unwrap_err();
            assert!(error.is_permission() && error.to_string().contains("CAP_NET_ADMIN"), "{error}");
        }
    });
}
