//! What `cargo compare` leaves behind. The comparison itself is the package `compare`: it draws on
//! the terminal and makes charts, and `cargo setup` need not wait for the crates that do so.

pub mod results;
