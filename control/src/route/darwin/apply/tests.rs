//! Applying and undoing against a kernel in memory that answers as Darwin's does.

use std::net::IpAddr;

use super::super::message::Gateway;
use super::super::table::tests::{interface, router, row};
use super::super::table::{IFF_UP, Interface, Row, gateway_of};
use super::*;
use crate::settings::Wanted;

const TUNNEL: u32 = 11;

/// A routing table in memory; the operation of a number can be made to fail.
struct Fake {
    table: Table,
    operations: usize,
    fails_at: Option<usize>,
}

impl Fake {
    fn new() -> Self {
        let tunnel = Interface { flags: 0, ..interface(TUNNEL, "utun4", 1420, &[]) };
        let interfaces = vec![interface(4, "en0", 1500, &["192.168.1.7/24"]), tunnel];
        let routes = vec![row("0.0.0.0/0", router("192.168.1.1"), 4), row("192.168.1.0/24", Gateway::Interface(4), 4)];
        Self { table: Table { routes, interfaces }, operations: 0, fails_at: None }
    }

    fn step(&mut self) -> Result<(), Errno> {
        self.operations += 1;
        if self.fails_at == Some(self.operations) { Err(Errno::ENOBUFS) } else { Ok(()) }
    }

    fn interface(&mut self, index: u32) -> Result<&mut Interface, Errno> {
        self.table.interfaces.iter_mut().find(|found| found.index == index).ok_or(Errno::ENXIO)
    }

    fn shown(&self) -> Vec<String> {
        let mut shown: Vec<_> =
            self.table.routes.iter().map(|row| format!("{} {:?}", row.destination, row.gateway)).collect();
        for interface in &self.table.interfaces {
            shown.extend(interface.addresses.iter().map(|address| format!("{address} on {}", interface.name)));
        }
        shown.sort();
        shown
    }
}

fn row_of(route: &Route) -> Row {
    let gateway = gateway_of(&route.via).unwrap();
    let index = match &route.via {
        Via::Device(device) | Via::Gateway { device, .. } => device.index,
        _ => 1,
    };
    Row { destination: route.destination, gateway, index, is_scoped: false, mtu: 0 }
}

impl Kernel for Fake {
    fn table(&mut self) -> Result<Table, RouteError> {
        Ok(self.table.clone())
    }

    fn make(&mut self, change: &Entry) -> Result<(), Errno> {
        self.step()?;
        match change {
            Entry::Address(it) => self.interface(it.device.index)?.addresses.push(it.address),
            Entry::Up(device) => self.interface(device.index)?.flags |= IFF_UP,
            Entry::Route(route) => {
                if self.table.routes.iter().any(|row| row.destination == route.destination && !row.is_scoped) {
                    return Err(Errno::EEXIST);
                }
                self.table.routes.push(row_of(route));
            }
            other => panic!("{other:?} is no change of macOS"),
        }
        Ok(())
    }

    fn redirect(&mut self, route: &Route) -> Result<(), Errno> {
        self.step()?;
        let found =
            self.table.routes.iter_mut().find(|row| row.destination == route.destination).ok_or(Errno::ESRCH)?;
        let kinds = [found.gateway, row_of(route).gateway].map(|gateway| matches!(gateway, Gateway::Router { .. }));
        assert_eq!(kinds, [true, true], "the kernel changes a route's router, and not its kind");
        *found = row_of(route);
        Ok(())
    }

    fn unmake(&mut self, change: &Entry) -> Result<(), Errno> {
        self.step()?;
        match change {
            Entry::Address(it) => {
                let address = it.address;
                self.interface(it.device.index)?.addresses.retain(|own| *own != address);
            }
            Entry::Route(route) => {
                let at = self.table.routes.iter().position(|row| row.destination == route.destination);
                self.table.routes.remove(at.ok_or(Errno::ESRCH)?);
            }
            _ => {}
        }
        Ok(())
    }
}

fn settings(addresses: &[&str], allowed: &[&str], excluded: &[&str]) -> Settings {
    let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    Settings::new(&Wanted {
        addresses: nets(addresses),
        allowed_ips: nets(allowed),
        excluded_ips: nets(excluded),
        ..Wanted::default()
    })
}

fn full() -> Settings {
    settings(&["10.9.0.2/32"], &["0.0.0.0/0"], &["198.51.100.0/24"])
}

fn journal(dir: &tempfile::TempDir) -> Journal {
    Journal::create(dir.path(), "wg0").unwrap()
}

