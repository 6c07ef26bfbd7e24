//! FSC, masks, plots, the report.
