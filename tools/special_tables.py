"""Writes crates/special/src/tables.rs: Chebyshev series and other coefficients, from definitions in mpmath.

    pip install mpmath && python tools/special_tables.py

Every table is the expansion of a function that is smooth on the whole interval (a known factor is taken out), so that
the value keeps its relative accuracy. Needs a few minutes; the result is committed.
"""

import pathlib
from fractions import Fraction

import mpmath as mp

mp.mp.dps = 40
ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "crates" / "special" / "src" / "tables.rs"


def chebyshev(f, points=72):
    """Coefficients of f on [-1, 1] up to where they fall below a quarter of a double's last place."""
    nodes = [mp.cos(mp.pi * (mp.mpf(k) + 0.5) / points) for k in range(points)]
    values = [f(t) for t in nodes]
    out = []
    for j in range(points):
        s = mp.fsum(v * mp.cos(mp.pi * j * (mp.mpf(k) + 0.5) / points) for k, v in enumerate(values))
        out.append(s * 2 / points)
    out[0] /= 2
    small = max(abs(c) for c in out) * mp.mpf(2) ** -56
    while abs(out[-1]) < small:
        out.pop()
    assert len(out) < points - 6, f"{len(out)} coefficients are not enough"
    return out


def between(f, lo, hi):
    """f(x) for x in lo..hi as a function on [-1, 1]."""
    lo, hi = mp.mpf(lo), mp.mpf(hi)
    return chebyshev(lambda t: f(lo + (hi - lo) * (t + 1) / 2))


def far(f, start):
    """f(x) for x from start on, in t = 2 start / x - 1."""
    return chebyshev(lambda t: f(2 * mp.mpf(start) / (t + 1)))


def normal_quantile(p):
    with mp.workdps(60):
        return -mp.sqrt(2) * mp.erfinv(1 - 2 * p) if p > mp.mpf(10) ** -12 else newton_quantile(p)


def newton_quantile(p):
    x = -mp.sqrt(-2 * mp.log(p))
    for _ in range(60):
        tail = mp.erfc(-x / mp.sqrt(2)) / 2
        # Newton on the logarithm: it converges from far away.
        step = (mp.log(tail) - mp.log(p)) * tail / (mp.exp(-x * x / 2) / mp.sqrt(2 * mp.pi))
        x -= step
        if abs(step) < abs(x) * mp.mpf(10) ** -38:
            return x
    raise ArithmeticError(p)


def zeta_of(x):
    """Airy's variable, 2/3 x^(3/2)."""
    return 2 * x * mp.sqrt(x) / 3


def from_zeta(z):
    return (3 * z / 2) ** (mp.mpf(2) / 3)


def airy_right(z):
    x = from_zeta(z)
    return mp.airyai(x) * mp.exp(z) * 2 * mp.sqrt(mp.pi) * mp.root(x, 4)


def airy_left(z, which):
    x = from_zeta(z)
    a, b = mp.airyai(-x), mp.airybi(-x)
    s, c = mp.sin(z + mp.pi / 4), mp.cos(z + mp.pi / 4)
    scale = mp.sqrt(mp.pi) * mp.root(x, 4)
    return scale * (a * s + b * c) if which == "P" else scale * (b * s - a * c) * z


def temme(rows, columns):
    """The coefficients of Temme's uniform expansion of the incomplete gamma function (DLMF 8.12.7 on), exactly."""
    n = 2 * rows + columns + 4
    # mu as a power series in eta: mu mu' = eta (1 + mu).
    mu = [Fraction(0), Fraction(1)]
    for k in range(2, n + 2):
        # The coefficient of eta^k on both sides.
        left = sum(Fraction(mu[i] * (k + 1 - i) * mu[k + 1 - i]) for i in range(2, k) if k + 1 - i < len(mu))
        mu.append((mu[k - 1] - left) / (k + 1))
    # 1/mu = 1/eta + sum r_i eta^i.
    a = mu[1:]
    inverse = [Fraction(1)]
    for k in range(1, n + 1):
        inverse.append(-sum(a[j] * inverse[k - j] for j in range(1, k + 1) if j < len(a)))
    r = inverse[1:]
    # Stirling's series 1 + g_1/a + ...: of the exponential of sum B_2j / (2j (2j-1) a^(2j-1)).
    log_series = [Fraction(0)] * (rows + 2)
    for j in range(1, rows + 2):
        if 2 * j - 1 < len(log_series):
            b = mp.bernfrac(2 * j)
            log_series[2 * j - 1] = Fraction(int(b[0]), int(b[1])) / (2 * j * (2 * j - 1))
    g = [Fraction(1)]
    for k in range(1, rows + 1):
        g.append(sum(j * log_series[j] * g[k - j] for j in range(1, k + 1)) / k)
    c = [list(r)]
    for k in range(1, rows):
        last = c[-1]
        # c_k = c'_(k-1) / eta + (-1)^k g_k / mu: the poles cancel.
        sign = (-1) ** k * g[k]
        c.append([(i + 2) * last[i + 2] + sign * r[i] for i in range(len(last) - 2)])
    return [mp.mpf(x.numerator) / x.denominator for row in c for x in row[:columns]]