fn apply_to(kernel: &mut Fake, settings: &Settings, journal: &mut Journal) -> Result<Applied, RouteError> {
    apply(kernel, "utun4", settings, journal, &mut |_, _| ()).map(|(applied, _)| applied)
}

#[test]
fn a_second_time_changes_nothing_and_undo_takes_everything_back() {
    let dir = tempfile::tempdir().unwrap();
    let (mut kernel, mut journal) = (Fake::new(), journal(&dir));
    let before = kernel.shown();
    let applied = apply_to(&mut kernel, &full(), &mut journal).unwrap();
    assert_eq!((applied.index, applied.mtu, applied.changed), (TUNNEL, 1420, 5));
    assert_eq!(applied.binding.interface().map(u32::from), Some(4));
    assert!(kernel.shown().contains(&format!("198.51.100.0/24 {:?}", router("192.168.1.1"))));
    assert_eq!(apply_to(&mut kernel, &full(), &mut journal).unwrap().changed, 0);

    undo(&mut kernel, &mut journal).unwrap();
    assert_eq!(kernel.shown(), before);
    assert_eq!(journal.entries(), []);
    undo(&mut kernel, &mut journal).unwrap();
}

#[test]
fn a_failure_at_any_step_leaves_the_host_as_it_was() {
    let steps = {
        let dir = tempfile::tempdir().unwrap();
        let mut kernel = Fake::new();
        apply_to(&mut kernel, &full(), &mut journal(&dir)).unwrap();
        kernel.operations
    };
    assert!(steps >= 5);
    for fails_at in 1..=steps {
        let dir = tempfile::tempdir().unwrap();
        let (mut kernel, mut journal) = (Fake { fails_at: Some(fails_at), ..Fake::new() }, journal(&dir));
        let error = apply_to(&mut kernel, &full(), &mut journal).unwrap_err();
        assert!(error.to_string().contains("ENOBUFS"), "{error}");
        assert_eq!(kernel.shown(), Fake::new().shown(), "step {fails_at}");
        undo(&mut kernel, &mut journal).unwrap();
        assert_eq!(journal.entries(), []);
    }
}

#[test]
fn an_exception_follows_the_router_without_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let (mut kernel, mut journal) = (Fake::new(), journal(&dir));
    apply_to(&mut kernel, &full(), &mut journal).unwrap();
    // Another network: another router, on another interface.
    kernel.table.routes[0] = row("0.0.0.0/0", router("172.20.0.1"), 5);
    kernel.table.interfaces.push(interface(5, "en5", 1400, &["172.20.0.7/16"]));
    let applied = apply_to(&mut kernel, &full(), &mut journal).unwrap();
    assert_eq!(applied.binding.interface().map(u32::from), Some(5));
    assert_eq!(applied.mtu, 1320);
    let exception = kernel.table.routes.iter().find(|row| row.destination.to_string() == "198.51.100.0/24").unwrap();
    assert_eq!((exception.gateway, exception.index), (router("172.20.0.1"), 5));
    let recorded = journal.entries().iter().filter(|entry| describe(entry).contains("198.51.100.0/24")).count();
    assert_eq!(recorded, 1, "{:?}", journal.entries());
    assert_eq!(apply_to(&mut kernel, &full(), &mut journal).unwrap().changed, 0);
    // The network goes away: an error then, as without a tunnel, and the host's own again when it is back.
    kernel.table.routes.remove(0);
    assert_eq!(apply_to(&mut kernel, &full(), &mut journal).unwrap().binding, Binding::Unchanged);
    let exception = kernel.table.routes.iter().find(|row| row.destination.to_string() == "198.51.100.0/24").unwrap();
    assert_eq!(exception.gateway, Gateway::Reject);
}

#[test]
fn the_same_router_behind_another_interface_is_the_same_way() {
    let dir = tempfile::tempdir().unwrap();
    let (mut kernel, mut journal) = (Fake::new(), journal(&dir));
    apply_to(&mut kernel, &full(), &mut journal).unwrap();
    let operations = kernel.operations;
    kernel.table.interfaces.push(interface(5, "en5", 1500, &["192.168.1.8/24"]));
    kernel.table.routes[0].index = 5;
    let applied = apply_to(&mut kernel, &full(), &mut journal).unwrap();
    assert_eq!((applied.changed, kernel.operations), (0, operations));
    assert_eq!(applied.binding.interface().map(u32::from), Some(5));
    undo(&mut kernel, &mut journal).unwrap();
    assert_eq!(kernel.table.routes.len(), 2);
}

