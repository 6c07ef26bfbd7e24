//! Fuzzes the readers of all file formats with randomly damaged files. A reader must return a result or a one-line error,
//! without a panic, a hang, or memory out of proportion to the file. `CRYOSPLAT_FUZZ_CASES` sets the number of cases per
//! reader, `CRYOSPLAT_FUZZ_SEED` the seed (`make fuzz`; results: benches/results/fuzz.md).

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
