// The elementwise templates. The host writes one struct per (row, formula, operand dtypes):
//   OPERANDS, WIDTH (elements per vector), `one(p, off, prm)` and `vec<V>(p, i, prm)`,
// and instantiates both kernels with MAP_KERNELS. A fused backward is the same with its own text.

template <class T, int V> struct alignas(sizeof(T) * V) Vec {
    T v[V];
};

struct MapArgs {
    char* ptr[MAX_OPERANDS];
    u64 prm[4];
    i64 n;
    int vector;  // all pointers are aligned for vectors
};

struct StridedArgs {
    char* ptr[MAX_OPERANDS];
    u64 prm[4];
    u32 n;
    int ndim;
    Div shape[MAX_DIMS];
    i64 strides[MAX_OPERANDS][MAX_DIMS];
};

template <class Op> DEVICE void map_contiguous(const MapArgs& a) {
    const u64 size = GLOBAL_SIZE;
    u64 done = 0;
    if (a.vector) {
        const u64 vectors = (u64)a.n / Op::WIDTH;
        for (u64 i = GLOBAL_THREAD; i < vectors; i += size) Op::template vec<Op::WIDTH>(a.ptr, i, a.prm);
        done = vectors * Op::WIDTH;
    }
    for (u64 i = done + GLOBAL_THREAD; i < (u64)a.n; i += size) Op::template vec<1>(a.ptr, i, a.prm);
}

template <class Op> DEVICE void map_strided(const StridedArgs& a) {
    for (u64 t = GLOBAL_THREAD; t < a.n; t += GLOBAL_SIZE) {
        i64 off[Op::OPERANDS];
        for (int k = 0; k < Op::OPERANDS; k++) off[k] = 0;
        u32 rest = (u32)t;
        for (int d = 0; d < a.ndim; d++) {
            const u32 q = div_by(a.shape[d], rest);
            const i64 i = rest - q * a.shape[d].d;
            for (int k = 0; k < Op::OPERANDS; k++) off[k] += i * a.strides[k][d];
            rest = q;
        }
        Op::one(a.ptr, off, a.prm);
    }
}

#define MAP_KERNELS(name, Op)                           \
    KERNEL(name##_c, MapArgs) { map_contiguous<Op>(a); } \
    KERNEL(name##_s, StridedArgs) { map_strided<Op>(a); }
