//! Values of the functions here for `tools/ulp_special.py --values`: lines of a name and one or two
//! numbers on standard input, one number per line on standard output.

use pyrite_special as sp;
use std::io::{Read, Write};

fn value(name: &str, x: f64, y: f64) -> Option<f64> {
    macro_rules! find {
        ($($one:ident)*; $($two:ident)*) => {
            match name {
                $(stringify!($one) => sp::$one(x),)*
                $(stringify!($two) => sp::$two(x, y),)*
                _ => return None,
            }
        };
    }
    Some(find!(
        i0 i0e i1 i1e modified_bessel_k0 modified_bessel_k1 scaled_modified_bessel_k0 scaled_modified_bessel_k1
        bessel_j0 bessel_j1 bessel_y0 bessel_y1 airy_ai erfcx ndtr log_ndtr ndtri;
        zeta polygamma gammainc gammaincc chebyshev_polynomial_t chebyshev_polynomial_u chebyshev_polynomial_v
        chebyshev_polynomial_w hermite_polynomial_h hermite_polynomial_he laguerre_polynomial_l
        legendre_polynomial_p
    ))
}

fn main() -> std::io::Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let mut out = String::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default();
        let mut number = || words.next().and_then(|w| w.parse::<f64>().ok()).unwrap_or(0.0);
        let v = value(name, number(), number()).unwrap_or(f64::NAN);
        out.push_str(&format!("{v:e}\n"));
    }
    std::io::stdout().write_all(out.as_bytes())
}
