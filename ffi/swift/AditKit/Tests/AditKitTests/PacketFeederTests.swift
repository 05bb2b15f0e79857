import XCTest

@testable import AditKit

/// A host that gives batches when it is told to, and a tunnel that takes as much as it is told to.
private final class FakeFlow: @unchecked Sendable {
    private let lock = NSLock()
    private var deliver: (@Sendable (PacketBatch) -> Void)?
    private var capacity = 0
    private var isBroken = false
    private(set) var taken: [UInt8] = []
    private(set) var reads = 0

    func read(_ deliver: @escaping @Sendable (PacketBatch) -> Void) {
        lock.lock()
        reads += 1
        self.deliver = deliver
        lock.unlock()
    }

    func inject(_ batch: PacketBatch) throws -> Int {
        lock.lock()
        defer { lock.unlock() }
        if isBroken || batch.sound().count != batch.count {
            throw TunnelError(code: .packet, message: "not a packet")
        }
        let count = min(capacity, batch.count)
        capacity -= count
        taken += batch.packets.prefix(count).map { $0.last ?? 0 }
        return count
    }

    func makeRoom(_ packets: Int) {
        lock.lock()
        capacity = packets
        lock.unlock()
    }

    func breakDown() {
        lock.lock()
        isBroken = true
        lock.unlock()
    }

    /// Gives a batch to whoever asked for one; `false` if nobody did.
    func give(_ numbers: [UInt8]) -> Bool {
        let packets = numbers.map { Data([0x45, $0]) }
        return give(PacketBatch(packets: packets, families: packets.map { _ in AF_INET }))
    }

    func give(_ batch: PacketBatch) -> Bool {
        lock.lock()
        let taken = deliver
        deliver = nil
        lock.unlock()
        guard let call = taken else { return false }
        call(batch)
        return true
    }
}

final class PacketFeederTests: XCTestCase {
    private func feeder(_ flow: FakeFlow) -> PacketFeeder {
        return PacketFeeder(
            read: { deliver in flow.read(deliver) },
            inject: { batch in try flow.inject(batch) }
        )
    }

    func testItReadsAgainWhenABatchIsTaken() {
        let flow = FakeFlow()
        let feeder = self.feeder(flow)
        XCTAssertEqual(flow.reads, 0)
        feeder.begin()
        feeder.begin()
        XCTAssertEqual(flow.reads, 1)
        flow.makeRoom(10)
        XCTAssertTrue(flow.give([1, 2, 3]))
        XCTAssertEqual(flow.reads, 2)
        XCTAssertTrue(flow.give([4]))
        XCTAssertEqual(flow.taken, [1, 2, 3, 4])
    }

    func testItDoesNotReadWhileThereIsNoRoom() {
        let flow = FakeFlow()
        let feeder = self.feeder(flow)
        feeder.begin()
        flow.makeRoom(2)
        XCTAssertTrue(flow.give([1, 2, 3, 4, 5]))
        XCTAssertEqual(flow.taken, [1, 2])
        XCTAssertEqual(flow.reads, 1)
        XCTAssertFalse(flow.give([6]))

        flow.makeRoom(2)
        feeder.roomAgain()
        XCTAssertEqual(flow.taken, [1, 2, 3, 4])
        XCTAssertEqual(flow.reads, 1)

        flow.makeRoom(10)
        feeder.roomAgain()
        XCTAssertEqual(flow.taken, [1, 2, 3, 4, 5])
        XCTAssertEqual(flow.reads, 2)
    }

    func testRoomThatComesTooEarlyIsNotForgotten() {
        let flow = FakeFlow()
        let box = Locked<PacketFeeder?>(nil)
        let feeder = PacketFeeder(
            read: { deliver in flow.read(deliver) },
            inject: { batch in
                let count = try flow.inject(batch)
                if count < batch.count {
                    // The room is made, and told, before the feeder knows that it was short of it.
                    flow.makeRoom(10)
                    box.withLock { $0 }?.roomAgain()
                }
                return count
            }
        )
        box.withLock { $0 = feeder }
        feeder.begin()
        flow.makeRoom(1)
        XCTAssertTrue(flow.give([1, 2, 3]))
        XCTAssertEqual(flow.taken, [1, 2, 3])
        XCTAssertEqual(flow.reads, 2)
        box.withLock { $0 = nil }
    }

    func testRoomWithoutNeedIsHarmless() {
        let flow = FakeFlow()
        let feeder = self.feeder(flow)
        feeder.roomAgain()
        feeder.begin()
        feeder.roomAgain()
        XCTAssertEqual(flow.reads, 1)
    }

    func testOneThatIsNoPacketDoesNotTakeTheOthersWithIt() {
        let flow = FakeFlow()
        let feeder = self.feeder(flow)
        feeder.begin()
        flow.makeRoom(10)
        let packets = [Data([0x45, 1]), Data([0x99, 2]), Data([0x45, 3])]
        XCTAssertTrue(flow.give(PacketBatch(packets: packets, families: [AF_INET, AF_INET, AF_INET])))
        XCTAssertEqual(flow.taken, [1, 3])
        XCTAssertEqual(feeder.refused, 1)
        XCTAssertEqual(flow.reads, 2)
    }

    func testATunnelThatRefusesEverythingIsNoLoop() {
        let flow = FakeFlow()
        let feeder = self.feeder(flow)
        feeder.begin()
        flow.breakDown()
        XCTAssertTrue(flow.give([1, 2, 3]))
        XCTAssertEqual(flow.taken, [])
        XCTAssertEqual(feeder.refused, 3)
        XCTAssertEqual(flow.reads, 2)
    }

    func testAfterTheEndNothingIsTaken() {
        let flow = FakeFlow()
        let feeder = self.feeder(flow)
        feeder.begin()
        feeder.end()
        flow.makeRoom(10)
        XCTAssertTrue(flow.give([1]))
        XCTAssertEqual(flow.taken, [])
        feeder.roomAgain()
        XCTAssertEqual(flow.reads, 1)
        feeder.begin()
        XCTAssertTrue(flow.give([2]))
        XCTAssertEqual(flow.taken, [2])
    }
}
