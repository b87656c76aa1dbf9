// Fused kernels over the rows of a dense [rows, n] array: softmax, cross-entropy, layer norm. Each
// row is shared by `lanes` threads (a power of two); a block holds 256 / lanes rows. Orders are fixed.

#define BLOCK 256

struct RowArgs {
    char* ptr[8];
    double prm[4];
    i64 rows, n;
    i64 ignore;
    u32 lanes;
    int flag;
};

// One row's threads and their shared memory.
struct Lanes {
    A* s;  // this row's `lanes` slots
    u32 lane, lanes;
};

// Combines one value per lane; every lane gets the result.
template <class F> DEVICE A row_combine(const Lanes& l, A v, F f) {
    __syncthreads();
    l.s[l.lane] = v;
    __syncthreads();
    for (u32 half = l.lanes / 2; half > 0; half /= 2) {
        if (l.lane < half) l.s[l.lane] = f(l.s[l.lane], l.s[l.lane + half]);
        __syncthreads();
    }
    return l.s[0];
}
struct Plus { METHOD_OP A operator()(A a, A b) const { return a + b; } };
struct Greater { METHOD_OP A operator()(A a, A b) const { return Vocab::maximum(a, b); } };
DEVICE A row_sum(const Lanes& l, A v) { return row_combine(l, v, Plus()); }
DEVICE A row_max(const Lanes& l, A v) { return row_combine(l, v, Greater()); }

// Runs `Op::row(a, lanes, r, live)` for every row of the grid; rows past the end take part in the
// barriers with live = false.
template <class Op> DEVICE void for_rows(const RowArgs& a) {
    SHARED A s[BLOCK];
    const u32 per_block = BLOCK / a.lanes;
    Lanes l;
    l.lanes = a.lanes;
    l.lane = threadIdx.x % a.lanes;
    l.s = s + (threadIdx.x / a.lanes) * a.lanes;
    for (i64 base = (i64)blockIdx.x * per_block; base < a.rows; base += (i64)gridDim.x * per_block) {
        const i64 r = base + threadIdx.x / a.lanes;
        Op::row(a, l, r < a.rows ? r : 0, r < a.rows);
    }
}

// Maximum and log of the sum of exponentials of a row.
template <class T> DEVICE A row_lse(const Lanes& l, const T* x, i64 n, A& top) {
    A m = A_NINF;
    for (i64 i = l.lane; i < n; i += l.lanes) m = Vocab::maximum(m, cast<A>(x[i]));
    m = row_max(l, m);
    // A row of only -inf must not give NaN - NaN.
    const A base = (m == A_INF || m == A_NINF) ? A(0) : m;
    A sum = 0;
    for (i64 i = l.lane; i < n; i += l.lanes) sum += Vocab::exp(cast<A>(x[i]) - base);
    sum = row_sum(l, sum);
    top = base;
    return base + Vocab::log(sum);
}

// ptr: x, y; flag: log.
template <class T> struct Softmax {
    METHOD void row(const RowArgs& a, const Lanes& l, i64 r, bool live) {
        const T* x = (const T*)a.ptr[0] + r * a.n;
        T* y = (T*)a.ptr[1] + r * a.n;
        A m = A_NINF;
        for (i64 i = l.lane; i < a.n; i += l.lanes) m = Vocab::maximum(m, cast<A>(x[i]));
        m = row_max(l, m);
        A sum = 0;
        for (i64 i = l.lane; i < a.n; i += l.lanes) sum += Vocab::exp(cast<A>(x[i]) - m);
        sum = row_sum(l, sum);
        if (!live) return;
        if (a.flag) {
            const A shift = Vocab::log(sum);
            for (i64 i = l.lane; i < a.n; i += l.lanes) y[i] = cast<T>((cast<A>(x[i]) - m) - shift);
        } else {
            const A inv = A(1) / sum;
            for (i64 i = l.lane; i < a.n; i += l.lanes) y[i] = cast<T>(Vocab::exp(cast<A>(x[i]) - m) * inv);
        }
    }
};

// ptr: dy, y, dx; flag: log.
template <class T> struct SoftmaxBackward {
    METHOD void row(const RowArgs& a, const Lanes& l, i64 r, bool live) {
        const T* dy = (const T*)a.ptr[0] + r * a.n;
        const T* y = (const T*)a.ptr[1] + r * a.n;
        T* dx = (T*)a.ptr[2] + r * a.n;
        A sum = 0;
        for (i64 i = l.lane; i < a.n; i += l.lanes) sum += a.flag ? cast<A>(dy[i]) : cast<A>(dy[i]) * cast<A>(y[i]);
        sum = row_sum(l, sum);
        if (!live) return;
        for (i64 i = l.lane; i < a.n; i += l.lanes) {
            const A g = cast<A>(dy[i]), v = cast<A>(y[i]);
            dx[i] = cast<T>(a.flag ? g - Vocab::exp(v) * sum : v * (g - sum));
        }
    }
};

