//! Any bytes as a configuration, in all three formats: no panic, and what is accepted survives being written and read.
#![no_main]

use adit_control::config::{Format, parse, parse_bytes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((first, text)) = data.split_first() else { return };
    let format = [Format::Conf, Format::Toml, Format::Json][usize::from(first % 3)];
    let Ok((config, _)) = parse_bytes(text, format, "fuzz") else { return };
    for (format, written) in
        [(Format::Conf, config.to_conf()), (Format::Toml, config.to_toml()), (Format::Json, config.to_json())]
    {
        let (again, _) = parse(&written, format, "written").expect("what was written can be read");
        assert_eq!(again, config, "{format:?}");
    }
});
