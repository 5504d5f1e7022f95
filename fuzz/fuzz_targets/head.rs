#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| theframework_fuzz::head::check(bytes));
