//! Saved dumps as a source: the same pipeline, never a second one.

pub mod dump;
