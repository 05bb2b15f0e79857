import Foundation
import NetworkExtension

/// The entry point of a system extension; an app extension has one already and does not contain this file.
@main
enum SystemExtensionMain {
    static func main() {
        autoreleasepool {
            NEProvider.startSystemExtensionMode()
        }
        dispatchMain()
    }
}
