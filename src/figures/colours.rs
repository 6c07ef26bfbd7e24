//! Colours of charts.

/// Colours, as SVG writes them; a page may give CSS variables.
#[derive(Clone, Debug)]
pub struct Colours {
    /// The ground.
    pub paper: String,
    /// Axes and main text.
    pub ink: String,
    /// Tick labels and other small text.
    pub muted: String,
    /// The grid.
    pub grid: String,
    /// The curves, in turn.
    pub curves: Vec<String>,
}

impl Colours {
    /// For a white page. The curves are told apart by colour-blind readers too (Okabe and Ito's palette).
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

    /// CSS variables of the page around it: `--paper`, `--ink`, `--muted`, `--grid`, `--curve-0` to `--curve-5`.
    pub fn of_the_page() -> Self {
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
