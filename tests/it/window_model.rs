//! Rule 1 as an exhaustive small world.
