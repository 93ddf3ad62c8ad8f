//! A hub that lies, floods, drips and falls silent, and a cache with things in it that no download
//! made. What must hold whatever comes: no file of the user is touched, the token goes nowhere else, and
//! every wait has an end.
#![allow(clippy::unwrap_used)]

mod cache;
mod ends;
mod environment;
mod paths;
mod random;
mod room;
mod setup;
mod token;
