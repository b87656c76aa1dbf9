// The reduction template: one kernel for contiguous-inner, outer and whole reductions.
//
// A block of 256 threads holds `outputs` x `lanes` of them: neighbours in a warp walk whichever of
// the two is contiguous in memory (`inner`: the reduced dimension). gridDim.y cuts a long reduction
// into chunks whose partial results a second launch combines. Every order is fixed, so results do
// not vary from run to run.
//
// The host writes a struct Op: Acc, T (source), D (result), D2, and
//   start(), step(acc, x, i), combine(a, b), finish(acc, n, prm), finish2(acc).

#define BLOCK 256

struct ReduceArgs {
    const char* src;
    char* dst;
    char* dst2;
    char* partial;  // workspace for gridDim.y > 1, [outputs][chunks]
    u64 prm[4];
    u32 outputs, reduced, chunk;
    u32 lanes;  // threads per output, a power of two
    int inner;
    int odims, rdims;
    Div oshape[MAX_DIMS], rshape[MAX_DIMS];
    i64 ostrides[3][MAX_DIMS];  // of src, dst, dst2
    i64 rstrides[MAX_DIMS];
};

DEVICE i64 offset_of(u32 rest, int ndim, const Div* shape, const i64* strides) {
    i64 off = 0;
    for (int d = 0; d < ndim; d++) {
        const u32 q = div_by(shape[d], rest);
        off += (i64)(rest - q * shape[d].d) * strides[d];
        rest = q;
    }
    return off;
}

// Combines the lanes of each output in shared memory; lane 0 gets the result.
template <class Op> DEVICE typename Op::Acc block_combine(typename Op::Acc acc, typename Op::Acc* s, u32 o, u32 lane, u32 lanes) {
    s[o * lanes + lane] = acc;
    __syncthreads();
    for (u32 half = lanes / 2; half > 0; half /= 2) {
        if (lane < half) s[o * lanes + lane] = Op::combine(s[o * lanes + lane], s[o * lanes + lane + half]);
        __syncthreads();
    }
    return s[o * lanes];
}

template <class Op> DEVICE void reduce_write(const ReduceArgs& a, u32 out, typename Op::Acc acc) {
    const i64 d = offset_of(out, a.odims, a.oshape, a.ostrides[1]);
    *(typename Op::D*)(a.dst + d) = Op::finish(acc, a.reduced, a.prm);
    if (a.dst2) *(typename Op::D2*)(a.dst2 + offset_of(out, a.odims, a.oshape, a.ostrides[2])) = Op::finish2(acc);
}

template <class Op> DEVICE void reduce_main(const ReduceArgs& a) {
    typedef typename Op::Acc Acc;
    typedef typename Op::T T;
    SHARED Acc s[BLOCK];
    const u32 t = threadIdx.x, lanes = a.lanes, per_block = BLOCK / lanes;
    const u32 lane = a.inner ? t % lanes : t / per_block;
    const u32 o = a.inner ? t / lanes : t % per_block;
    for (u64 base = (u64)blockIdx.x * per_block; base < a.outputs; base += (u64)gridDim.x * per_block) {
        const u32 out = (u32)base + o;
        Acc acc = Op::start();
        if (out < a.outputs) {
            const char* src = a.src + offset_of(out, a.odims, a.oshape, a.ostrides[0]);
            const u32 begin = blockIdx.y * a.chunk;
            const u32 end = a.reduced - begin < a.chunk ? a.reduced : begin + a.chunk;
            u32 i = begin + lane;
            if (a.rdims == 1) {
                const i64 step = a.rstrides[0];
                // Four accumulators: loads do not wait for each other.
                Acc b = Op::start(), c = Op::start(), d = Op::start();
                for (; end > 3 * lanes && i < end - 3 * lanes; i += 4 * lanes) {
                    const T x0 = *(const T*)(src + (i64)i * step), x1 = *(const T*)(src + (i64)(i + lanes) * step);
                    const T x2 = *(const T*)(src + (i64)(i + 2 * lanes) * step), x3 = *(const T*)(src + (i64)(i + 3 * lanes) * step);
                    acc = Op::step(acc, x0, i, a.prm);
                    b = Op::step(b, x1, i + lanes, a.prm);
                    c = Op::step(c, x2, i + 2 * lanes, a.prm);
                    d = Op::step(d, x3, i + 3 * lanes, a.prm);
                }
                acc = Op::combine(Op::combine(acc, b), Op::combine(c, d));
                for (; i < end; i += lanes) acc = Op::step(acc, *(const T*)(src + (i64)i * step), i, a.prm);
            } else {
                for (; i < end; i += lanes)
                    acc = Op::step(acc, *(const T*)(src + offset_of(i, a.rdims, a.rshape, a.rstrides)), i, a.prm);
            }
        }
        if (lanes > 1) acc = block_combine<Op>(acc, s, o, lane, lanes);
        if (lane == 0 && out < a.outputs) {
            if (gridDim.y > 1) ((Acc*)a.partial)[(u64)out * gridDim.y + blockIdx.y] = acc;
            else reduce_write<Op>(a, out, acc);
        }
        __syncthreads();
    }
}

// The second pass: one block per output over `chunk` partial results.
template <class Op> DEVICE void reduce_last(const ReduceArgs& a) {
    typedef typename Op::Acc Acc;
    SHARED Acc s[BLOCK];
    for (u32 out = blockIdx.x; out < a.outputs; out += gridDim.x) {
        const Acc* part = (const Acc*)a.partial + (u64)out * a.chunk;
        Acc acc = Op::start();
        for (u32 i = threadIdx.x; i < a.chunk; i += BLOCK) acc = Op::combine(acc, part[i]);
        acc = block_combine<Op>(acc, s, 0, threadIdx.x, BLOCK);
        if (threadIdx.x == 0) reduce_write<Op>(a, out, acc);
        __syncthreads();
    }
}

#define REDUCE_KERNELS(name, Op)                              \
    KERNEL_SYNC(name##_1, ReduceArgs) { reduce_main<Op>(a); } \
    KERNEL_SYNC(name##_2, ReduceArgs) { reduce_last<Op>(a); }
