//! A particle set, on disk ([`store`]), on its way there ([`import`], [`preprocess`]) and out again ([`export`]).

pub mod export;
pub mod halves;
pub mod import;
pub mod preprocess;
pub mod store;
pub mod stream;
mod subset;

pub use subset::Subset;
