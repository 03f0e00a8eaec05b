//! What this kernel can, by its version alone: the loader's own judgement is part of what is tested.

/// What a client is told when the programs refuse it. A program names its own error since Linux 5.18.
pub(crate) fn refusal() -> &'static str {
    if version() >= (5, 18) { "error ConnectionRefused" } else { "error PermissionDenied" }
}

fn version() -> (u32, u32) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}
