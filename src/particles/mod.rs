//! A particle set, on disk ([`store`]) and on its way there ([`import`], [`preprocess`]).

pub mod halves;
pub mod import;
pub mod preprocess;
pub mod store;
pub mod stream;
