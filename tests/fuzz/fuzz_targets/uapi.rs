//! Any bytes as a UAPI request and as an answer: no panic, and what is accepted survives being written and read.
#![no_main]

use adit_control::uapi::{ReplyParser, SetParser, SetRequest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut request = SetParser::new(|_| Some(1));
    for line in data.split(|byte| *byte == b'\n') {
        if !matches!(request.line(line), Ok(false)) {
            break;
        }
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(request) = SetRequest::parse(text, |_| Some(1))
    {
        let written = request.to_text();
        let again = SetRequest::parse(&written, |_| Some(1)).expect("what was written can be read");
        assert_eq!(again, request);
    }
    let mut reply = ReplyParser::new(|_| Some(1));
    for line in data.split(|byte| *byte == b'\n') {
        if !matches!(reply.line(line), Ok(None)) {
            break;
        }
    }
});
