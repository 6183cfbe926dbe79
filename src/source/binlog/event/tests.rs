//! Events as bytes, by hand.
