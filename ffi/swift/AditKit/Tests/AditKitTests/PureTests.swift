import XCTest

@testable import AditKit

final class NetworkPathTests: XCTestCase {
    func testFlags() {
        var path = NetworkPath(
            interfaceIndex: 4,
            interfaceKind: .wifi,
            isSatisfied: true,
            supportsIPv4: false,
            supportsIPv6: false
        )
        XCTAssertEqual(path.flags, 1)
        path.isExpensive = true
        XCTAssertEqual(path.flags, 3)
        path.isConstrained = true
        XCTAssertEqual(path.flags, 7)
        path.supportsIPv4 = true
        XCTAssertEqual(path.flags, 15)
        path.supportsIPv6 = true
        XCTAssertEqual(path.flags, 31)
        path.isDirectLink = true
        XCTAssertEqual(path.flags, 63)
        XCTAssertEqual(NetworkPath.unsatisfied.flags, 0)
    }

    func testKindsAreThoseOfTheSystem() {
        XCTAssertEqual(NetworkPath.InterfaceKind.wired.rawValue, 2)
        XCTAssertEqual(NetworkPath.InterfaceKind.wifi.rawValue, 3)
        XCTAssertEqual(NetworkPath.InterfaceKind.cellular.rawValue, 5)
        XCTAssertEqual(NetworkPath.InterfaceKind.management.rawValue, 8)
    }

    func testARepetitionIsNoChange() {
        let wifi = NetworkPath(interfaceIndex: 4, interfaceKind: .wifi, isSatisfied: true)
        var filter = PathFilter()
        XCTAssertEqual(filter.changed(to: wifi), wifi)
        XCTAssertNil(filter.changed(to: wifi))
        XCTAssertEqual(filter.changed(to: .unsatisfied), .unsatisfied)
        XCTAssertEqual(filter.changed(to: wifi), wifi)
        var expensive = wifi
        expensive.isExpensive = true
        XCTAssertEqual(filter.changed(to: expensive), expensive)
    }

    func testTheUnderlay() {
        let tunnel = PathInterface(index: 9, kind: .unknown)
        let wifi = PathInterface(index: 4, kind: .wifi)
        let cellular = PathInterface(index: 3, kind: .cellular)
        let loopback = PathInterface(index: 1, kind: .loopback)
        let link = PathInterface(index: 7, kind: .wired, isDirectLink: true)
        let invalid = PathInterface(index: 0, kind: .wifi)
        XCTAssertEqual(PathFilter.underlay(of: [tunnel, invalid, wifi, cellular]), wifi)
        XCTAssertEqual(PathFilter.underlay(of: [loopback, link, cellular, wifi]), cellular)
        XCTAssertEqual(PathFilter.underlay(of: [tunnel]), tunnel)
        XCTAssertNil(PathFilter.underlay(of: [tunnel], excluding: 9))
        XCTAssertNil(PathFilter.underlay(of: [loopback, link, invalid]))
    }
}

final class UtunElectionTests: XCTestCase {
    private func candidate(_ descriptor: Int32, _ name: String) -> UtunElection.Candidate {
        return UtunElection.Candidate(descriptor: descriptor, name: name)
    }

    func testTheNameDecides() {
        let candidates = [candidate(5, "utun3"), candidate(9, "utun7"), candidate(6, "utun4")]
        XCTAssertEqual(UtunElection.elect(candidates, name: "utun4"), candidate(6, "utun4"))
        XCTAssertEqual(UtunElection.elect(candidates, known: [6], name: "utun4"), candidate(6, "utun4"))
    }

    func testANameThatNobodyHasElectsNobody() {
        XCTAssertNil(UtunElection.elect([candidate(5, "utun3")], name: "utun4"))
    }

    func testWithoutANameTheNewestDecides() {
        let candidates = [candidate(12, "utun9"), candidate(5, "utun10"), candidate(6, "utun4")]
        XCTAssertEqual(UtunElection.elect(candidates), candidate(5, "utun10"), "numbers are compared, not texts")
        XCTAssertEqual(UtunElection.elect(candidates, name: ""), candidate(5, "utun10"))
    }

    func testWhatWasThereBeforeIsAnothers() {
        let candidates = [candidate(5, "utun10"), candidate(6, "utun4")]
        XCTAssertEqual(UtunElection.elect(candidates, known: [5]), candidate(6, "utun4"))
        XCTAssertEqual(UtunElection.elect(candidates, known: [5, 6]), candidate(5, "utun10"))
    }

    func testTwoDescriptorsOfOneInterface() {
        let candidates = [candidate(8, "utun4"), candidate(6, "utun4")]
        XCTAssertEqual(UtunElection.elect(candidates), candidate(8, "utun4"))
        XCTAssertEqual(UtunElection.elect(candidates, name: "utun4"), candidate(8, "utun4"))
    }

    func testNobody() {
        XCTAssertNil(UtunElection.elect([]))
        XCTAssertNil(candidate(5, "utun").unit)
        XCTAssertNil(candidate(5, "ipsec0").unit)
    }
}

final class RestartGuardTests: XCTestCase {
    private let begin = Date(timeIntervalSince1970: 1_700_000_000)

    private func after(_ seconds: TimeInterval) -> Date {
        return begin.addingTimeInterval(seconds)
    }

