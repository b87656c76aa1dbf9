"""Cases of reductions, scans, sorting, softmax along other dimensions and batches of small matrices.

Like `cases_data`, each names the bytes that its inputs and results have at least; `reduce_clone` is the plain copy to
compare with.
"""

from cases import case
from cases_data import M, moving


# --- reductions -------------------------------------------------------------------------------------------------------
@moving(
    "reductions along dims", 2, "cube_",
    dict.fromkeys(("sum_0", "sum_1", "sum_2", "sum_02", "mean_02", "mean_12", "amax_0", "amax_1", "amax_2", "argmax_0", "argmax_1", "argmax_2", "max_1", "prod_1", "var_02", "norm_1", "logsumexp_1"), 40 * M)
    | {"any_1": 10 * M, "i64_sum_1": 80 * M, "f64_sum_02": 80 * M, "i64_argmax_0": 80 * M, "f16_sum_2": 20 * M},
    sum_0=lambda lib, x, b, k, d, h: lambda: x.sum(0),
    sum_1=lambda lib, x, b, k, d, h: lambda: x.sum(1),
    sum_2=lambda lib, x, b, k, d, h: lambda: x.sum(2),
    sum_02=lambda lib, x, b, k, d, h: lambda: x.sum((0, 2)),
    mean_02=lambda lib, x, b, k, d, h: lambda: x.mean((0, 2)),
    mean_12=lambda lib, x, b, k, d, h: lambda: x.mean((1, 2)),
    amax_0=lambda lib, x, b, k, d, h: lambda: x.amax(0),
    amax_1=lambda lib, x, b, k, d, h: lambda: x.amax(1),
    amax_2=lambda lib, x, b, k, d, h: lambda: x.amax(2),
    argmax_0=lambda lib, x, b, k, d, h: lambda: x.argmax(0),
    argmax_1=lambda lib, x, b, k, d, h: lambda: x.argmax(1),
    argmax_2=lambda lib, x, b, k, d, h: lambda: x.argmax(2),
    max_1=lambda lib, x, b, k, d, h: lambda: x.max(1),
    prod_1=lambda lib, x, b, k, d, h: lambda: x.prod(1),
    var_02=lambda lib, x, b, k, d, h: lambda: x.var((0, 2)),
    norm_1=lambda lib, x, b, k, d, h: lambda: x.norm(dim=1),
    logsumexp_1=lambda lib, x, b, k, d, h: lambda: x.logsumexp(1),
    any_1=lambda lib, x, b, k, d, h: lambda: b.any(1),
    i64_sum_1=lambda lib, x, b, k, d, h: lambda: k.sum(1),
    f64_sum_02=lambda lib, x, b, k, d, h: lambda: d.sum((0, 2)),
    i64_argmax_0=lambda lib, x, b, k, d, h: lambda: k.argmax(0),
    f16_sum_2=lambda lib, x, b, k, d, h: lambda: h.sum(2),
)  # fmt: skip
def cube_to_reduce(lib):
    """Three dimensions of which none is tiny; 10^7 elements."""
    lib.torch.manual_seed(0)
    x = lib.torch.randn(200, 250, 200)
    return x, x > 3, (x * 1000).long(), x.double(), x.half()


@moving(
    "reductions along dims", 2, "matrix_",
    dict.fromkeys(("sum_0", "sum_1", "amax_0", "amax_1", "argmax_0", "argmax_1", "mean_0", "argmin_0"), 40 * M),
    sum_0=lambda lib, x: lambda: x.sum(0),
    sum_1=lambda lib, x: lambda: x.sum(1),
    mean_0=lambda lib, x: lambda: x.mean(0),
    amax_0=lambda lib, x: lambda: x.amax(0),
    amax_1=lambda lib, x: lambda: x.amax(1),
    argmax_0=lambda lib, x: lambda: x.argmax(0),
    argmax_1=lambda lib, x: lambda: x.argmax(1),
    argmin_0=lambda lib, x: lambda: x.argmin(0),
)  # fmt: skip
def matrix_to_reduce(lib):
    lib.torch.manual_seed(0)
    return (lib.torch.randn(2500, 4000),)


