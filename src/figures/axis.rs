//! Axes of charts: scale and ticks.

/// An axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// Label, with the unit.
    pub label: String,
    /// Smallest value.
    pub low: f64,
    /// Largest value.
    pub high: f64,
    /// Logarithmic scale; both ends must be above 0.
    pub logarithmic: bool,
    /// Tick values in order; if empty, round values are chosen.
    pub marks: Vec<f64>,
}

impl Axis {
    /// Position of `value` between the ends, 0 to 1.
    pub(super) fn place(&self, value: f64) -> f64 {
        if self.logarithmic {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    /// About `count` ticks at round values, with their labels.
    pub(super) fn ticks(&self, count: f64) -> Vec<(f64, String)> {
        if !self.marks.is_empty() {
            return self.marks.iter().map(|&v| (v, number(v))).collect();
        }
        let decades = (self.high / self.low).log10();
        // Below one and a half decades, ticks at 1-2-5 are too few: linear ticks are used.
        if self.logarithmic && decades >= 1.5 {
            let steps: &[f64] = if decades <= 3.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
            return (self.low.log10().floor() as i32..=self.high.log10().ceil() as i32)
                .flat_map(|e| steps.iter().map(move |s| s * 10f64.powi(e)))
                .filter(|&v| (-1e-9..=1.0 + 1e-9).contains(&self.place(v)))
                .map(|v| (v, number(v)))
                .collect();
        }
        let step = round_step((self.high - self.low) / count.max(1.0));
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last).map(|i| i as f64 * step).map(|v| (v, format!("{v:.decimals$}"))).collect()
    }
}

/// The smallest of 1, 2 and 5 times a power of ten that is not below `step`.
pub fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|&s| s >= step * (1.0 - 1e-9)).unwrap_or(step)
}

/// A number with about three significant digits.
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        a if !(1e-3..1e5).contains(&a) => format!("{value:.1e}"),
        a => {
            let decimals = (2.0 - a.log10().floor()).clamp(0.0, 5.0) as usize;
            let text = format!("{value:.decimals$}");
            if decimals == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(low: f64, high: f64, logarithmic: bool) -> Axis {
        Axis { label: String::new(), low, high, logarithmic, marks: Vec::new() }
    }

    fn labels(axis: &Axis, count: f64) -> Vec<String> {
        axis.ticks(count).into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(labels(&axis(0.0, 1.0, false), 5.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(&axis(0.97, 1.02, false), 4.0), ["0.98", "1.00", "1.02"]);
        assert_eq!(labels(&axis(0.5, 50.0, true), 5.0), ["0.5", "1", "2", "5", "10", "20", "50"]);
        assert_eq!(labels(&axis(1.0, 1e5, true), 5.0)[..3], ["1", "10", "100"]);
        assert_eq!(labels(&axis(0.0, 5.0, false), 5.0), ["0", "1", "2", "3", "4", "5"]);
    }

    #[test]
    fn numbers_are_formatted_briefly() {
        let written = [0.0, 0.143, 12.0, 1.25, 384.0, 0.00001, 250000.0].map(number);
        assert_eq!(written, ["0", "0.143", "12", "1.25", "384", "1.0e-5", "2.5e5"]);
    }
}
