//! A way that loses, repeats and reorders datagrams: TCP through the tunnel copes, and the tunnel counts what it refused.
#![cfg(target_os = "linux")]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use adit_tests::relay::{Quality, Relay};
use adit_tests::{Adit, Ends, Pair, tools};
use anyhow::{Result, anyhow, ensure};

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_transfer_over_a_bad_way_arrives_unharmed_both_ways() -> Result<()> {
    let pair = Pair::new()?;
    let ends = Ends::new()?;
    let delay = Duration::from_millis(3);
    let quality = Quality { lost: 10, repeated: 10, delayed: 20, delay, seed: 0x00ad_1700 };
    let relay = Relay::start(&pair.a, &pair.b, Ends::PORT, quality)?;
    let (mut config_a, mut config_b) = (ends.config_a(None), ends.config_b(None));
    // That of the loopback interface, which the relay is reached by, is no measure.
    (config_a.mtu, config_b.mtu) = (Some(1420), Some(1420));
    config_a.wg.peers[0].endpoint = Some(relay.at_a());
    let mut b = Adit::start(&pair.b, &config_b)?;
    let mut a = Adit::start(&pair.a, &config_a)?;
    // The first handshake may be lost, and is then repeated after 5 s; the first ping waits for it.
    let pings = tools::ping(&pair.a, Ends::B4, 100, Duration::from_millis(10))?;
    ensure!(pings.received >= 80, "{pings:?}");

    let listener = pair.b.enter(|| TcpListener::bind((Ends::B6, 0)))??;
    let address = listener.local_addr()?;
    let content = content();
    let (there, back) = std::thread::scope(|scope| -> Result<_> {
        // It sends back what it gets.
        let echo = scope.spawn(|| -> Result<Vec<u8>> {
            let (mut stream, _) = listener.accept()?;
            let received = read_all(&mut stream)?;
            stream.write_all(&received)?;
            stream.shutdown(Shutdown::Write)?;
            Ok(received)
        });
        let mut stream = pair.a.enter(|| TcpStream::connect_timeout(&address, PATIENCE))??;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(&content)?;
        stream.shutdown(Shutdown::Write)?;
        let back = read_all(&mut stream)?;
        Ok((echo.join().map_err(|_| anyhow!("the other end panicked"))??, back))
    })?;
    ensure!(there == content, "{} of {} bytes arrived, or others", there.len(), content.len());
    ensure!(back == content, "{} of {} bytes came back, or others", back.len(), content.len());

    let done = relay.done();
    eprintln!("{done:?}");
    ensure!(done.lost > 50 && done.repeated > 50 && done.delayed > 100, "the way was too good: {done:?}");
    // Each repeated datagram is refused once, at one end or the other; what its copy brings is not delivered twice.
    let refused: u64 = [&a, &b]
        .into_iter()
        .map(|adit| {
            let status = adit.status()?;
            let sum = |part: Option<&serde_json::Value>| -> u64 {
                part.and_then(|drops| drops.as_object()?.values().map(serde_json::Value::as_u64).sum()).unwrap_or(0)
            };
            eprintln!("{} {}", status.json["drops"], status.json["peers"][0]["drops"]);
            Ok(sum(status.json.pointer("/drops")))
        })
        .sum::<Result<u64>>()?;
    ensure!(refused >= done.repeated * 9 / 10, "{refused} refused of {done:?}");
    a.stop()?;
    b.stop()
}

fn read_all(stream: &mut TcpStream) -> Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// 8 MiB in which no two blocks are alike.
fn content() -> Vec<u8> {
    (0..1_u64 << 20).flat_map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()).collect()
}

const PATIENCE: Duration = Duration::from_secs(60);