// ptr: x, y.
template <class T> struct LogSumExp {
    METHOD void row(const RowArgs& a, const Lanes& l, i64 r, bool live) {
        A top, v = row_lse<T>(l, (const T*)a.ptr[0] + r * a.n, a.n, top);
        if (live && l.lane == 0) ((T*)a.ptr[1])[r] = cast<T>(v);
    }
};

// ptr: x, target (i64), weight or null, loss, lse; prm: smoothing. L is the dtype of loss and lse.
template <class T, class L> struct CrossEntropy {
    METHOD void row(const RowArgs& a, const Lanes& l, i64 r, bool live) {
        const T* x = (const T*)a.ptr[0] + r * a.n;
        const T* w = (const T*)a.ptr[2];
        const i64 t = ((const i64*)a.ptr[1])[r];
        A top;
        const A lse = row_lse<T>(l, x, a.n, top);
        const A eps = (A)a.prm[0];
        A smooth = 0;
        if (a.prm[0] != 0.0) {
            for (i64 i = l.lane; i < a.n; i += l.lanes) smooth += (w ? cast<A>(w[i]) : A(1)) * (lse - cast<A>(x[i]));
            smooth = row_sum(l, smooth);
        }
        if (!live || l.lane != 0) return;
        A loss = 0;
        if (t != a.ignore) loss = (A(1) - eps) * (w ? cast<A>(w[t]) : A(1)) * (lse - cast<A>(x[t])) + eps / (A)a.n * smooth;
        ((L*)a.ptr[3])[r] = cast<L>(loss);
        ((L*)a.ptr[4])[r] = cast<L>(lse);
    }
};

// ptr: x, target, weight or null, lse, scale, dx; prm: smoothing.
template <class T, class L> struct CrossEntropyBackward {
    METHOD void row(const RowArgs& a, const Lanes& l, i64 r, bool live) {
        const T* x = (const T*)a.ptr[0] + r * a.n;
        const T* w = (const T*)a.ptr[2];
        const i64 t = ((const i64*)a.ptr[1])[r];
        const A lse = cast<A>(((const L*)a.ptr[3])[r]), scale = cast<A>(((const L*)a.ptr[4])[r]);
        T* dx = (T*)a.ptr[5] + r * a.n;
        const A eps = (A)a.prm[0], share = eps / (A)a.n;
        A total = (A)a.n;
        if (a.prm[0] != 0.0 && w) {
            total = 0;
            for (i64 i = l.lane; i < a.n; i += l.lanes) total += cast<A>(w[i]);
            total = row_sum(l, total);
        }
        if (!live) return;
        const bool skip = t == a.ignore;
        const A wt = (skip || !w) ? A(1) : cast<A>(w[t]);
        for (i64 i = l.lane; i < a.n; i += l.lanes) {
            const A p = Vocab::exp(cast<A>(x[i]) - lse);
            const A g = (A(1) - eps) * wt * (p - (i == t ? A(1) : A(0))) + share * (total * p - (w ? cast<A>(w[i]) : A(1)));
            dx[i] = cast<T>(skip ? A(0) : g * scale);
        }
    }
};

// ptr: x, w or null, b or null, y, mean or null, rstd; prm: eps; flag: rms. L is the dtype of the statistics.
template <class T, class L> struct LayerNorm {
    METHOD void row(const RowArgs& a, const Lanes& l, i64 r, bool live) {
        const T* x = (const T*)a.ptr[0] + r * a.n;
        const T *w = (const T*)a.ptr[1], *b = (const T*)a.ptr[2];
        T* y = (T*)a.ptr[3] + r * a.n;
        A mean = 0;
        if (!a.flag) {
            for (i64 i = l.lane; i < a.n; i += l.lanes) mean += cast<A>(x[i]);
            mean = row_sum(l, mean) / (A)a.n;
        }
        A var = 0;
        for (i64 i = l.lane; i < a.n; i += l.lanes) {
            const A d = cast<A>(x[i]) - mean;
            var += d * d;
        }
        var = row_sum(l, var) / (A)a.n;
        const A rstd = A(1) / Vocab::sqrt(var + (A)a.prm[0]);
        if (!live) return;
        for (i64 i = l.lane; i < a.n; i += l.lanes) {
            A v = (cast<A>(x[i]) - mean) * rstd;
            if (w) v *= cast<A>(w[i]);
            if (b) v += cast<A>(b[i]);
            y[i] = cast<T>(v);
        }
        if (l.lane == 0) {
            if (a.ptr[4]) ((L*)a.ptr[4])[r] = cast<L>(mean);
            ((L*)a.ptr[5])[r] = cast<L>(rstd);
        }
    }
};

