"""Measures special functions against mpmath: largest and mean error in ulps, per function and range.

    pip install mpmath
    python tools/ulp_special.py                 # pyrite, f64 and f32, as the table of docs/ulp.md
    python tools/ulp_special.py --lib torch     # the same of another library
    python tools/ulp_special.py --values target/fast/examples/values     # the functions without a tensor library

Points are half uniform, half spread over magnitudes; those where the function is within 1/50 of its local
amplitude of a zero are left out ("outside of zeros' neighbourhoods").
"""

import argparse
import importlib
import math
import subprocess

import mpmath as mp
import numpy as np

mp.mp.dps = 30


def upper(a, x):
    return mp.gammainc(a, x, mp.inf, regularized=True)


def lower(a, x):
    return mp.gammainc(a, 0, x, regularized=True)


def log_ndtr(x):
    return mp.log(mp.erfc(-x / mp.sqrt(2)) / 2) if x < 5 else mp.log1p(-mp.erfc(x / mp.sqrt(2)) / 2)


def ndtri(p):
    with mp.workdps(40):
        x = mp.mpf(_start(float(p)))
        for _ in range(40):
            tail = mp.erfc(-x / mp.sqrt(2)) / 2
            step = (mp.log(tail) - mp.log(p)) * tail / (mp.exp(-x * x / 2) / mp.sqrt(2 * mp.pi))
            x -= step
            if abs(step) < abs(x) * mp.mpf(10) ** -35 + mp.mpf(10) ** -60:
                break
        return x


def _start(p):
    return -math.sqrt(-2 * math.log(p)) if p < 0.1 else (p - 0.5) * 2.5 if p < 0.9 else math.sqrt(-2 * math.log1p(-p))


def erfcx(x):
    with mp.workdps(40):
        if x > 1e6:
            return (1 - 1 / (2 * x * x)) / (x * mp.sqrt(mp.pi))
        return mp.exp(x * x) * mp.erfc(x)


def zeta(s, q):
    with mp.workdps(40 + max(0, int(s * mp.log10(q)))):
        return mp.zeta(s, q)


def polygamma(n, x):
    with mp.workdps(40 + max(0, int((n + 1) * mp.log10(abs(x))))):
        return mp.psi(int(n), x)


