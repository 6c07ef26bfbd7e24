//! Files of a mixture.
