//! Settings: what is written down of them, and what programs say of wrong ones.

mod page;
mod refused;
