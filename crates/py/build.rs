//! Tells the crate which cargo profile it is built with: benches refuse anything but a release.

fn main() {
    // OUT_DIR is <target>/<profile directory>/build/<package>/out; the profile `dev` builds into `debug`.
    let out = std::env::var("OUT_DIR").unwrap_or_default();
    let profile =
        std::path::Path::new(&out).ancestors().nth(3).and_then(|p| p.file_name()).and_then(|n| n.to_str());
    println!("cargo::rustc-env=PYRITE_PROFILE={}", profile.unwrap_or("unknown"));
    println!("cargo::rerun-if-changed=build.rs");
}
