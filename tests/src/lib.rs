//! Everything here lives in `tests/`.
