//! The shared core of the audit bridges.
//!
//! One way for all data: a *source* yields records (the provider's bytes with their place), a
//! *converter* makes audit events of them, a *batcher* groups those, *delivery* brings them to the
//! webhook, and *commit* moves the position only over what was settled.

pub mod convert;
pub mod event;
pub mod record;
pub mod replay;
pub mod source;
