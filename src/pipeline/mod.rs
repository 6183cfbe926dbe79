//! The ingest pipeline, emulated.
