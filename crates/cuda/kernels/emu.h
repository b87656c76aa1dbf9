// Runs kernel text on the host: one fibre per CUDA thread for kernels with barriers, a plain loop for
// the others. For tests on machines without a GPU; says nothing about speed or memory ordering.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <vector>

#define PYRITE_EMULATE 1
#define DEVICE static inline
#define METHOD static inline
#define METHOD_OP inline
#define SHARED static thread_local

struct Dim { unsigned x, y, z; };
static thread_local Dim gridDim, blockDim, blockIdx, threadIdx;

// One block's fibres. A barrier switches to the scheduler, which resumes every fibre in turn; a fibre
// that ends while another waits at a barrier is what CUDA calls undefined, and aborts here.
struct Fibres {
    ucontext_t scheduler;
    std::vector<ucontext_t> ctx;
    std::vector<std::vector<char>> stacks;
    std::vector<char> done;
    unsigned current = 0;
    void (*body)(const void*) = nullptr;
    const void* arg = nullptr;
};
static thread_local Fibres* fibres = nullptr;

static inline void __syncthreads() {
    if (!fibres) { fprintf(stderr, "emu: __syncthreads in a KERNEL; declare it KERNEL_SYNC\n"); abort(); }
    Fibres* f = fibres;
    swapcontext(&f->ctx[f->current], &f->scheduler);
}

static void emu_entry() {
    Fibres* f = fibres;
    f->body(f->arg);
    f->done[f->current] = 1;
}

static void emu_block_sync(void (*body)(const void*), const void* arg) {
    Fibres f;
    const unsigned n = blockDim.x;
    f.ctx.resize(n); f.stacks.assign(n, std::vector<char>(32768)); f.done.assign(n, 0);
    f.body = body; f.arg = arg;
    fibres = &f;
    for (unsigned t = 0; t < n; t++) {
        getcontext(&f.ctx[t]);
        f.ctx[t].uc_stack.ss_sp = f.stacks[t].data();
        f.ctx[t].uc_stack.ss_size = f.stacks[t].size();
        f.ctx[t].uc_link = &f.scheduler;
        makecontext(&f.ctx[t], emu_entry, 0);
    }
    for (unsigned left = n; left;) {
        unsigned ended = 0, ran = 0;
        for (unsigned t = 0; t < n; t++) {
            if (f.done[t]) continue;
            f.current = t; threadIdx = {t, 0, 0};
            swapcontext(&f.scheduler, &f.ctx[t]);
            ran++; ended += f.done[t];
        }
        if (ended && ended != ran) { fprintf(stderr, "emu: divergent __syncthreads\n"); abort(); }
        left -= ended;
    }
    fibres = nullptr;
}

static void emu_launch(bool sync, void (*body)(const void*), const void* arg, unsigned gx, unsigned gy, unsigned block) {
    gridDim = {gx, gy, 1}; blockDim = {block, 1, 1};
    for (unsigned y = 0; y < gy; y++)
        for (unsigned x = 0; x < gx; x++) {
            blockIdx = {x, y, 0};
            if (sync) emu_block_sync(body, arg);
            else for (unsigned t = 0; t < block; t++) { threadIdx = {t, 0, 0}; body(arg); }
        }
}

#define EMU_KERNEL(name, Args, sync)                                                             \
    static void name##_body(const Args& a);                                                      \
    extern "C" void name(const void* arg, unsigned gx, unsigned gy, unsigned block) {            \
        emu_launch(sync, [](const void* p) { name##_body(*(const Args*)p); }, arg, gx, gy, block); \
    }                                                                                            \
    static void name##_body(const Args& a)
#define KERNEL(name, Args) EMU_KERNEL(name, Args, false)
#define KERNEL_SYNC(name, Args) EMU_KERNEL(name, Args, true)

// What CUDA's math library has and C's lacks: a rough start, then Newton on erf.
static inline double erfinv(double x) {
    if (!(x > -1 && x < 1)) return x == 1 ? HUGE_VAL : x == -1 ? -HUGE_VAL : NAN;
    double l = log((1 - x) * (1 + x)), q = 2 / (M_PI * 0.147) + l / 2;
    double r = copysign(sqrt(sqrt(q * q - l / 0.147) - q), x);
    for (int i = 0; i < 4; i++) {
        double e = x < 0.5 && x > -0.5 ? erf(r) - x : x > 0 ? (1 - x) - erfc(r) : erfc(-r) - (1 + x);
        r -= e / (1.1283791670955126 * exp(-r * r));
    }
    return r;
}
static inline float erfinvf(float x) { return (float)erfinv((double)x); }
