//! From a raw particle image to a stored one: shift, crop, normalise, invert.
