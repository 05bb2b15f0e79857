import XCTest

@testable import AditKit

/// Tunnels of this process, over real sockets on loopback.
final class TunnelTests: XCTestCase {
    private struct Side {
        let secret: PrivateKey
        let port: UInt16
        let address: String

        init(_ address: String) throws {
            secret = try PrivateKey.generate()
            port = try SilentPeer.freePort()
            self.address = address
        }

        func configuration(to other: Side) throws -> Configuration {
            let own = try secret.exposedBase64()
            let theirs = try other.secret.publicKey().base64
            return Configuration(
                """
                [Interface]
                PrivateKey = \(own)
                Address = \(address)/32
                ListenPort = \(port)

                [Peer]
                PublicKey = \(theirs)
                AllowedIPs = \(other.address)/32
                Endpoint = 127.0.0.1:\(other.port)
                """
            )
        }
    }

    /// A tunnel whose peer never answers.
    private func lonely(
        _ peer: SilentPeer,
        _ options: TunnelOptions,
        applySettings: @escaping Tunnel.ApplySettings = { _ in }
    ) throws -> Tunnel {
        let own = try PrivateKey.generate().exposedBase64()
        let theirs = try PrivateKey.generate().publicKey().base64
        let configuration = Configuration(
            """
            [Interface]
            PrivateKey = \(own)
            Address = 10.99.0.1/32

            [Peer]
            PublicKey = \(theirs)
            AllowedIPs = 10.99.0.2/32
            Endpoint = 127.0.0.1:\(peer.port)
            """
        )
        return try Tunnel(configuration: configuration, options: options, applySettings: applySettings)
    }

    private func code(of error: Error?) -> TunnelError.Code? {
        return (error as? TunnelError)?.code
    }

    private func failure(_ body: () async throws -> Void) async -> Error? {
        do {
            try await body()
            return nil
        } catch {
            return error
        }
    }

    func testTwoTunnelsExchangePackets() async throws {
        let left = try Side("10.99.0.1")
        let right = try Side("10.99.0.2")
        let applied = Inbox<Settings>()
        let leftTunnel = try Tunnel(configuration: left.configuration(to: right)) { settings in
            applied.add(settings)
        }
        let rightTunnel = try Tunnel(configuration: right.configuration(to: left)) { settings in
            applied.add(settings)
        }
        let leftInbox = Inbox<Data>()
        let rightInbox = Inbox<Data>()
        async let leftUp: Void = leftTunnel.start(.callbacks({ batch in batch.packets.forEach { leftInbox.add($0) } }))
        async let rightUp: Void = rightTunnel.start(.callbacks({ batch in batch.packets.forEach { rightInbox.add($0) } }))
        _ = try await (leftUp, rightUp)
        XCTAssertEqual(Set(applied.all.map { $0.addresses }), [["10.99.0.1/32"], ["10.99.0.2/32"]])

        let there = ipv4Packet(from: [10, 99, 0, 1], to: [10, 99, 0, 2], payload: Array("there".utf8))
        let back = ipv4Packet(from: [10, 99, 0, 2], to: [10, 99, 0, 1], payload: Array("and back".utf8))
        let batch = try XCTUnwrap(PacketBatch([there]))
        XCTAssertEqual(try leftTunnel.inject(batch), 1)
        let arrived = try await rightInbox.first(where: { $0 == there })
        XCTAssertNotNil(arrived)
        XCTAssertEqual(try rightTunnel.inject(XCTUnwrap(PacketBatch([back]))), 1)
        let returned = try await leftInbox.first(where: { $0 == back })
        XCTAssertNotNil(returned)

        let stats = try leftTunnel.stats()
        XCTAssertEqual(stats.state, .up)
        XCTAssertGreaterThan(stats.packetsOut, 0)
        XCTAssertGreaterThan(stats.packetsIn, 0)
        XCTAssertNotNil(stats.lastHandshakeAge)
        XCTAssertLessThanOrEqual(stats.packetMemory, stats.packetMemoryBudget)

        try leftTunnel.pathChanged(NetworkPath(interfaceIndex: 1, interfaceKind: .wired, isSatisfied: true))
        try leftTunnel.sleep()
        try leftTunnel.wake()

        try await leftTunnel.stop()
        try await leftTunnel.stop(reason: .userLogout)
        try await rightTunnel.stop()
        await leftTunnel.close()
        await rightTunnel.close()

        var events: [Event] = []
        for await event in leftTunnel.events {
            events.append(event)
        }
        XCTAssertEqual(events.filter { $0.kind == 2 }, [.started(nil)])
        XCTAssertEqual(events.filter { $0.kind == 11 }, [.stopped(reason: .userInitiated, error: nil)])
        XCTAssertTrue(events.contains(.state(.up)))
        XCTAssertTrue(events.contains(where: { $0.kind == 3 }))
        XCTAssertEqual(leftTunnel.missedEvents, 0)
    }

