//! Compiles every kernel for the given architectures: `cargo run -p pyrite-cuda --example compile_all
//! -- 80 90`. Needs NVRTC (PYRITE_CUDA_LIBS names its folder), no GPU.

fn main() -> pyrite_core::Result<()> {
    let archs: Vec<u32> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    for arch in if archs.is_empty() { vec![80, 90] } else { archs } {
        if std::env::var_os("VERBOSE").is_some() {
            for m in pyrite_cuda::variants::modules()? {
                let start = std::time::Instant::now();
                let cubin = pyrite_cuda::nvrtc::cubin(&m.title, &m.source, arch)?;
                println!(
                    "{:28} {:5} kernels {:8} bytes {:6.2} s",
                    m.title,
                    m.kernels.len(),
                    cubin.len(),
                    start.elapsed().as_secs_f64()
                );
            }
        }
        let start = std::time::Instant::now();
        let (modules, kernels, bytes) = pyrite_cuda::variants::compile_all(arch)?;
        println!(
            "sm_{arch}: {modules} modules, {kernels} kernels, {bytes} bytes of cubin, {:.1} s",
            start.elapsed().as_secs_f64()
        );
    }
    Ok(())
}
