//! Texts that Adit hands out, and how they are given back.

use std::ffi::c_char;

use serde::Serialize;

use crate::caller::{Caller, Out, Plain, allocate_text, free_text, without_nul};
use crate::guard::entry;
use crate::result::{ADIT_ERROR_INTERNAL, ADIT_ERROR_SYSTEM, Failure, Outcome};

/// A text that Adit made and that is yours: UTF-8, with a NUL behind it that `length` does not count.
///
/// Give it back with `adit_text_free`, once. A function that fails does not touch it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct AditText {
    /// The first byte.
    pub data: *mut c_char,
    /// Bytes without the NUL.
    pub length: usize,
}

// SAFETY: a pointer, which may be anything until it is looked through, and an integer.
unsafe impl Plain for AditText {}

impl AditText {
    const EMPTY: Self = Self { data: std::ptr::null_mut(), length: 0 };
}

/// Hands a value over as a text of JSON.
pub(crate) fn write_json(out: Out<'_, AditText>, value: &impl Serialize) -> Outcome {
    let text = serde_json::to_string(value).map_err(|_| Failure::new(ADIT_ERROR_INTERNAL))?;
    // A length in front of a text with a NUL inside would be two different texts; JSON escapes it.
    let text = without_nul(&text);
    let data = allocate_text(&text).ok_or(Failure::new(ADIT_ERROR_SYSTEM))?;
    out.write(AditText { data, length: text.len() });
    Ok(())
}

/// Gives a text of Adit's back, and sets the struct to NULL and 0, so that doing it twice is harmless.
///
/// Thread: any. Ownership: takes the text; copies of the struct must not be used any more. Lifetime: the text is gone
/// when it returns. Errors: none; NULL, and a text that is NULL, are ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adit_text_free(text: *mut AditText) {
    let _code = entry(|| {
        // SAFETY: the header asks its caller for what is promised here.
        let caller = unsafe { Caller::promises() };
        let text = caller.out(text)?.replace(AditText::EMPTY);
        // SAFETY: the header asks for a text that was handed out, or NULL; its struct no longer has it.
        unsafe { free_text(text.data) };
        Ok(())
    });
}
