#![no_main]

use fumehood::net::fuzzing::{addresses, dns};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    dns(data);
    addresses(data);
});