def tables():
    half = mp.mpf(1) / 2
    yield "`exp(-x) I0(x)` on 0..8.", "I0_NEAR", between(lambda x: mp.exp(-x) * mp.besseli(0, x), 0, 8)
    yield (
        "`sqrt(x) exp(-x) I0(x)` from 8 on.",
        "I0_FAR",
        far(lambda x: mp.sqrt(x) * mp.exp(-x) * mp.besseli(0, x), 8),
    )
    yield (
        "`exp(-x) I1(x) / x` on 0..8.",
        "I1_NEAR",
        between(lambda x: mp.exp(-x) * mp.besseli(1, x) / x if x else half, 0, 8),
    )
    yield (
        "`sqrt(x) exp(-x) I1(x)` from 8 on.",
        "I1_FAR",
        far(lambda x: mp.sqrt(x) * mp.exp(-x) * mp.besseli(1, x), 8),
    )

    def k0(s):
        x = mp.sqrt(s)
        return mp.besselk(0, x) + mp.log(x / 2) * mp.besseli(0, x) if x else -mp.euler

    def k1(s):
        x = mp.sqrt(s)
        return (mp.besselk(1, x) - 1 / x - mp.log(x / 2) * mp.besseli(1, x)) / x if x else (2 * mp.euler - 1) / 4

    yield "`K0(x) + log(x/2) I0(x)` in x^2 on 0..1.", "K0_NEAR", between(k0, 0, 1)
    yield "`(K1(x) - 1/x - log(x/2) I1(x)) / x` in x^2 on 0..1.", "K1_NEAR", between(k1, 0, 1)
    for order in (0, 1):

        def scaled(x, order=order):
            return mp.sqrt(x) * mp.exp(x) * mp.besselk(order, x)

        yield (
            f"`sqrt(x) exp(x) K{order}(x)` in 1/x on 1/8..1.",
            f"K{order}_MIDDLE",
            between(lambda u: scaled(1 / u), mp.mpf(1) / 8, 1),
        )
        yield f"`sqrt(x) exp(x) K{order}(x)` from 8 on.", f"K{order}_FAR", far(scaled, 8)

    def erfcx(t):
        x = mp.mpf(15) / 4 * (1 + t) / (1 - t)
        with mp.workdps(50):
            return (1 + 2 * x) * mp.exp(x * x) * mp.erfc(x)

    yield "`(1 + 2 x) erfcx(x)` in `(x - 3.75) / (x + 3.75)`.", "ERFCX", chebyshev(erfcx)
    yield (
        "`ndtri(1/2 + q) / q` in q^2 on 0..0.1225.",
        "NDTRI_MIDDLE",
        between(
            lambda s: normal_quantile(half + mp.sqrt(s)) / mp.sqrt(s) if s else mp.sqrt(2 * mp.pi),
            0,
            mp.mpf("0.1225"),
        ),
    )

    def tail(r):
        return newton_quantile(mp.exp(-r * r / 2)) + r

    for name, lo, hi in [("A", "1.9", 4), ("B", 4, 10), ("C", 10, 39)]:
        yield f"`ndtri(p) + r`, r = sqrt(-2 log p), on {lo}..{hi}.", f"NDTRI_TAIL_{name}", between(tail, mp.mpf(lo), hi)
    yield (
        "`lgamma(1 + a) / a` on 0..1.",
        "LGAMMA1P",
        between(lambda a: mp.loggamma(1 + a) / a if a else -mp.euler, 0, 1),
    )
    yield (
        "`(m - log(1 + m)) / m^2` on -0.4..0.4.",
        "LOG1PMX",
        between(lambda m: (m - mp.log1p(m)) / m**2 if m else half, mp.mpf("-0.4"), mp.mpf("0.4")),
    )
    yield "Temme's expansion: 20 rows of 18.", "TEMME", temme(20, 18)
    one = zeta_of(mp.mpf(1))
    yield (
        "Ai right of 1, in 1/z on 1/4..1.5.",
        "AIRY_NEAR",
        between(lambda u: airy_right(1 / u), mp.mpf(1) / 4, 1 / one),
    )
    yield "Ai where z is above 4.", "AIRY_FAR", far(airy_right, 4)
    top = 1 / zeta_of(mp.mpf(5) / 2) ** 2
    yield (
        "Ai left of -2.5: with the sine, in 1/z^2.",
        "AIRY_P",
        between(lambda s: airy_left(1 / mp.sqrt(s), "P"), 0, top),
    )
    yield (
        "Ai left of -2.5: with the cosine, times z.",
        "AIRY_Q",
        between(lambda s: airy_left(1 / mp.sqrt(s), "Q"), 0, top),
    )


def main():
    lines = [
        "//! Chebyshev series and other coefficients, written by `tools/special_tables.py`: do not edit.",
        "",
        "pyrite_table::functions! {",
    ]
    for doc, name, values in tables():
        print(name, len(values), flush=True)
        lines.append(f"    /// {doc}")
        lines.append(f"    pub const {name}: [f64; {len(values)}] = [")
        lines += [f"        {float(v)!r}," for v in values]
        lines.append("    ];")
    lines.append("}")
    OUT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
