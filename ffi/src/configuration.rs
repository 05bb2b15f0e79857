//! Configurations as a host hands them over.

use std::ffi::c_char;

use adit_control::config::{Config, Diagnostic, Format, MAX_LENGTH, Severity, parse};
use serde::Serialize;

use crate::caller::Caller;
use crate::guard::entry;
use crate::options;
use crate::result::{ADIT_ERROR_CONFIGURATION, AditResult, Failure, Outcome};
use crate::text::{AditText, write_json};

/// Checks a configuration and says all that is wrong with it, and where: the why of `ADIT_ERROR_CONFIGURATION`. Nothing
/// of a secret's value is told.
///
/// `format` is one of `ADIT_FORMAT_…`. The result is `ADIT_OK` for an invalid configuration too; the text says:
/// `{"valid":false,"omitted":0,"diagnostics":[{"severity":"error","file":"configuration","line":3,"column":1,`
/// `"key":"Adress","message":"…","suggestion":"Address"}]}`. Severities are "error" and "warning"; `line`, `column`,
/// `key`, `found`, `allowed` and `suggestion` may be missing; `omitted` counts what was found beyond the first thousand.
///
/// Thread: any. Ownership: `text` stays yours, `out` becomes yours (`adit_text_free`). Lifetime: none beyond the call.
/// Errors: NULL_POINTER; INVALID_ARGUMENT for an unknown format; INVALID_UTF8; TOO_LARGE above 16 MiB; SYSTEM if there
/// is no memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adit_configuration_check(
    text: *const c_char,
    length: usize,
    format: u32,
    out: *mut AditText,
) -> AditResult {
    entry(|| {
        // SAFETY: the header asks its caller for what is promised here.
        let caller = unsafe { Caller::promises() };
        let text = caller.text(text, length, MAX_LENGTH)?;
        let format = options::format(format)?;
        let out = caller.out(out)?;
        match parse(text, format, SOURCE_NAME) {
            Ok((config, mut diagnostics)) => {
                let valid = has_key(&config);
                // A file without a key may get one by a hook; a host's configuration is all that there is.
                for missing in diagnostics.iter_mut().filter(|_| !valid).filter(|found| is_of_key(found)) {
                    missing.severity = Severity::Error;
                    missing.message = "the private key is missing".to_owned();
                }
                write_json(out, &Verdict { valid, omitted: 0, diagnostics: &diagnostics })
            }
            Err(error) => {
                let diagnostics = error.diagnostics();
                write_json(out, &Verdict { valid: false, omitted: error.omitted(), diagnostics })
            }
        }
    })
}

/// Reads a configuration.
pub(crate) fn read(caller: &Caller, text: *const c_char, length: usize, format: Format) -> Outcome<Config> {
    let text = caller.text(text, length, MAX_LENGTH)?;
    let read = parse(text, format, SOURCE_NAME).ok().map(|(config, _)| config);
    read.filter(has_key).ok_or_else(|| Failure::new(ADIT_ERROR_CONFIGURATION))
}

/// Whether a tunnel of it could ever carry anything.
fn has_key(config: &Config) -> bool {
    config.interface.private_key.is_some()
}

fn is_of_key(found: &Diagnostic) -> bool {
    found.key.as_deref().is_some_and(|key| key == "PrivateKey" || key.ends_with("private_key"))
}

/// What `adit_configuration_check` says.
#[derive(Serialize)]
struct Verdict<'a> {
    valid: bool,
    omitted: usize,
    diagnostics: &'a [Diagnostic],
}

/// What diagnostics call the text: a host's has no name.
const SOURCE_NAME: &str = "configuration";