// ptr: dy, x, w or null, mean or null, rstd, dx; flag: rms.
template <class T, class L> struct LayerNormBackward {
    METHOD void row(const RowArgs& a, const Lanes& l, i64 r, bool live) {
        const T *dy = (const T*)a.ptr[0] + r * a.n, *x = (const T*)a.ptr[1] + r * a.n, *w = (const T*)a.ptr[2];
        const A mean = a.ptr[3] ? cast<A>(((const L*)a.ptr[3])[r]) : A(0), rstd = cast<A>(((const L*)a.ptr[4])[r]);
        T* dx = (T*)a.ptr[5] + r * a.n;
        A s1 = 0, s2 = 0;
        for (i64 i = l.lane; i < a.n; i += l.lanes) {
            const A g = cast<A>(dy[i]) * (w ? cast<A>(w[i]) : A(1)), h = (cast<A>(x[i]) - mean) * rstd;
            s1 += g;
            s2 += g * h;
        }
        s1 = a.flag ? A(0) : row_sum(l, s1) / (A)a.n;
        s2 = row_sum(l, s2) / (A)a.n;
        if (!live) return;
        for (i64 i = l.lane; i < a.n; i += l.lanes) {
            const A g = cast<A>(dy[i]) * (w ? cast<A>(w[i]) : A(1)), h = (cast<A>(x[i]) - mean) * rstd;
            dx[i] = cast<T>((g - s1 - h * s2) * rstd);
        }
    }
};

// The gradients of weight and bias: one column per 32 threads' lane, rows shared by the other eight.
// ptr: dy, x, mean or null, rstd, dw or null, db or null.
template <class T, class L> DEVICE void layer_norm_columns(const RowArgs& a) {
    SHARED A s1[BLOCK], s2[BLOCK];
    const u32 x = threadIdx.x % 32, y = threadIdx.x / 32;
    for (i64 base = (i64)blockIdx.x * 32; base < a.n; base += (i64)gridDim.x * 32) {
        const i64 c = base + x;
        A dw = 0, db = 0;
        if (c < a.n)
            for (i64 r = y; r < a.rows; r += BLOCK / 32) {
                const A g = cast<A>(((const T*)a.ptr[0])[r * a.n + c]);
                const A mean = a.ptr[2] ? cast<A>(((const L*)a.ptr[2])[r]) : A(0);
                dw += g * (cast<A>(((const T*)a.ptr[1])[r * a.n + c]) - mean) * cast<A>(((const L*)a.ptr[3])[r]);
                db += g;
            }
        s1[threadIdx.x] = dw;
        s2[threadIdx.x] = db;
        __syncthreads();
        if (y == 0 && c < a.n) {
            for (u32 k = 1; k < BLOCK / 32; k++) {
                dw += s1[k * 32 + x];
                db += s2[k * 32 + x];
            }
            if (a.ptr[4]) ((T*)a.ptr[4])[c] = cast<T>(dw);
            if (a.ptr[5]) ((T*)a.ptr[5])[c] = cast<T>(db);
        }
        __syncthreads();
    }
}

#define ROW_KERNELS(name, T, L)                                                                          \
    KERNEL_SYNC(name##_softmax, RowArgs) { for_rows<Softmax<T> >(a); }                                   \
    KERNEL_SYNC(name##_softmax_backward, RowArgs) { for_rows<SoftmaxBackward<T> >(a); }                  \
    KERNEL_SYNC(name##_logsumexp, RowArgs) { for_rows<LogSumExp<T> >(a); }                               \
    KERNEL_SYNC(name##_cross_entropy, RowArgs) { for_rows<CrossEntropy<T, L> >(a); }                     \
    KERNEL_SYNC(name##_cross_entropy_backward, RowArgs) { for_rows<CrossEntropyBackward<T, L> >(a); }    \
    KERNEL_SYNC(name##_layer_norm, RowArgs) { for_rows<LayerNorm<T, L> >(a); }                           \
    KERNEL_SYNC(name##_layer_norm_backward, RowArgs) { for_rows<LayerNormBackward<T, L> >(a); }          \
    KERNEL_SYNC(name##_layer_norm_columns, RowArgs) { layer_norm_columns<T, L>(a); }
