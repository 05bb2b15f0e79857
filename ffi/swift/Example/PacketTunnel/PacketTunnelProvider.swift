import AditKit
import AditNetworkExtension
import Foundation
import os

/// The principal class of the extension. Everything but what is here is the superclass's.
final class PacketTunnelProvider: AditPacketTunnelProvider, @unchecked Sendable {
    private let logger = Logger(subsystem: "com.example.vpn", category: "tunnel")

    /// What app and extension share: the folder for what is remembered, and the record of failed starts.
    override var appGroup: String? {
        return "group.com.example.vpn"
    }

    /// A name for logs; the app's saved configuration has one.
    override func makeOptions() -> TunnelOptions {
        var options = super.makeOptions()
        options.name = "example"
        return options
    }

    /// What the system is to apply. This one keeps the printer at home reachable.
    override func plan(for settings: Settings) throws -> NetworkSettingsPlan {
        var settings = settings
        if !settings.excludedRoutes.contains("192.168.1.0/24") {
            settings.excludedRoutes.append("192.168.1.0/24")
        }
        return try super.plan(for: settings)
    }

    override func didReceive(_ event: Event) {
        switch event {
        case .handshakeTimedOut(let peer, _):
            logger.warning("\(peer, privacy: .public) does not answer")
        case .stopped(let reason, let error):
            let why = error.map { $0.message } ?? reason.map { $0.description } ?? "no reason"
            logger.notice("stopped: \(why, privacy: .public)")
        default:
            break
        }
    }
}
