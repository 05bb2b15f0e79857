import XCTest

@testable import AditKit

final class EventTests: XCTestCase {
    private let peer = "gN65BkIKy1eCE9pP1wdc8ROUtkHLF2PfAqYdyYBz6EA="

    func testEventsOfTheEngine() throws {
        let warning = Settings.Warning(code: "ipv6-default-missing", message: "IPv6 goes around the tunnel")
        let settings = Settings(
            addresses: ["10.0.0.2/32"],
            includedRoutes: ["10.0.0.0/8"],
            mtu: 1420,
            remoteAddress: "127.0.0.1",
            warnings: [warning]
        )
        let expected: [Event] = [
            .state(.applyingSettings),
            .started(nil),
            .started(TunnelError(code: .peerTimeout, message: "no peer answered within 10 s")),
            .settings(generation: 3, settings: settings),
            .handshake(peer: peer, roundTrip: 0.0015, isFirst: true),
            .handshake(peer: peer, roundTrip: nil, isFirst: false),
            .handshakeTimedOut(peer: peer, retryIn: 5),
            .handshakeTimedOut(peer: peer, retryIn: nil),
            .roamed(peer: peer),
            .room,
            .warning(Settings.Warning(code: "clock-behind", message: "the clock was set back")),
            .updated(nil),
            .updated(TunnelError(code: .busy, message: "another update is under way")),
            .resumed,
            .stopped(reason: .userInitiated, error: nil),
            .stopped(
                reason: .providerFailed,
                error: TunnelError(code: .deviceLost, message: "the descriptor was closed")
            ),
        ]
        let objects = try Fixture.objects("events.json")
        XCTAssertEqual(objects.count, expected.count)
        for (json, event) in zip(objects, expected) {
            XCTAssertEqual(EventDecoder.event(json: json), event)
        }
    }

    func testEveryKindHasANumberOfItsOwn() throws {
        let events = try Fixture.objects("events.json").compactMap { EventDecoder.event(json: $0) }
        XCTAssertEqual(Set(events.map { $0.kind }), Set(UInt32(1)...UInt32(11)))
    }

    func testAStartEndsWhateverItsJSONIs() {
        let broken = Data("{".utf8)
        XCTAssertEqual(
            EventDecoder.event(kind: 2, state: 0, result: 0, generation: 0, json: broken),
            .started(nil)
        )
        XCTAssertEqual(
            EventDecoder.event(kind: 2, state: 0, result: 6115, generation: 0, json: broken),
            .started(TunnelError(code: .peerTimeout))
        )
        XCTAssertEqual(
            EventDecoder.event(kind: 11, state: 0, result: 0, generation: 0, json: broken),
            .stopped(reason: nil, error: nil)
        )
    }

    func testWhatCannotBeReadIsKept() {
        XCTAssertEqual(
            EventDecoder.event(kind: 3, state: 0, result: 0, generation: 1, json: Data("{\"event\":\"settings\"}".utf8)),
            .unknown(kind: 3, json: "{\"event\":\"settings\"}")
        )
        XCTAssertEqual(
            EventDecoder.event(kind: 99, state: 0, result: 0, generation: 0, json: Data("{\"event\":\"later\"}".utf8)),
            .unknown(kind: 99, json: "{\"event\":\"later\"}")
        )
        XCTAssertNil(EventDecoder.event(json: Data("{\"event\":\"later\"}".utf8)))
        XCTAssertNil(EventDecoder.event(json: Data("[]".utf8)))
    }

    func testStates() {
        for number in UInt32(0)...6 {
            let state = TunnelState(rawValue: number)
            XCTAssertEqual(state.rawValue, number)
            XCTAssertEqual(TunnelState(name: state.name), state)
        }
        XCTAssertEqual(TunnelState(rawValue: 7), .unknown(7))
        XCTAssertNil(TunnelState(name: "later"))
    }
}

final class EventBufferTests: XCTestCase {
    private func warning(_ number: Int) -> Event {
        return .warning(Settings.Warning(code: "w", message: String(number)))
    }

    private func drain(_ buffer: inout EventBuffer) -> [Event] {
        var events: [Event] = []
        while let event = buffer.popFirst() {
            events.append(event)
        }
        return events
    }

    func testEventsComeInOrder() {
        var buffer = EventBuffer(capacity: 16)
        buffer.append(.state(.resolving))
        buffer.append(warning(1))
        buffer.append(.started(nil))
        XCTAssertEqual(drain(&buffer), [.state(.resolving), warning(1), .started(nil)])
        XCTAssertTrue(buffer.isEmpty)
        XCTAssertEqual(buffer.missed, 0)
    }

    func testWhatIsNotEssentialGoesFirst() {
        var buffer = EventBuffer(capacity: 16)
        buffer.append(.started(nil))
        for number in 0..<100 {
            buffer.append(warning(number))
        }
        buffer.append(.stopped(reason: nil, error: nil))
        let events = drain(&buffer)
        XCTAssertEqual(events.count, 16)
        XCTAssertEqual(events.first, .started(nil))
        XCTAssertEqual(events.last, .stopped(reason: nil, error: nil))
        XCTAssertEqual(events[14], warning(99), "of the others the newest are kept")
        XCTAssertEqual(buffer.missed, 86)
    }

    func testTheNewestOfEveryEssentialKindIsKept() {
        var buffer = EventBuffer(capacity: 16)
        buffer.append(.updated(TunnelError(code: .busy, message: "once")))
        for _ in 0..<1000 {
            buffer.append(.state(.handshaking))
            buffer.append(.started(nil))
            buffer.append(.state(.up))
            buffer.append(warning(0))
            buffer.append(.stopped(reason: .userInitiated, error: nil))
        }
        let events = drain(&buffer)
        XCTAssertEqual(events.count, 16)
        XCTAssertTrue(events.contains(.updated(TunnelError(code: .busy, message: "once"))))
        XCTAssertEqual(events.last, .stopped(reason: .userInitiated, error: nil))
        XCTAssertEqual(events.filter { $0.kind == 1 }.last, .state(.up))
    }

    func testRoomIsToldOnce() {
        var buffer = EventBuffer(capacity: 16)
        buffer.append(.room)
        buffer.append(.room)
        XCTAssertEqual(drain(&buffer), [.room])
    }

    func testItIsNeverTooSmall() {
        XCTAssertEqual(EventBuffer(capacity: 0).capacity, EventBuffer.smallest)
    }
}

final class EventQueueTests: XCTestCase {
    func testAReaderThatWaitsIsGivenTheNextEvent() async {
        let queue = EventQueue(capacity: 16)
        let reader = Task<Event?, Never> {
            return await queue.next()
        }
        queue.send(.room)
        let event = await reader.value
        XCTAssertEqual(event, .room)
    }

    func testWhatWasToldIsReadBeforeTheEnd() async {
        let queue = EventQueue(capacity: 16)
        queue.send(.started(nil))
        queue.send(.room)
        queue.close()
        queue.send(.resumed)
        var events: [Event] = []
        for await event in queue.stream() {
            events.append(event)
        }
        XCTAssertEqual(events, [.started(nil), .room])
    }

    func testCancellingTheReaderEndsTheStream() async {
        let queue = EventQueue(capacity: 16)
        let stream = queue.stream()
        let reader = Task<Int, Never> {
            var count = 0
            for await _ in stream {
                count += 1
            }
            return count
        }
        reader.cancel()
        let count = await reader.value
        XCTAssertEqual(count, 0)
    }
}
