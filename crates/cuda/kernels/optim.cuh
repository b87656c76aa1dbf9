// Fused optimizer steps over many parameters in one launch: blockIdx.y picks the parameter.

#define OPTIM_TENSORS 24

struct OptimArgs {
    char* p[OPTIM_TENSORS];
    const char* g[OPTIM_TENSORS];
    char* s0[OPTIM_TENSORS];
    char* s1[OPTIM_TENSORS];
    char* s2[OPTIM_TENSORS];
    i64 n[OPTIM_TENSORS];
    double prm[8];
    int flags[4];
};

// prm: lr, momentum, dampening, weight decay; flags: nesterov, maximize, first.
template <class T> struct Sgd {
    METHOD void one(const OptimArgs& a, int k, i64 i) {
        T* p = (T*)a.p[k];
        const A x = cast<A>(p[i]), lr = (A)a.prm[0], momentum = (A)a.prm[1];
        A g = cast<A>(((const T*)a.g[k])[i]);
        if (a.flags[1]) g = -g;
        g += (A)a.prm[3] * x;
        if (a.s0[k]) {
            T* b = (T*)a.s0[k];
            const A m = a.flags[2] ? g : momentum * cast<A>(b[i]) + (A)(1.0 - a.prm[2]) * g;
            b[i] = cast<T>(m);
            g = a.flags[0] ? g + momentum * m : m;
        }
        p[i] = cast<T>(x - lr * g);
    }
};

// prm: lr / correction 1, beta1, beta2, eps, weight decay, sqrt(correction 2), 1 - lr * decay;
// flags: decoupled, maximize, amsgrad.
template <class T> struct Adam {
    METHOD void one(const OptimArgs& a, int k, i64 i) {
        T *p = (T*)a.p[k], *m = (T*)a.s0[k], *v = (T*)a.s1[k], *top = (T*)a.s2[k];
        A x = cast<A>(p[i]), g = cast<A>(((const T*)a.g[k])[i]);
        if (a.flags[1]) g = -g;
        if (a.flags[0]) x *= (A)a.prm[6];
        else g += (A)a.prm[4] * x;
        const A m1 = cast<A>(m[i]) + (A)(1.0 - a.prm[1]) * (g - cast<A>(m[i]));
        A v1 = (A)a.prm[2] * cast<A>(v[i]) + (A)(1.0 - a.prm[2]) * g * g;
        m[i] = cast<T>(m1);
        v[i] = cast<T>(v1);
        if (a.flags[2]) {
            v1 = Vocab::maximum(cast<A>(top[i]), v1);
            top[i] = cast<T>(v1);
        }
        p[i] = cast<T>(x - (A)a.prm[0] * m1 / (Vocab::sqrt(v1) / (A)a.prm[5] + (A)a.prm[3]));
    }
};

// prm: lr, alpha, eps, weight decay, momentum; flags: centered, maximize. state: squares, buffer, mean.
template <class T> struct RmsProp {
    METHOD void one(const OptimArgs& a, int k, i64 i) {
        T *p = (T*)a.p[k], *sq = (T*)a.s0[k], *b = (T*)a.s1[k], *ga = (T*)a.s2[k];
        const A x = cast<A>(p[i]), alpha = (A)a.prm[1], rest = (A)(1.0 - a.prm[1]);
        A g = cast<A>(((const T*)a.g[k])[i]);
        if (a.flags[1]) g = -g;
        g += (A)a.prm[3] * x;
        const A s = alpha * cast<A>(sq[i]) + rest * g * g;
        sq[i] = cast<T>(s);
        A avg = s;
        if (a.flags[0]) {
            const A m = cast<A>(ga[i]) + rest * (g - cast<A>(ga[i]));
            ga[i] = cast<T>(m);
            avg = s - m * m;
        }
        A step = g / (Vocab::sqrt(avg) + (A)a.prm[2]);
        if (b) {
            step += (A)a.prm[4] * cast<A>(b[i]);
            b[i] = cast<T>(step);
        }
        p[i] = cast<T>(x - (A)a.prm[0] * step);
    }
};

template <class Op> DEVICE void optim_run(const OptimArgs& a) {
    const int k = blockIdx.y;
    for (i64 i = GLOBAL_THREAD; i < a.n[k]; i += GLOBAL_SIZE) Op::one(a, k, i);
}

#define OPTIM_KERNELS(name, T)                                   \
    KERNEL(name##_sgd, OptimArgs) { optim_run<Sgd<T> >(a); }     \
    KERNEL(name##_adam, OptimArgs) { optim_run<Adam<T> >(a); }   \
    KERNEL(name##_rmsprop, OptimArgs) { optim_run<RmsProp<T> >(a); }