    func testAPacketThatIsNone() async throws {
        let peer = try SilentPeer()
        var options = TunnelOptions(isHandshakeOptional: true)
        options.handshakeTimeout = 0.2
        let tunnel = try lonely(peer, options)
        try await tunnel.start(.callbacks({ _ in }))
        let wrong = PacketBatch(packets: [Data([0x45, 0]), Data([0x99])], families: [AF_INET, AF_INET])
        XCTAssertThrowsError(try tunnel.inject(wrong)) { error in
            XCTAssertEqual(code(of: error), .packet)
        }
        XCTAssertEqual(try tunnel.inject(PacketBatch(packets: [], families: [])), 0)
        XCTAssertEqual(try tunnel.stats().injectRefused, 1)
        try await tunnel.stop()
    }

    func testAPeerThatDoesNotAnswer() async throws {
        let peer = try SilentPeer()
        let tunnel = try lonely(peer, TunnelOptions(handshakeTimeout: 0.5))
        let error = await failure {
            try await tunnel.start(.callbacks({ _ in }))
        }
        XCTAssertEqual(code(of: error), .peerTimeout, "\(String(describing: error))")
    }

    func testSettingsThatAreRejected() async throws {
        let peer = try SilentPeer()
        let tunnel = try lonely(peer, TunnelOptions(handshakeTimeout: 0.2, isHandshakeOptional: true)) { _ in
            throw PlanError(field: "mtu", value: "1", problem: "too small")
        }
        let error = await failure {
            try await tunnel.start(.callbacks({ _ in }))
        }
        XCTAssertEqual(code(of: error), .settingsRejected, "\(String(describing: error))")
    }

    func testSettingsThatAreNeverApplied() async throws {
        let peer = try SilentPeer()
        let options = TunnelOptions(handshakeTimeout: 0.2, settingsTimeout: 0.3, isHandshakeOptional: true)
        let cancelled = Inbox<Bool>()
        let tunnel = try lonely(peer, options) { _ in
            do {
                try await Task.sleep(nanoseconds: 60_000_000_000)
            } catch {
                cancelled.add(true)
                throw error
            }
        }
        let error = await failure {
            try await tunnel.start(.callbacks({ _ in }))
        }
        XCTAssertEqual(code(of: error), .settingsTimeout, "\(String(describing: error))")
        let told = try await cancelled.first(where: { $0 })
        XCTAssertEqual(told, true, "whoever applies them is told that nobody waits any more")
    }

    func testCancellingAStartStopsTheTunnel() async throws {
        let peer = try SilentPeer()
        let tunnel = try lonely(peer, TunnelOptions(handshakeTimeout: 25))
        for _ in 0..<3 {
            let begin = Date()
            let start = Task<Void, Error> {
                try await tunnel.start(.callbacks({ _ in }))
            }
            try await Task.sleep(nanoseconds: 100_000_000)
            start.cancel()
            let result = await start.result
            switch result {
            case .success:
                XCTFail("a start that was cancelled succeeded")
            case .failure(let error):
                XCTAssertTrue(error is CancellationError, "\(error)")
            }
            XCTAssertLessThan(Date().timeIntervalSince(begin), 10)
            XCTAssertEqual(try tunnel.stats().state, .idle)
        }
    }

    func testAStartThatWasCancelledBeforeItBegan() async throws {
        let peer = try SilentPeer()
        let tunnel = try lonely(peer, TunnelOptions(handshakeTimeout: 25))
        let start = Task<Void, Error> {
            while !Task.isCancelled {
                await Task.yield()
            }
            try await tunnel.start(.callbacks({ _ in }))
        }
        start.cancel()
        let result = await start.result
        XCTAssertThrowsError(try result.get()) { error in
            XCTAssertTrue(error is CancellationError, "\(error)")
        }
        XCTAssertEqual(try tunnel.stats().state, .idle)
    }

    func testASecondStartIsRefusedAndHarmsNothing() async throws {
        let peer = try SilentPeer()
        let tunnel = try lonely(peer, TunnelOptions(handshakeTimeout: 0.2, isHandshakeOptional: true))
        try await tunnel.start(.callbacks({ _ in }))
        let error = await failure {
            try await tunnel.start(.callbacks({ _ in }))
        }
        XCTAssertEqual(code(of: error), .alreadyRunning)
        XCTAssertEqual(try tunnel.stats().state, .up)
        try await tunnel.stop()
        try await tunnel.start(.callbacks({ _ in }))
        XCTAssertEqual(try tunnel.stats().state, .up)
    }

