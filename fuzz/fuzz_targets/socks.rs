#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fumehood::net::fuzzing::socks(data));