# name, mpmath's, [(description, low, high) per argument ...], amplitude for functions with zeros.
ONE = [
    ("i0", lambda x: mp.besseli(0, x), [(0, 8), (8, 700)], None),
    ("i0e", lambda x: mp.besseli(0, x) * mp.exp(-abs(x)), [(0, 8), (8, 1000)], None),
    ("i1", lambda x: mp.besseli(1, x), [(0, 8), (8, 700)], None),
    ("i1e", lambda x: mp.besseli(1, x) * mp.exp(-abs(x)), [(0, 8), (8, 1000)], None),
    ("modified_bessel_k0", lambda x: mp.besselk(0, x), [(1e-30, 1), (1, 8), (8, 700)], None),
    ("modified_bessel_k1", lambda x: mp.besselk(1, x), [(1e-30, 1), (1, 8), (8, 700)], None),
    ("scaled_modified_bessel_k0", lambda x: mp.besselk(0, x) * mp.exp(x), [(1e-30, 1), (1, 8), (8, 1000)], None),
    ("scaled_modified_bessel_k1", lambda x: mp.besselk(1, x) * mp.exp(x), [(1e-30, 1), (1, 8), (8, 1000)], None),
    ("bessel_j0", lambda x: mp.besselj(0, x), [(0, 10), (10, 1000)], lambda x: mp.sqrt(0.6 / max(x, 1))),
    ("bessel_j1", lambda x: mp.besselj(1, x), [(0, 10), (10, 1000)], lambda x: min(x, mp.sqrt(0.6 / max(x, 1)))),
    ("bessel_y0", lambda x: mp.bessely(0, x), [(1e-30, 10), (10, 1000)], lambda x: mp.sqrt(0.6 / max(x, 1))),
    ("bessel_y1", lambda x: mp.bessely(1, x), [(1e-30, 10), (10, 1000)], lambda x: mp.sqrt(0.6 / max(x, 1))),
    ("airy_ai", mp.airyai, [(-1000, -2.5), (-2.5, 1), (1, 50)], lambda x: 0.5 / abs(x) ** 0.25 if x < -1 else 0),
    ("spherical_bessel_j0", lambda x: mp.sin(x) / x if x else mp.mpf(1), [(0, 3), (3, 1000)], lambda x: 1 / max(x, 1)),
    ("erfcx", erfcx, [(-26, 0), (0, 10), (10, 1e10)], None),
    ("ndtr", lambda x: mp.erfc(-x / mp.sqrt(2)) / 2, [(-37, -1), (-1, 8)], None),
    ("log_ndtr", log_ndtr, [(-100, -1), (-1, 8)], None),
    ("ndtri", ndtri, [(1e-300, 0.15), (0.15, 0.85), (0.85, 0.9999)], lambda x: 1),
    ("entr", lambda x: -x * mp.log(x), [(1e-30, 0.9), (1.1, 1e10)], None),
    ("lgamma", mp.loggamma, [(1e-30, 0.9), (2.1, 1e6)], None),
    ("digamma", mp.digamma, [(1e-30, 1.4), (1.5, 1e6)], None),
    ("erfinv", mp.erfinv, [(1e-30, 0.9), (0.9, 0.9999)], None),
    ("expit", lambda x: 1 / (1 + mp.exp(-x)), [(-700, 700)], None),
    ("logit", lambda x: mp.log(x / (1 - x)), [(1e-30, 0.45), (0.55, 0.999)], None),
]
TWO = [
    ("zeta", zeta, [(1.01, 60, 1e-3, 1e3), (1.01, 10, 1e3, 1e8)], None),
    ("polygamma", polygamma, [(1, 1, 1e-3, 1e3), (2, 10, 1e-3, 1e3), (1, 4, -20, -0.1)], "poly"),
    ("gammainc", lower, [(1e-3, 20, 1e-3, 40), (20, 1000, 10, 1500)], None),
    ("gammaincc", upper, [(1e-3, 20, 1e-3, 40), (20, 1000, 10, 1500)], None),
    ("xlog1py", lambda a, b: a * mp.log1p(b), [(0.1, 10, -0.9, -1e-9), (0.1, 10, 1e-9, 1e9)], None),
    ("chebyshev_polynomial_t", lambda x, n: mp.chebyt(int(n), x), [(-1, 1, 0, 39), (1, 3, 0, 100)], "int2"),
    ("chebyshev_polynomial_u", lambda x, n: mp.chebyu(int(n), x), [(-1, 1, 0, 39), (1, 3, 0, 100)], "int2"),
    ("hermite_polynomial_h", lambda x, n: mp.hermite(int(n), x), [(-3, 3, 0, 20)], "int2"),
    ("hermite_polynomial_he", lambda x, n: mp.hermite(int(n), x / mp.sqrt(2)) * mp.mpf(2) ** (-n / 2), [(-3, 3, 0, 20)], "int2"),
    ("laguerre_polynomial_l", lambda x, n: mp.laguerre(int(n), 0, x), [(0, 10, 0, 20)], "int2"),
    ("legendre_polynomial_p", lambda x, n: mp.legendre(int(n), x), [(-1, 1, 0, 40)], "int2"),
]  # fmt: skip


