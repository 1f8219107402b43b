//! The eks bridge.