    func testTheFirstStartsDoNotWait() {
        var restarts = RestartGuard()
        XCTAssertEqual(restarts.begin(isUserInitiated: false, now: begin), 0)
        restarts.failed(now: after(1))
        XCTAssertEqual(restarts.begin(isUserInitiated: false, now: after(1)), 0)
    }

    func testFailuresInARowWaitLongerAndLonger() {
        var restarts = RestartGuard()
        var pauses: [TimeInterval] = []
        for _ in 0..<8 {
            pauses.append(restarts.begin(isUserInitiated: false, now: begin))
            restarts.failed(now: begin)
        }
        XCTAssertEqual(pauses, [0, 0, 2, 4, 8, 16, 25, 25])
    }

    func testTimeThatPassedCounts() {
        var restarts = RestartGuard()
        for _ in 0..<4 {
            _ = restarts.begin(isUserInitiated: false, now: begin)
            restarts.failed(now: begin)
        }
        XCTAssertEqual(restarts.begin(isUserInitiated: false, now: after(5)), 3)
        XCTAssertEqual(restarts.failures, 4)
    }

    func testAPersonDoesNotWait() {
        var restarts = RestartGuard()
        for _ in 0..<4 {
            _ = restarts.begin(isUserInitiated: false, now: begin)
            restarts.failed(now: begin)
        }
        XCTAssertEqual(restarts.begin(isUserInitiated: true, now: begin), 0)
    }

    func testACrashIsAFailure() {
        var restarts = RestartGuard()
        _ = restarts.begin(isUserInitiated: false, now: begin)
        _ = restarts.begin(isUserInitiated: false, now: after(1))
        XCTAssertEqual(restarts.begin(isUserInitiated: false, now: after(2)), 2)
        XCTAssertEqual(restarts.failures, 2)
    }

    func testALongLifeForgets() {
        var restarts = RestartGuard()
        for _ in 0..<4 {
            _ = restarts.begin(isUserInitiated: false, now: begin)
            restarts.failed(now: begin)
        }
        _ = restarts.begin(isUserInitiated: false, now: begin)
        restarts.stopped(now: after(61))
        XCTAssertEqual(restarts.failures, 0)
        _ = restarts.begin(isUserInitiated: false, now: after(62))
        XCTAssertEqual(restarts.begin(isUserInitiated: false, now: after(7200)), 0, "killed after two hours")
        XCTAssertEqual(restarts.failures, 0)
    }

    func testAStopIsNoProof() {
        var restarts = RestartGuard()
        for _ in 0..<4 {
            _ = restarts.begin(isUserInitiated: false, now: begin)
            restarts.failed(now: begin)
        }
        _ = restarts.begin(isUserInitiated: false, now: begin)
        restarts.stopped(now: after(1))
        XCTAssertEqual(restarts.failures, 4)
    }

    func testAClockThatIsSetBack() {
        var restarts = RestartGuard()
        for _ in 0..<8 {
            _ = restarts.begin(isUserInitiated: false, now: begin)
            restarts.failed(now: begin)
        }
        XCTAssertEqual(restarts.begin(isUserInitiated: false, now: after(-86400)), RestartGuard.longestPause)
    }

    func testItIsKept() throws {
        var restarts = RestartGuard()
        _ = restarts.begin(isUserInitiated: false, now: begin)
        restarts.failed(now: after(1))
        let kept = try JSONDecoder().decode(RestartGuard.self, from: JSONEncoder().encode(restarts))
        XCTAssertEqual(kept, restarts)
    }
}

final class OptionsTests: XCTestCase {
    func testMilliseconds() {
        XCTAssertEqual(TunnelOptions.milliseconds(nil), 0, "the default")
        XCTAssertEqual(TunnelOptions.milliseconds(0), 1, "at once, and not the default")
        XCTAssertEqual(TunnelOptions.milliseconds(-5), 1)
        XCTAssertEqual(TunnelOptions.milliseconds(Double.nan), 1)
        XCTAssertEqual(TunnelOptions.milliseconds(0.0015), 2)
        XCTAssertEqual(TunnelOptions.milliseconds(2.5), 2500)
        XCTAssertEqual(TunnelOptions.milliseconds(Double.infinity), 4_000_000_000)
    }
}

final class PacketBatchTests: XCTestCase {
    func testFamilies() throws {
        let batch = try XCTUnwrap(PacketBatch([Data([0x45, 0]), Data([0x60, 0])]))
        XCTAssertEqual(batch.families, [AF_INET, AF_INET6])
        XCTAssertNil(PacketBatch([Data([0x45]), Data()]))
        XCTAssertNil(PacketBatch([Data([0x50])]))
    }

    func testParts() {
        let batch = PacketBatch(packets: [Data([0x45]), Data([0x60]), Data([0x46])], families: [AF_INET, AF_INET6])
        XCTAssertEqual(batch.count, 2)
        XCTAssertEqual(batch.dropFirst(1).families, [AF_INET6])
        XCTAssertEqual(batch.prefix(1).packets, [Data([0x45])])
        XCTAssertTrue(batch.dropFirst(5).isEmpty)
    }

    func testWhatContradictsItself() {
        let batch = PacketBatch(packets: [Data([0x45]), Data([0x60]), Data()], families: [AF_INET, AF_INET, AF_INET])
        XCTAssertEqual(batch.sound().packets, [Data([0x45])])
    }
}
