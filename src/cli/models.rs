//! Which models of an atomic model file to take, shared by several commands.

use crate::simulate::atoms::ModelChoice;

/// Options of commands that read an atomic model.
#[derive(Debug, clap::Args)]
pub(super) struct ModelArgs {
    /// Model to take from a file of several, by its number there [default: the first].
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "Atomic model")]
    model_number: Option<i32>,
    /// Take all models of a file as one specimen, as for a biological assembly.
    #[arg(long, conflicts_with = "model_number", help_heading = "Atomic model")]
    all_models: bool,
}

impl ModelArgs {
    pub(super) fn choice(&self) -> ModelChoice {
        match self.model_number {
            _ if self.all_models => ModelChoice::All,
            Some(number) => ModelChoice::Number(number),
            None => ModelChoice::First,
        }
    }
}
