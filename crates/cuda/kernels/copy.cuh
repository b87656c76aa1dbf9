// Conversion and filling on the elementwise templates of map.cuh.

template <class D, class S> struct CopyOp {
    enum { OPERANDS = 2, SIZE = sizeof(D) > sizeof(S) ? sizeof(D) : sizeof(S), WIDTH = SIZE >= 16 ? 1 : 16 / SIZE > 8 ? 8 : 16 / SIZE };
    METHOD void one(char* const* p, const i64* off, const u64*) { *(D*)(p[0] + off[0]) = cast<D>(*(const S*)(p[1] + off[1])); }
    template <int V> METHOD void vec(char* const* p, u64 i, const u64*) {
        const Vec<S, V> x = ((const Vec<S, V>*)p[1])[i];
        Vec<D, V> y;
        for (int k = 0; k < V; k++) y.v[k] = cast<D>(x.v[k]);
        ((Vec<D, V>*)p[0])[i] = y;
    }
};

// The value is the first sizeof(D) bytes of the parameters.
template <class D> struct FillOp {
    enum { OPERANDS = 1, WIDTH = sizeof(D) >= 16 ? 1 : 16 / sizeof(D) > 8 ? 8 : 16 / sizeof(D) };
    METHOD void one(char* const* p, const i64* off, const u64* prm) { *(D*)(p[0] + off[0]) = param<D>(prm); }
    template <int V> METHOD void vec(char* const* p, u64 i, const u64* prm) {
        Vec<D, V> y;
        for (int k = 0; k < V; k++) y.v[k] = param<D>(prm);
        ((Vec<D, V>*)p[0])[i] = y;
    }
};
