//! Which set of instructions runs.

use std::fmt;
use std::sync::OnceLock;

/// Sets of instructions, from the plainest to the widest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// What every processor of the architecture has.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 (F, VL and DQ).
    Avx512,
}

/// The environment variable that names a plainer [`Level`] than the processor's widest.
const VARIABLE: &str = "CRYOSPLAT_SIMD";

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::Portable => "no vector instructions",
            Self::Avx2 => "AVX2",
            Self::Avx512 => "AVX-512",
        })
    }
}

/// True where this processor has what a level is compiled for.
pub fn supported(level: Level) -> bool {
    match level {
        Level::Portable => true,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => {
            supported(Level::Avx2)
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
        }
        #[cfg(not(target_arch = "x86_64"))]
        _ => false,
    }
}

/// The level that runs: the widest that the processor has, or the one that the variable `CRYOSPLAT_SIMD` names, where it has
/// that ([`check_level`] tells).
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| wish().ok().flatten().unwrap_or_else(widest))
}

/// Whether `CRYOSPLAT_SIMD`, where it is set, names a level that this processor has.
///
/// # Errors
/// With what to do, where it does not.
pub fn check_level() -> Result<(), String> {
    wish().map(drop)
}

/// The level that the variable names.
fn wish() -> Result<Option<Level>, String> {
    std::env::var_os(VARIABLE).map(|name| parse(&name.to_string_lossy())).transpose()
}

/// The widest level of this processor.
fn widest() -> Level {
    [Level::Avx512, Level::Avx2].into_iter().find(|&level| supported(level)).unwrap_or(Level::Portable)
}

/// The level of a name, where this processor has it.
fn parse(name: &str) -> Result<Level, String> {
    let level = match name {
        "portable" => Level::Portable,
        "avx2" => Level::Avx2,
        "avx512" => Level::Avx512,
        _ => {
            return Err(format!("{VARIABLE}={name}: must be avx512, avx2 or portable, or not be set"));
        }
    };
    if supported(level) {
        Ok(level)
    } else {
        Err(format!("{VARIABLE}={name}: this processor does not have it; unset the variable"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_levels_that_the_processor_has() {
        assert_eq!(parse("portable"), Ok(Level::Portable));
        assert_eq!(parse("avx2").is_ok(), supported(Level::Avx2));
        assert!(parse("sse9").unwrap_err().contains("avx512, avx2 or portable"));
        assert!(supported(widest()) && supported(level()));
    }
}
