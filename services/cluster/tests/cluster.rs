//! The launcher, and what is in `deploy/`, told as one program: some of it waits for processes while the rest
//! keeps both cores busy. `cargo test -p natter-cluster --test cluster deploy::` tells the latter alone.

mod deploy;
mod launcher;
