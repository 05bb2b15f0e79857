// swift-tools-version: 5.9
//
// AditKit: the Adit tunnel engine for Swift.
//
// The engine itself is a library behind a C header. Where it comes from is decided here, once:
//
//   - Frameworks/Adit.xcframework, made by ../scripts/make-xcframework.sh, if it is there and the host is a Mac;
//   - otherwise an installed `libadit`, found through pkg-config (`adit.pc`) or the linker's own flags.
//
// ADIT_LIBRARY=system or ADIT_LIBRARY=xcframework in the environment overrides the choice.

import Foundation
import PackageDescription

let framework = "Frameworks/Adit.xcframework"

#if os(macOS)
    let mayUseFramework = true
#else
    let mayUseFramework = false
#endif

func usesFramework() -> Bool {
    guard mayUseFramework else { return false }
    switch Context.environment["ADIT_LIBRARY"] {
    case "system":
        return false
    case "xcframework":
        return true
    default:
        return FileManager.default.fileExists(atPath: Context.packageDirectory + "/" + framework)
    }
}

let engine: Target
if usesFramework() {
    engine = .binaryTarget(name: "CAdit", path: framework)
} else {
    engine = .systemLibrary(name: "CAdit", path: "Sources/CAdit", pkgConfig: "adit")
}

/// Data-race checks of the Swift 6 language mode, as warnings, so that older compilers build the package too.
let strict: [SwiftSetting] = [.enableExperimentalFeature("StrictConcurrency")]

let package = Package(
    name: "AditKit",
    platforms: [.macOS(.v12), .iOS(.v15)],
    products: [
        .library(name: "AditKit", targets: ["AditKit"]),
        .library(name: "AditNetworkExtension", targets: ["AditNetworkExtension"]),
    ],
    targets: [
        engine,
        .target(name: "AditKit", dependencies: ["CAdit"], swiftSettings: strict),
        .target(name: "AditNetworkExtension", dependencies: ["AditKit"], swiftSettings: strict),
        .testTarget(
            name: "AditKitTests",
            dependencies: ["AditKit", "CAdit"],
            exclude: ["Fixtures"],
            swiftSettings: strict
        ),
    ]
)