#[test]
fn what_others_took_away_is_put_back_and_what_they_put_there_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (mut kernel, mut journal) = (Fake::new(), journal(&dir));
    apply_to(&mut kernel, &full(), &mut journal).unwrap();
    let whole = kernel.shown();
    kernel.table.routes.retain(|row| row.destination.to_string() != "128.0.0.0/1");
    assert_eq!(apply_to(&mut kernel, &full(), &mut journal).unwrap().changed, 1);
    assert_eq!(kernel.shown(), whole);

    // Somebody else's route in the place of ours is not undone.
    let theirs = kernel.table.routes.iter_mut().find(|row| row.destination.to_string() == "198.51.100.0/24").unwrap();
    *theirs = row("198.51.100.0/24", router("192.168.1.99"), 4);
    undo(&mut kernel, &mut journal).unwrap();
    assert!(kernel.shown().contains(&format!("198.51.100.0/24 {:?}", router("192.168.1.99"))));
    assert_eq!(kernel.table.routes.len(), 3);
}

#[test]
fn a_reload_changes_the_difference() {
    let dir = tempfile::tempdir().unwrap();
    let (mut kernel, mut journal) = (Fake::new(), journal(&dir));
    apply_to(&mut kernel, &full(), &mut journal).unwrap();
    let split = settings(&["10.9.0.3/32"], &["10.0.0.0/8"], &[]);
    // Two routes and an exception less, one route more, another address.
    assert_eq!(apply_to(&mut kernel, &split, &mut journal).unwrap().changed, 6);
    let mut fresh = Fake::new();
    let other = tempfile::tempdir().unwrap();
    apply_to(&mut fresh, &split, &mut Journal::create(other.path(), "wg0").unwrap()).unwrap();
    assert_eq!(kernel.shown(), fresh.shown());
}

#[test]
fn a_dead_tunnels_interface_is_left_alone_and_its_exceptions_go() {
    let dir = tempfile::tempdir().unwrap();
    let (mut kernel, mut journal) = (Fake::new(), journal(&dir));
    apply_to(&mut kernel, &full(), &mut journal).unwrap();
    drop(journal);
    // Written by a process that is no more; another program has got the interface's number meanwhile.
    let path = dir.path().join("wg0.journal");
    let text = std::fs::read_to_string(&path).unwrap();
    let dead = text.replace(&format!("\"pid\":{}", std::process::id()), "\"pid\":4000000000");
    assert_ne!(text, dead);
    std::fs::write(&path, dead).unwrap();
    let mut journal = Journal::load(dir.path(), "wg0").unwrap().unwrap();
    undo(&mut kernel, &mut journal).unwrap();
    let left = kernel.shown();
    assert!(left.iter().any(|text| text.starts_with("0.0.0.0/1")), "{left:?}");
    assert!(!left.iter().any(|text| text.starts_with("198.51.100.0/24")), "{left:?}");
    assert_eq!(journal.entries(), []);
}

#[test]
fn what_is_not_there_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut kernel, mut journal) = (Fake::new(), journal(&dir));
    let error = apply(&mut kernel, "utun7", &full(), &mut journal, &mut |_, _| ()).unwrap_err();
    assert_eq!(error.to_string(), "there is no network interface `utun7`");
    let ipv6 = settings(&["fd00::2/128"], &["::/0"], &[]);
    let small = Settings { mtu: MtuSource::Fixed(1200), ..ipv6 };
    let error = apply_to(&mut kernel, &small, &mut journal).unwrap_err();
    assert!(matches!(error, RouteError::MtuTooSmall { mtu: 1200 }));
    assert_eq!(kernel.operations, 0);
}

#[test]
fn endpoints_decide_the_mtu() {
    let dir = tempfile::tempdir().unwrap();
    let (mut kernel, mut journal) = (Fake::new(), journal(&dir));
    kernel.table.routes.push(Row { mtu: 1300, ..row("192.0.2.0/24", router("192.168.1.1"), 4) });
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    let with_endpoint = Settings::new(&Wanted {
        addresses: vec!["10.9.0.2/32".parse().unwrap()],
        allowed_ips: vec!["10.0.0.0/8".parse().unwrap()],
        endpoints: vec![(address, 51820).into()],
        ..Wanted::default()
    });
    let applied = apply_to(&mut kernel, &with_endpoint, &mut journal).unwrap();
    assert_eq!((applied.mtu, applied.binding), (1220, Binding::Free));
}
