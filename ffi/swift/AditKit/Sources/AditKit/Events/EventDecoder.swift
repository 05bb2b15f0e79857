import Foundation

/// Turns what the C callback was given into an ``Event``.
///
/// The numbers decide what an event is, its JSON adds the details: an event whose JSON cannot be read still ends the
/// start or the update that waits for it.
enum EventDecoder {
    /// The event of a callback.
    static func event(kind: UInt32, state: UInt32, result: UInt32, generation: UInt64, json: Data) -> Event {
        let payload = try? JSONDecoder().decode(Payload.self, from: json)
        switch kind {
        case 1:
            return .state(TunnelState(rawValue: state))
        case 2:
            return .started(error(result, payload))
        case 3:
            if let settings = payload?.settings {
                return .settings(generation: generation, settings: settings)
            }
        case 4:
            if let peer = payload?.peer {
                let roundTrip = payload?.roundTripMilliseconds.map { $0 / 1000 }
                return .handshake(peer: peer, roundTrip: roundTrip, isFirst: payload?.first ?? false)
            }
        case 5:
            if let peer = payload?.peer {
                return .handshakeTimedOut(peer: peer, retryIn: payload?.retryInMilliseconds.map { $0 / 1000 })
            }
        case 6:
            if let peer = payload?.peer {
                return .roamed(peer: peer)
            }
        case 7:
            return .room
        case 8:
            if let code = payload?.code {
                return .warning(Settings.Warning(code: code, message: payload?.message ?? ""))
            }
        case 9:
            return .updated(error(result, payload))
        case 10:
            return .resumed
        case 11:
            return .stopped(reason: payload?.reason.map { StopReason(rawValue: $0) }, error: error(result, payload))
        default:
            break
        }
        return .unknown(kind: kind, json: String(decoding: json, as: UTF8.self))
    }

    /// The event of a JSON text alone, as it stands in a log or a test; `nil` if it is no event of this version.
    static func event(json: Data) -> Event? {
        guard let payload = try? JSONDecoder().decode(Payload.self, from: json) else { return nil }
        guard let kind = kinds.firstIndex(of: payload.event) else { return nil }
        var state: UInt32 = 0
        if let name = payload.state {
            guard let known = TunnelState(name: name) else { return nil }
            state = known.rawValue
        }
        var result: UInt32 = 0
        if let error = payload.error {
            result = (TunnelError.Code(name: error.code) ?? .internal).rawValue
        }
        return event(
            kind: UInt32(kind) + 1,
            state: state,
            result: result,
            generation: payload.generation ?? 0,
            json: json
        )
    }

    private static let kinds = [
        "state", "started", "settings", "handshake", "handshake-timed-out", "roamed", "room", "warning", "updated",
        "resumed", "stopped",
    ]

    private static func error(_ result: UInt32, _ payload: Payload?) -> TunnelError? {
        if result == 0 {
            return nil
        }
        let code = TunnelError.Code(rawValue: result)
        guard let message = payload?.error?.message, !message.isEmpty else {
            return TunnelError(code: code)
        }
        return TunnelError(code: code, message: message)
    }

    private struct Failure: Decodable {
        let code: String
        let message: String
    }

    /// The fields of every event; each has some of them.
    private struct Payload: Decodable {
        let event: String
        let state: String?
        let error: Failure?
        let generation: UInt64?
        let settings: Settings?
        let peer: String?
        let roundTripMilliseconds: Double?
        let first: Bool?
        let retryInMilliseconds: Double?
        let code: String?
        let message: String?
        let reason: UInt32?

        enum CodingKeys: String, CodingKey {
            case event
            case state
            case error
            case generation
            case settings
            case peer
            case roundTripMilliseconds = "round_trip_ms"
            case first
            case retryInMilliseconds = "retry_in_ms"
            case code
            case message
            case reason
        }
    }
}
