// Random fills and dropout: the stream and the formulas of core/src/rng.rs, so that the numbers are
// the CPU's to the last bit. A thread makes one Philox block: four 32-bit or two 64-bit elements, 16
// apart. `fma` is one rounding; no other product here meets an addition that a compiler could fuse.

struct RandomArgs {
    char* dst;
    const char* src;  // dropout: input
    char* mask;       // dropout: mask
    u64 seed, offset;
    i64 n;
    double prm[4];
    i64 lo;
    u64 span;
    u32 limit;
    int none, shift, dist;
};

struct Block {
    u32 w[4];
};

DEVICE u32 mul_hi(u32 a, u32 b) { return (u32)(((u64)a * b) >> 32); }
DEVICE u64 mul_hi64(u64 a, u64 n) {  // (a * n) >> 64 for n < 2^32
    return ((a >> 32) * n + (((a & 0xffffffffu) * n) >> 32)) >> 32;
}

DEVICE Block philox(u64 seed, u64 counter) {
    u32 c0 = (u32)counter, c1 = (u32)(counter >> 32), c2 = 0, c3 = 0, k0 = (u32)seed, k1 = (u32)(seed >> 32);
    for (int i = 0; i < 10; i++) {
        const u32 h0 = mul_hi(0xD2511F53u, c0), l0 = 0xD2511F53u * c0, h1 = mul_hi(0xCD9E8D57u, c2), l1 = 0xCD9E8D57u * c2;
        c0 = h1 ^ c1 ^ k0;
        c1 = l1;
        c2 = h0 ^ c3 ^ k1;
        c3 = l0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    Block b;
    b.w[0] = c0;
    b.w[1] = c1;
    b.w[2] = c2;
    b.w[3] = c3;
    return b;
}

// The series of cpu/src/random/math.rs; COEFFICIENTS come from the host, which computes them likewise.
template <int N> DEVICE A horner(A x, const double (&c)[N]) {
    A s = (A)c[N - 1];
    for (int k = N - 2; k >= 0; k--) s = Vocab::fma(s, x, (A)c[k]);
    return s;
}

DEVICE A ln_positive(A x) {
    // x = m * 2^e with m in [sqrt(1/2), sqrt(2)).
#ifdef A_F64
    u64 b = bits_as<u64>(x);
    const i64 e = (i64)(b - SPLIT_BIAS) >> 52;
    const A m = bits_as<double>(b - ((u64)e << 52));
#else
    u32 b = bits_as<u32>(x);
    const int e = (int)(b - SPLIT_BIAS) >> 23;
    const A m = bits_as<float>(b - ((u32)e << 23));
#endif
    const double atanh_c[] = {ATANH_SERIES};
    const A s = (m - A(1)) / (m + A(1)), z = s * s;
    const A p = horner(z, atanh_c) * z;
    A lo = Vocab::fma(s, p, (A)e * (A)LN2_LO);
    lo = Vocab::fma(s, A(2), lo);
    return Vocab::fma((A)e, (A)LN2_HI, lo);
}

DEVICE void turn(A t, A& s, A& c) {
    const double sin_c[] = {SIN_SERIES}, cos_c[] = {COS_SERIES};
    const A q = Vocab::round(t * A(4)), f = Vocab::fma(q, A(-0.25), t), z = f * f;
    const A s0 = horner(z, sin_c) * f, c0 = horner(z, cos_c);
    const A a = Vocab::abs(q);
    const bool odd = a == A(1), flip = q == A(-1) || a == A(2);
    s = odd ? c0 : s0;
    c = odd ? -s0 : c0;
    s = flip ? -s : s;
    c = flip ? -c : c;
}

#ifdef A_F64
#define LANES 2
DEVICE u64 element(const Block& b, int k) { return ((u64)b.w[2 * k] << 32) | b.w[2 * k + 1]; }
DEVICE A unit(u64 x, int) { return (A)(i64)(x >> 11) * (A)1.1102230246251565e-16; }
DEVICE A open_unit(u64 x) { return (A)(i64)((x >> 11) + 1) * (A)1.1102230246251565e-16; }
DEVICE A signed_unit(u64 x) { return (A)((i64)x >> 11) * (A)1.1102230246251565e-16; }
#else
#define LANES 4
DEVICE u32 element(const Block& b, int k) { return b.w[k]; }
DEVICE A unit(u32 w, int shift) { return (A)(int)(w >> shift) * (A)(1.0 / (double)(1ull << (32 - shift))); }
DEVICE A open_unit(u32 w) { return (A)(int)((w >> 8) + 1) * (A)5.9604644775390625e-08; }
DEVICE A signed_unit(u32 w) { return (A)((int)w >> 8) * (A)5.9604644775390625e-08; }
#endif

// dist 0: uniform (prm: span, lo, greatest); 1: normal (prm: std, mean).
template <class T> DEVICE void random_floats(const RandomArgs& a) {
    const i64 threads = (a.n + 16 * LANES - 1) / (16 * LANES) * 16;
    for (i64 t = GLOBAL_THREAD; t < threads; t += GLOBAL_SIZE) {
        const Block b = philox(a.seed, a.offset + (u64)t);
        const i64 at = t / 16 * (16 * LANES) + t % 16;
        A v[LANES];
        if (a.dist == 0) {
            for (int k = 0; k < LANES; k++) v[k] = Vocab::minimum(Vocab::fma(unit(element(b, k), a.shift), (A)a.prm[0], (A)a.prm[1]), (A)a.prm[2]);
        } else {
            for (int k = 0; k < LANES; k += 2) {
                const A r = Vocab::sqrt(ln_positive(open_unit(element(b, k))) * A(-2));
                A s, c;
                turn(signed_unit(element(b, k + 1)), s, c);
                const A rc = r * c, rs = r * s;
                v[k] = Vocab::fma(rc, (A)a.prm[0], (A)a.prm[1]);
                v[k + 1] = Vocab::fma(rs, (A)a.prm[0], (A)a.prm[1]);
            }
        }
        for (int k = 0; k < LANES; k++)
            if (at + 16 * k < a.n) ((T*)a.dst)[at + 16 * k] = cast<T>(v[k]);
    }
}

// dist 2: integers with one word; 3: with two; 4: bernoulli; 5: dropout.
template <class T> DEVICE void random_whole(const RandomArgs& a) {
    const int lanes = a.dist == 3 ? 2 : 4;
    const i64 threads = (a.n + 16 * lanes - 1) / (16 * lanes) * 16;
    for (i64 t = GLOBAL_THREAD; t < threads; t += GLOBAL_SIZE) {
        const Block b = philox(a.seed, a.offset + (u64)t);
        for (int k = 0; k < lanes; k++) {
            const i64 i = t / 16 * (16 * lanes) + t % 16 + 16 * k;
            if (i >= a.n) continue;
            const bool hit = !a.none && b.w[k] <= a.limit;
            if (a.dist == 2) ((T*)a.dst)[i] = cast<T>(a.lo + (i64)((b.w[k] * a.span) >> 32));
            else if (a.dist == 3) {
                const u64 x = ((u64)b.w[2 * k] << 32) | b.w[2 * k + 1];
                ((T*)a.dst)[i] = cast<T>((i64)((u64)a.lo + (a.span < (1ull << 32) ? mul_hi64(x, a.span) : x % a.span)));
            } else if (a.dist == 4) ((T*)a.dst)[i] = cast<T>(hit ? 1 : 0);
            else {
                ((u8*)a.mask)[i] = !hit;
                ((T*)a.dst)[i] = cast<T>(hit ? A(0) : cast<A>(((const T*)a.src)[i]) * (A)a.prm[0]);
            }
        }
    }
}
