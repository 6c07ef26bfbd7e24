//! The readers of all files, on files that were damaged at random: an error in one line or a result, and never a panic, a hang,
//! or more memory than the file accounts for. `CRYOSPLAT_FUZZ_CASES` says how many of each are tried, `CRYOSPLAT_FUZZ_SEED`
//! draws others (`make fuzz`; benches/results/fuzz.md has what it found).

#[path = "../common/arrays.rs"]
mod arrays;
mod containers;
mod crash;
mod damage;
mod edits;
mod import;
mod memory;
mod models;
mod reader;
mod runs;
mod samples;
mod target;
