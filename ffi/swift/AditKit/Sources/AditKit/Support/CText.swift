import CAdit
import Foundation

/// Texts across the C boundary.
enum CText {
    /// Calls `body` with a text to fill in, copies it and gives it back to the library.
    static func take(_ body: (UnsafeMutablePointer<AditText>) -> AditResult) throws -> Data {
        var text = AditText()
        let result = withUnsafeMutablePointer(to: &text) { pointer in
            return body(pointer)
        }
        try TunnelError.check(result)
        let copy = data(text.data, count: Int(text.length))
        adit_text_free(&text)
        return copy
    }

    /// A copy of `count` bytes; none if there is no pointer.
    static func data(_ pointer: UnsafePointer<CChar>?, count: Int) -> Data {
        guard let pointer = pointer, count > 0 else { return Data() }
        return Data(bytes: pointer, count: count)
    }

    /// A copy of `count` bytes as text; what is not UTF-8 is replaced.
    static func string(_ pointer: UnsafePointer<CChar>?, count: Int) -> String {
        return String(decoding: data(pointer, count: count), as: UTF8.self)
    }

    /// Calls `body` with a text that ends in NUL, or with no pointer.
    static func withOptional<Result>(
        _ text: String?,
        _ body: (UnsafePointer<CChar>?) throws -> Result
    ) rethrows -> Result {
        guard let text = text else { return try body(nil) }
        return try text.withCString { pointer in
            return try body(pointer)
        }
    }
}