    func testAStopEndsAStart() async throws {
        let peer = try SilentPeer()
        let tunnel = try lonely(peer, TunnelOptions(handshakeTimeout: 25))
        let start = Task<Void, Error> {
            try await tunnel.start(.callbacks({ _ in }))
        }
        try await Task.sleep(nanoseconds: 100_000_000)
        try await tunnel.stop(reason: .appUpdate)
        let result = await start.result
        XCTAssertThrowsError(try result.get()) { error in
            XCTAssertEqual(code(of: error), .stopped, "\(error)")
        }
    }

    func testADescriptorThatIsNoTun() async throws {
        let peer = try SilentPeer()
        let tunnel = try lonely(peer, TunnelOptions(handshakeTimeout: 0.2, isHandshakeOptional: true))
        let error = await failure {
            try await tunnel.start(.descriptor(TunnelDescriptor(0)))
        }
        XCTAssertEqual(code(of: error), .device, "\(String(describing: error))")
    }

    func testAnUpdate() async throws {
        let peer = try SilentPeer()
        let tunnel = try lonely(peer, TunnelOptions(handshakeTimeout: 0.2, isHandshakeOptional: true))
        let own = try PrivateKey.generate().exposedBase64()
        let theirs = try PrivateKey.generate().publicKey().base64
        let configuration = Configuration(
            """
            [Interface]
            PrivateKey = \(own)
            Address = 10.99.0.7/32

            [Peer]
            PublicKey = \(theirs)
            AllowedIPs = 10.99.0.0/16
            Endpoint = 127.0.0.1:\(peer.port)
            """
        )
        // Of a tunnel that is not running there is nothing to wait for.
        try await tunnel.update(configuration)
        let idle = try await tunnel.settings()
        XCTAssertEqual(idle.addresses, ["10.99.0.7/32"])

        try await tunnel.start(.callbacks({ _ in }))
        try await tunnel.update(configuration)
        let error = await failure {
            try await tunnel.update(Configuration("[Interface]\nAdress = 10.99.0.7/32\n"))
        }
        XCTAssertEqual(code(of: error), .configuration, "\(String(describing: error))")
        XCTAssertEqual(try tunnel.stats().state, .up)
    }

    func testASnapshotHasNoSecrets() async throws {
        let peer = try SilentPeer()
        let secret = try PrivateKey.generate().exposedBase64()
        let configuration = Configuration("[Interface]\nPrivateKey = \(secret)\nAddress = 10.99.0.1/32\n")
        let tunnel = try Tunnel(configuration: configuration, applySettings: { _ in })
        for redaction in [Tunnel.Redaction.secrets, Tunnel.Redaction.everything] {
            let snapshot = try await tunnel.snapshot(redaction: redaction)
            XCTAssertNoThrow(try JSONSerialization.jsonObject(with: snapshot))
            XCTAssertFalse(String(decoding: snapshot, as: UTF8.self).contains(secret))
        }
        XCTAssertGreaterThan(peer.port, 0)
    }

    func testAfterTheCloseEverythingIsAnError() async throws {
        let peer = try SilentPeer()
        let tunnel = try lonely(peer, TunnelOptions())
        await tunnel.close()
        await tunnel.close()
        XCTAssertThrowsError(try tunnel.stats()) { error in
            XCTAssertEqual(code(of: error), .invalidHandle)
        }
        let error = await failure {
            try await tunnel.start(.callbacks({ _ in }))
        }
        XCTAssertEqual(code(of: error), .invalidHandle)
        var count = 0
        for await _ in tunnel.events {
            count += 1
        }
        XCTAssertEqual(count, 0)
    }

    func testTunnelsThatAreForgottenAreFreed() async throws {
        let secret = try PrivateKey.generate().exposedBase64()
        let configuration = Configuration("[Interface]\nPrivateKey = \(secret)\nAddress = 10.99.0.1/32\n")
        var made = 0
        // More than a process may have at a time. They are freed in the background, so there may be too many for a while.
        for _ in 0..<1000 {
            do {
                _ = try Tunnel(configuration: configuration, applySettings: { _ in })
                made += 1
            } catch {
                XCTAssertEqual(code(of: error), .tooMany)
                try await Task.sleep(nanoseconds: 20_000_000)
            }
            if made == 200 {
                break
            }
        }
        XCTAssertEqual(made, 200)
    }

    func testTheLog() async throws {
        let lines = Inbox<Adit.LogLine>()
        try Adit.setLog(.debug) { line in
            lines.add(line)
        }
        let peer = try SilentPeer()
        let tunnel = try lonely(peer, TunnelOptions(handshakeTimeout: 0.2, isHandshakeOptional: true))
        try await tunnel.start(.callbacks({ _ in }))
        try await tunnel.stop()
        let line = try await lines.first(where: { !$0.message.isEmpty })
        XCTAssertNotNil(line)
        try Adit.removeLog()
        let count = lines.all.count
        try await tunnel.start(.callbacks({ _ in }))
        try await tunnel.stop()
        XCTAssertEqual(lines.all.count, count)
    }
}