@moving(
    "reductions along dims", 1, "reduce_", {"clone": 80 * M, "sum": 40 * M, "argmax": 40 * M, "i64_sum": 80 * M},
    clone=lambda lib, x, k: lambda: x.clone(),
    sum=lambda lib, x, k: lambda: x.sum(),
    argmax=lambda lib, x, k: lambda: x.argmax(),
    i64_sum=lambda lib, x, k: lambda: k.sum(),
)  # fmt: skip
def all_to_reduce(lib):
    lib.torch.manual_seed(0)
    x = lib.torch.randn(10 * M)
    return x, (x * 1000).long()


# --- scans ------------------------------------------------------------------------------------------------------------
@moving(
    "scans", 2, "scan_",
    {"f32": 80 * M, "i64": 160 * M, "f64": 160 * M, "i32_to_i64": 120 * M, "rows_1": 80 * M, "rows_0": 80 * M,
     "i64_rows_1": 160 * M, "i64_rows_0": 160 * M, "prod_rows_1": 80 * M, "cummax_1": 160 * M, "cummax_0": 160 * M,
     "bool_rows_1": 90 * M},
    f32=lambda lib, x, k, d, b: lambda: x.view(-1).cumsum(0),
    i64=lambda lib, x, k, d, b: lambda: k.view(-1).cumsum(0),
    f64=lambda lib, x, k, d, b: lambda: d.view(-1).cumsum(0),
    rows_1=lambda lib, x, k, d, b: lambda: x.cumsum(1),
    rows_0=lambda lib, x, k, d, b: lambda: x.cumsum(0),
    i64_rows_1=lambda lib, x, k, d, b: lambda: k.cumsum(1),
    i64_rows_0=lambda lib, x, k, d, b: lambda: k.cumsum(0),
    bool_rows_1=lambda lib, x, k, d, b: lambda: b.cumsum(1),
    prod_rows_1=lambda lib, x, k, d, b: lambda: x.cumprod(1),
    cummax_1=lambda lib, x, k, d, b: lambda: x.cummax(1),
    cummax_0=lambda lib, x, k, d, b: lambda: x.cummax(0),
    logcumsumexp_1=lambda lib, x, k, d, b: lambda: x.logcumsumexp(1),
)  # fmt: skip
def matrix_to_scan(lib):
    lib.torch.manual_seed(0)
    x = lib.torch.randn(10_000, 1000)
    return x, (x * 1000).long(), x.double(), x > 0


# --- sorting ----------------------------------------------------------------------------------------------------------
@moving(
    "sorting", 3, "sort_", {"f32": 16 * M, "i64": 24 * M, "i64_small": 24 * M, "f64": 24 * M, "i32": 16 * M,
                            "rows_16": 16 * M, "rows_100": 16 * M, "rows_1000": 16 * M, "f32_down": 16 * M,
                            "i64_full": 24 * M, "cols_1000": 16 * M, "i64_rows_16": 24 * M},
    f32=lambda lib, x, k: lambda: x.sort(),
    f32_down=lambda lib, x, k: lambda: x.sort(descending=True),
    f64=lambda lib, x, k: (lambda d: lambda: d.sort())(x.double()),
    i32=lambda lib, x, k: (lambda i: lambda: i.sort())(k.int()),
    i64=lambda lib, x, k: lambda: k.sort(),
    i64_small=lambda lib, x, k: (lambda i: lambda: i.sort())(k % 1000),
    i64_full=lambda lib, x, k: (lambda i: lambda: i.sort())(k * 7_777_777_777),
    rows_16=lambda lib, x, k: (lambda r: lambda: r.sort(1))(x.view(-1, 16)),
    i64_rows_16=lambda lib, x, k: (lambda r: lambda: r.sort(1))(k.view(-1, 16)),
    rows_100=lambda lib, x, k: (lambda r: lambda: r.sort(1))(x.view(-1, 100)),
    rows_1000=lambda lib, x, k: (lambda r: lambda: r.sort(1))(x.view(-1, 1000)),
    cols_1000=lambda lib, x, k: (lambda r: lambda: r.sort(0))(x.view(1000, -1)),
)  # fmt: skip
def million_to_sort(lib):
    lib.torch.manual_seed(0)
    return lib.torch.randn(M), lib.torch.randint(0, 10**9, (M,))


