/// What the app's `NEVPNProtocol` says and the tunnel's settings want, and where the two do not go together.
///
/// These switches belong to the app that saves the configuration; a provider can only read them. They are advice for a
/// log and for ``AppMessage/Status/warnings``, never a reason not to start.
public struct ProtocolAdvice: Hashable, Sendable {
    /// `includeAllNetworks`.
    public var includesAllNetworks: Bool
    /// `enforceRoutes`.
    public var enforcesRoutes: Bool
    /// `excludeLocalNetworks`.
    public var excludesLocalNetworks: Bool

    /// The switches as they are set.
    public init(includesAllNetworks: Bool, enforcesRoutes: Bool, excludesLocalNetworks: Bool) {
        self.includesAllNetworks = includesAllNetworks
        self.enforcesRoutes = enforcesRoutes
        self.excludesLocalNetworks = excludesLocalNetworks
    }

    /// What the user should know.
    public func warnings(for settings: Settings) -> [Settings.Warning] {
        var warnings: [Settings.Warning] = []
        if includesAllNetworks && !settings.excludedRoutes.isEmpty {
            warnings.append(
                Settings.Warning(
                    code: "exclusions-without-effect",
                    message: "with includeAllNetworks the system does not heed excluded routes"
                )
            )
        }
        if enforcesRoutes && !includesAllNetworks && !settings.excludedRoutes.isEmpty {
            warnings.append(
                Settings.Warning(
                    code: "exclusions-with-enforced-routes",
                    message: "with enforceRoutes and excluded routes some systems drop what is included"
                )
            )
        }
        let isHeeded = includesAllNetworks || enforcesRoutes
        if isHeeded, let wanted = settings.excludeLocalNetworks, wanted != excludesLocalNetworks {
            warnings.append(
                Settings.Warning(
                    code: "local-networks-differ",
                    message: "the configuration wants excludeLocalNetworks to be \(wanted), the app has set \(excludesLocalNetworks)"
                )
            )
        }
        return warnings
    }
}
