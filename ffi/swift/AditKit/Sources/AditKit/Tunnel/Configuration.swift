import CAdit
import Foundation

/// The text that a tunnel is made from: a file of wg-quick(8) with Adit's additional keys, TOML or JSON.
///
/// It holds a private key, so it is not printed: its description says only how long it is.
public struct Configuration: Sendable {
    /// How a text is written.
    public enum Format: UInt32, Sendable {
        /// The files of wg(8) and wg-quick(8).
        case conf = 0
        /// TOML.
        case toml = 1
        /// JSON.
        case json = 2
    }

    /// The text.
    public let text: String
    /// How it is written.
    public let format: Format

    /// A configuration; nothing is read until it is checked or used.
    public init(_ text: String, format: Format = .conf) {
        self.text = text
        self.format = format
    }

    /// Reads the whole text and says everything that is wrong with it, at once.
    ///
    /// - Throws: ``TunnelError`` if the text cannot be looked at, as when it is too large. A text that is wrong is not
    ///   an error here: see ``ConfigurationReport/isValid``.
    public func check() throws -> ConfigurationReport {
        let json = try CText.take { out in
            return text.withCString { pointer in
                return adit_configuration_check(pointer, numericCast(text.utf8.count), format.rawValue, out)
            }
        }
        do {
            return try JSONDecoder().decode(ConfigurationReport.self, from: json)
        } catch {
            throw TunnelError(code: .internal, message: "the report on the configuration cannot be read: \(error)")
        }
    }
}

extension Configuration: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    public var description: String {
        return "Configuration(\(text.utf8.count) bytes)"
    }

    public var debugDescription: String {
        return description
    }

    public var customMirror: Mirror {
        return Mirror(self, children: [])
    }
}

/// What is to be said about a configuration.
public struct ConfigurationReport: Codable, Hashable, Sendable {
    /// One thing that is wrong, or that the user should know.
    public struct Diagnostic: Codable, Hashable, Sendable {
        /// `error` or `warning`.
        public var severity: String
        /// The line, counted from 1, if it is about one.
        public var line: Int?
        /// The column, counted from 1, if it is about one.
        public var column: Int?
        /// The key, if it is about one.
        public var key: String?
        /// What is wrong and what would be right.
        public var message: String
        /// What may have been meant.
        public var suggestion: String?

        /// A diagnostic.
        public init(
            severity: String,
            line: Int? = nil,
            column: Int? = nil,
            key: String? = nil,
            message: String,
            suggestion: String? = nil
        ) {
            self.severity = severity
            self.line = line
            self.column = column
            self.key = key
            self.message = message
            self.suggestion = suggestion
        }
    }

    /// Whether a tunnel can be made from it.
    public var isValid: Bool
    /// Everything there is to say, in the order of the text; at most a thousand.
    public var diagnostics: [Diagnostic]
    /// How many were found beyond those.
    public var omitted: Int?

    /// A report.
    public init(isValid: Bool, diagnostics: [Diagnostic], omitted: Int? = nil) {
        self.isValid = isValid
        self.diagnostics = diagnostics
        self.omitted = omitted
    }

    enum CodingKeys: String, CodingKey {
        case isValid = "valid"
        case diagnostics
        case omitted
    }
}

extension ConfigurationReport.Diagnostic: CustomStringConvertible {
    public var description: String {
        var place = ""
        if let line = line {
            place = "line \(line)"
            if let column = column {
                place += ", column \(column)"
            }
            place += ": "
        }
        return "\(severity): \(place)\(message)"
    }
}
