//! Configurations as a host hands them over.

use std::ffi::c_char;

use adit_control::config::{Config, Diagnostic, Format, MAX_LENGTH, parse};
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
            Ok((_, warnings)) => write_json(out, &Verdict { valid: true, omitted: 0, diagnostics: &warnings }),
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
    let read = parse(text, format, SOURCE_NAME);
    read.map(|(config, _)| config).map_err(|_| Failure::new(ADIT_ERROR_CONFIGURATION))
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
