//! A particle set, on disk ([`store`]), on its way there ([`import`], [`preprocess`]) and out again ([`export`]).

pub mod export;
pub mod halves;
pub mod import;
pub mod parts;
pub mod preprocess;
pub mod store;
mod subset;

pub use subset::Subset;
