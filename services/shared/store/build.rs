//! A new migration must be embedded, not only a changed one.

fn main() {
    println!("cargo:rerun-if-changed=../../../migrations");
}
