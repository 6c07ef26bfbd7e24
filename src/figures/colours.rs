//! Colours of charts.

/// Colours of a chart as SVG values, which may be CSS variables.
#[derive(Clone, Debug)]
pub struct Colours {
    /// Background.
    pub paper: String,
    /// Axes and main text.
    pub ink: String,
    /// Tick labels and other small text.
    pub muted: String,
    /// Grid lines.
    pub grid: String,
    /// Curves, cyclically.
    pub curves: Vec<String>,
}

impl Colours {
    /// Colours on white, with a palette that colour-blind readers can distinguish (Okabe and Ito).
    pub fn light() -> Self {
        let curves = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
        Self {
            paper: "#ffffff".into(),
            ink: "#1f2328".into(),
            muted: "#59636e".into(),
            grid: "#e4e7eb".into(),
            curves: curves.map(String::from).to_vec(),
        }
    }

    /// CSS variables of the surrounding page: `--paper`, `--ink`, `--muted`, `--grid`, `--curve-0` to `--curve-5`.
    pub fn css_variables() -> Self {
        let variable = |name: &str| format!("var(--{name})");
        Self {
            paper: variable("paper"),
            ink: variable("ink"),
            muted: variable("muted"),
            grid: variable("grid"),
            curves: (0..6).map(|i| variable(&format!("curve-{i}"))).collect(),
        }
    }
}

impl Colours {
    /// The colour of curve `i`, cyclically.
    pub(super) fn curve(&self, i: usize) -> &str {
        &self.curves[i % self.curves.len()]
    }
}
