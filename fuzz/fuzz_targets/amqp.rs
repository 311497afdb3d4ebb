#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| celeryscope_fuzz::core::amqp(data));