def points(rng, lo, hi, n, dtype):
    x = rng.uniform(lo, hi, n // 2)
    if lo >= 0 or hi <= 0:
        a, b = sorted((max(abs(lo), 1e-30), max(abs(hi), 1e-30)))
        a = max(a, 1e-30)
        y = np.exp(rng.uniform(math.log(a), math.log(b), n - n // 2)) * (-1 if hi <= 0 else 1)
    else:
        y = np.exp(rng.uniform(math.log(1e-10), math.log(hi), n - n // 2)) * rng.choice([1, -1], n - n // 2)
    z = np.concatenate([x, y]).astype(dtype)
    return z[(z >= lo) & (z <= hi)]


def error(got, true, dtype):
    """In units of the last place of the true value; infinities right or wrong."""
    got = float(got)
    info = np.finfo(dtype)
    if not math.isfinite(got):
        return 0.0 if abs(true) > mp.mpf(float(info.max)) and got * mp.sign(true) > 0 else math.inf
    _, e = mp.frexp(true)
    place = mp.ldexp(1, max(int(e), int(info.minexp) + 1) - (24 if dtype == np.float32 else 53))
    return float(abs(mp.mpf(got) - true) / place)


class Program:
    def __init__(self, path):
        self.path = path

    def __call__(self, name, args, dtype):
        text = "\n".join(" ".join([name, *(repr(float(v)) for v in a)]) for a in zip(*args, strict=True))
        out = subprocess.run([self.path], input=text, capture_output=True, text=True, check=True).stdout
        return np.array([float(v) for v in out.split()]).astype(dtype)


class Library:
    def __init__(self, name):
        self.lib = importlib.import_module(name)
        self.special = importlib.import_module(name + ".special")

    def __call__(self, name, args, dtype):
        t = [self.lib.from_numpy(np.ascontiguousarray(a)) for a in args]
        if name == "polygamma":
            out = np.empty(len(args[0]), dtype)
            for n in np.unique(args[0]):
                at = args[0] == n
                out[at] = self.lib.polygamma(int(n), self.lib.from_numpy(args[1][at])).numpy()
            return out
        f = getattr(self.special, {"lgamma": "gammaln"}.get(name, name))
        return f(*t).numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lib", default="pyrite")
    parser.add_argument("--values", help="a program instead of a library")
    parser.add_argument("--only", default="", help="part of the names")
    parser.add_argument("--points", type=int, default=400)
    args = parser.parse_args()
    f = Program(args.values) if args.values else Library(args.lib)
    print("| function | range | f64 max | f64 mean | f32 max | f32 mean |\n| --- | --- | --- | --- | --- | --- |")
    for name, true, ranges, extra in ONE + TWO:
        if args.only not in name:
            continue
        two = len(ranges[0]) == 4
        for r in ranges:
            cells = []
            for dtype in (np.float64, np.float32):
                rng = np.random.default_rng(7)
                tiny = 1e-30 if dtype == np.float32 else 0
                spans = [(r[0], r[1])] if not two else [(r[0], r[1]), (r[2], r[3])]
                spans = [(max(lo, tiny) if 0 < lo < 1e-30 else lo, hi) for lo, hi in spans]
                xs = [points(rng, lo, hi, args.points, dtype) for lo, hi in spans]
                size = min(map(len, xs))
                xs = [rng.permutation(x)[:size] for x in xs]
                if extra in ("poly", "int2"):
                    k = 0 if extra == "poly" else 1
                    xs[k] = np.floor(xs[k])
                try:
                    got = f(name, xs, dtype)
                except (AttributeError, NotImplementedError, RuntimeError) as e:
                    cells += [type(e).__name__, ""]
                    continue
                errors = []
                for i, v in enumerate(zip(*xs, strict=True)):
                    t = true(*[mp.mpf(float(a)) for a in v])
                    if callable(extra) and abs(t) < extra(*[float(a) for a in v]) / 50:
                        continue
                    if extra == "poly" and v[1] < 0 and abs(t) < 1:
                        continue
                    if extra == "int2" and abs(t) < mp.mpf(max(1, abs(float(np.nanmedian(np.abs(got)))))) / 100:
                        continue
                    errors.append(error(got[i], t, dtype))
                cells += [f"{max(errors):.2f}", f"{np.mean(errors):.2f}"]
            text = f"{r[0]:g} .. {r[1]:g}" + (f", {r[2]:g} .. {r[3]:g}" if two else "")
            print(f"| {name} | {text} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
