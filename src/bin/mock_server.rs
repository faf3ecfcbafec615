//! The bundled enrollment server.
fn main() {}