# --- softmax ----------------------------------------------------------------------------------------------------------
@moving(
    "softmax", 1, "softmax_", {"0": 32 * M, "log_0": 32 * M, "1": 32 * M, "channels": 32 * M},
    **{
        "0": lambda lib, x: lambda: x.softmax(0),
        "log_0": lambda lib, x: lambda: x.log_softmax(0),
        "1": lambda lib, x: lambda: x.softmax(1),
        "channels": lambda lib, x: (lambda y: lambda: y.softmax(1))(x.view(8, 50, 100, 100)),
        "0_backward": lambda lib, x: backward_of(x.clone().requires_grad_(), lambda y: y.softmax(0)),
    },
)  # fmt: skip
def softmax_along(lib):
    lib.torch.manual_seed(0)
    return (lib.torch.randn(1000, 4000),)


def backward_of(x, f):
    seed = f(x).detach()

    def step():
        x.grad = None
        f(x).backward(seed)

    return step


# --- small matrices ---------------------------------------------------------------------------------------------------
@moving(
    "small matrices", 1, "tiny_", {},
    solve=lambda lib, a, b, s: lambda: lib.torch.linalg.solve(a, b),
    inv=lambda lib, a, b, s: lambda: lib.torch.linalg.inv(a),
    det=lambda lib, a, b, s: lambda: lib.torch.linalg.det(a),
    cholesky=lambda lib, a, b, s: lambda: lib.torch.linalg.cholesky(s),
    eigvalsh=lambda lib, a, b, s: lambda: lib.torch.linalg.eigvalsh(s),
    eigh=lambda lib, a, b, s: lambda: lib.torch.linalg.eigh(s),
    svdvals=lambda lib, a, b, s: lambda: lib.torch.linalg.svdvals(a),
    qr=lambda lib, a, b, s: lambda: lib.torch.linalg.qr(a),
    solve_4=lambda lib, a, b, s: lambda: lib.torch.linalg.solve(a[:, :4, :4], b[:, :4]),
    inv_4=lambda lib, a, b, s: lambda: lib.torch.linalg.inv(a[:, :4, :4]),
    bmm=lambda lib, a, b, s: lambda: a @ a,
)  # fmt: skip
def small_matrices(lib):
    """A thousand matrices of 8 by 8."""
    torch = lib.torch
    torch.manual_seed(0)
    a = torch.randn(1000, 8, 8)
    return a, torch.randn(1000, 8, 2), a @ a.mT + torch.eye(8)


@moving(
    "small matrices", 1, "matrix_200_", {},
    solve=lambda lib, a, b, s: lambda: lib.torch.linalg.solve(a, b),
    eigvalsh=lambda lib, a, b, s: lambda: lib.torch.linalg.eigvalsh(s),
    eigh=lambda lib, a, b, s: lambda: lib.torch.linalg.eigh(s),
    svdvals=lambda lib, a, b, s: lambda: lib.torch.linalg.svdvals(a),
)  # fmt: skip
def one_matrix(lib):
    torch = lib.torch
    torch.manual_seed(0)
    a = torch.randn(200, 200)
    return a, torch.randn(200, 3), a @ a.mT


# --- depthwise convolution --------------------------------------------------------------------------------------------
@case("depthwise", 1)
def depthwise_forward(lib):
    torch = lib.torch
    torch.manual_seed(0)
    x, w = torch.randn(8, 64, 56, 56), torch.randn(64, 1, 3, 3)
    return lambda: lib.F.conv2d(x, w, padding=1, groups=64)


@case("depthwise", 1)
def depthwise_forward_backward(lib):
    torch = lib.torch
    torch.manual_seed(0)
    x, w = torch.randn(8, 64, 56, 56, requires_grad=True), torch.randn(64, 1, 3, 3, requires_grad=True)

    def step():
        x.grad = w.grad = None
        lib.F.conv2d(x, w, padding=1, groups=64).sum().backward()

    return step
