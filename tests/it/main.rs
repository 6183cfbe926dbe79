//! The one integration binary.

mod sink;
