//! SIMD levels and their detection.

use std::fmt;
use std::sync::OnceLock;

/// SIMD levels, from the narrowest to the widest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The baseline of the target architecture.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 (F, VL and DQ).
    Avx512,
}

/// Environment variable that selects a [`Level`] instead of the widest that the CPU supports.
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

/// Whether the CPU has the instructions that `level` is compiled for.
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

/// The level of this process: the one named by `CRYOSPLAT_SIMD` if the CPU supports it ([`check_level`] returns an error if it does
/// not), else the widest that the CPU supports.
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| requested().ok().flatten().unwrap_or_else(widest))
}

/// Checks that `CRYOSPLAT_SIMD` is unset, or names a level that the CPU supports.
///
/// # Errors
/// The value found, the values allowed and the remedy.
pub fn check_level() -> Result<(), String> {
    requested().map(drop)
}

/// The level named by the variable.
fn requested() -> Result<Option<Level>, String> {
    std::env::var_os(VARIABLE).map(|name| parse(&name.to_string_lossy())).transpose()
}

/// The widest level that the CPU supports.
fn widest() -> Level {
    [Level::Avx512, Level::Avx2].into_iter().find(|&level| supported(level)).unwrap_or(Level::Portable)
}

/// The level called `name`, if the CPU supports it.
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
        Err(format!("{VARIABLE}={name}: this CPU does not support it; unset the variable"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_supported_levels_are_parsed() {
        assert_eq!(parse("portable"), Ok(Level::Portable));
        assert_eq!(parse("avx2").is_ok(), supported(Level::Avx2));
        assert!(parse("sse9").unwrap_err().contains("avx512, avx2 or portable"));
        assert!(supported(widest()) && supported(level()));
    }
}
