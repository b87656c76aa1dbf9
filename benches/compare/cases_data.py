"""Cases that move data more than they compute: sorting and search, indexing, scans and layouts.

Each names the bytes its inputs and outputs have at least (`moved`), so that the report can say how far it is from a
plain copy (`1e7_clone`), which is what the memory gives.
"""

from cases import CASES, each

M = 1_000_000


def moving(group, target, prefix, sizes, **makers):
    """`each`, with the bytes that every case has to move; a case that `sizes` does not name has none to show."""
    register = each(group, target, prefix, **makers)

    def prepare(data):
        register(data)
        for key in makers:
            CASES[prefix + key]["moved"] = sizes.get(key)
        return data

    return prepare


# --- sort and search --------------------------------------------------------------------------------------------------
@moving(
    "sort and search", 3, "1e6_", {},
    sort_f32=lambda lib, x, k, few: lambda: x.sort(),
    argsort_f32=lambda lib, x, k, few: lambda: x.argsort(),
)  # fmt: skip
@moving(
    "sort and search", 1.5, "1e6_", {},
    sort_i64=lambda lib, x, k, few: lambda: k.sort(),
)  # fmt: skip
@moving(
    "sort and search", 1, "1e6_",
    {
        "topk_10": 4 * M, "topk_1000": 4 * M, "median": 4 * M, "kthvalue": 4 * M, "quantile": 4 * M, "unique": 16 * M,
        "unique_of_few": 16 * M, "unique_consecutive": 16 * M, "randperm": 8 * M, "searchsorted": 12 * M,
        "isin_100": 9 * M, "bincount": 8 * M, "histc": 4 * M,
    },
    topk_10=lambda lib, x, k, few: lambda: x.topk(10),
    topk_1000=lambda lib, x, k, few: lambda: x.topk(1000),
    median=lambda lib, x, k, few: lambda: x.median(),
    kthvalue=lambda lib, x, k, few: lambda: x.kthvalue(1000),
    quantile=lambda lib, x, k, few: lambda: x.quantile(0.3),
    unique=lambda lib, x, k, few: lambda: lib.torch.unique(k),
    unique_of_few=lambda lib, x, k, few: lambda: lib.torch.unique(few, return_inverse=True, return_counts=True),
    randperm=lambda lib, x, k, few: lambda: lib.torch.randperm(M),
    searchsorted=lambda lib, x, k, few: lambda: lib.torch.searchsorted(x[:1000].sort().values, x),
    isin_100=lambda lib, x, k, few: lambda: lib.torch.isin(few, few[:100]),
    bincount=lambda lib, x, k, few: lambda: lib.torch.bincount(few),
    histc=lambda lib, x, k, few: lambda: x.histc(100, -3, 3),
    unique_consecutive=lambda lib, x, k, few: lambda: lib.torch.unique_consecutive(few),
)  # fmt: skip
def one_million_to_sort(lib):
    lib.torch.manual_seed(0)
    return lib.torch.randn(M), lib.torch.randint(0, 10**9, (M,)), lib.torch.randint(0, 1000, (M,))


@moving(
    "sort and search", 3, "rows_", {},
    sort_1=lambda lib, x: lambda: x.sort(1),
    sort_0=lambda lib, x: lambda: x.sort(0),
)  # fmt: skip
@moving(
    "sort and search", 1, "rows_", {"topk_1": 17 * M, "median_1": 17 * M, "mode_1": 17 * M},
    topk_1=lambda lib, x: lambda: x.topk(10, 1),
    median_1=lambda lib, x: lambda: x.median(1),
    mode_1=lambda lib, x: lambda: x.mode(1),
)  # fmt: skip
def rows_to_sort(lib):
    lib.torch.manual_seed(0)
    return (lib.torch.randn(4096, 1024),)


# --- indexing ---------------------------------------------------------------------------------------------------------
@moving(
    "indexing", 1, "1e6_",
    {
        "take": 16 * M, "index": 16 * M, "index_put": 20 * M, "nonzero": 5 * M, "masked_select": 7 * M, "where": 5 * M,
        "gather": 16 * M, "scatter": 24 * M, "scatter_add": 24 * M, "index_add": 24 * M, "scatter_amax": 24 * M,
        "index_put_accumulate": 24 * M, "masked_fill": 9 * M, "masked_scatter": 11 * M,
        "repeat_interleave_4": 20 * M, "repeat_interleave_of_tensor": 24 * M,
    },
    take=lambda lib, x, at, mask: lambda: x.take(at),
    index=lambda lib, x, at, mask: lambda: x[at],
    index_put=lambda lib, x, at, mask: lambda: x.index_put((at,), x),
    index_put_accumulate=lambda lib, x, at, mask: lambda: x.index_put((at,), x, accumulate=True),
    index_add=lambda lib, x, at, mask: lambda: x.index_add(0, at, x),
    gather=lambda lib, x, at, mask: lambda: x.gather(0, at),
    scatter=lambda lib, x, at, mask: lambda: x.scatter(0, at, x),
    scatter_add=lambda lib, x, at, mask: lambda: x.scatter_add(0, at, x),
    scatter_amax=lambda lib, x, at, mask: lambda: x.scatter_reduce(0, at, x, "amax"),
    nonzero=lambda lib, x, at, mask: lambda: mask.nonzero(),
    where=lambda lib, x, at, mask: lambda: lib.torch.where(mask),
    masked_select=lambda lib, x, at, mask: lambda: x[mask],
    masked_fill=lambda lib, x, at, mask: lambda: x.masked_fill(mask, 0.0),
    masked_scatter=lambda lib, x, at, mask: lambda: x.masked_scatter(mask, x),
    repeat_interleave_4=lambda lib, x, at, mask: lambda: x.repeat_interleave(4),
    repeat_interleave_of_tensor=lambda lib, x, at, mask: lambda: x.repeat_interleave(at.remainder(3)),
)  # fmt: skip
def one_million_to_index(lib):
    lib.torch.manual_seed(0)
    x = lib.torch.randn(M)
    return x, lib.torch.randint(0, M, (M,)), x > 0


@moving(
    "indexing", 1, "rows_",
    {
        "gather_1": 67 * M, "gather_0": 67 * M, "scatter_1": 84 * M, "scatter_add_1": 84 * M, "scatter_0": 84 * M,
        "select_0": 34 * M, "select_1": 34 * M, "index_add_0": 50 * M, "index_add_1": 50 * M, "index_copy_1": 50 * M,
        "cat_0": 67 * M, "cat_1": 67 * M, "stack_2": 67 * M, "roll": 34 * M, "repeat_interleave_2": 50 * M,
        "embedding": 34 * M, "embedding_backward": 50 * M,
    },
    gather_1=lambda lib, x, i1, i0: lambda: x.gather(1, i1),
    gather_0=lambda lib, x, i1, i0: lambda: x.gather(0, i0),
    scatter_1=lambda lib, x, i1, i0: lambda: x.scatter(1, i1, x),
    scatter_add_1=lambda lib, x, i1, i0: lambda: x.scatter_add(1, i1, x),
    scatter_0=lambda lib, x, i1, i0: lambda: x.scatter(0, i0, x),
    select_0=lambda lib, x, i1, i0: lambda: x.index_select(0, i0[:, 0]),
    select_1=lambda lib, x, i1, i0: lambda: x.index_select(1, i1[0]),
    index_add_0=lambda lib, x, i1, i0: lambda: x.index_add(0, i0[:, 0], x),
    index_add_1=lambda lib, x, i1, i0: lambda: x.index_add(1, i1[0], x),
    index_copy_1=lambda lib, x, i1, i0: lambda: x.index_copy(1, i1[0], x),
    cat_0=lambda lib, x, i1, i0: lambda: lib.torch.cat([x, x]),
    cat_1=lambda lib, x, i1, i0: lambda: lib.torch.cat([x, x], 1),
    stack_2=lambda lib, x, i1, i0: lambda: lib.torch.stack([x, x], 2),
    roll=lambda lib, x, i1, i0: lambda: x.roll(100, 1),
    repeat_interleave_2=lambda lib, x, i1, i0: lambda: x.repeat_interleave(2, 1),
    embedding=lambda lib, x, i1, i0: lambda: lib.F.embedding(i0[0], x),
    embedding_backward=lambda lib, x, i1, i0: embedding_backward(lib, x, i0[:, 0]),
)  # fmt: skip
def rows_to_index(lib):
    torch = lib.torch
    torch.manual_seed(0)
    return torch.randn(4096, 1024), torch.randint(0, 1024, (4096, 1024)), torch.randint(0, 4096, (4096, 1024))


def embedding_backward(lib, table, at):
    table = table.clone().requires_grad_()
    g = lib.torch.ones(at.shape[0], table.shape[1])

    def step():
        table.grad = None
        lib.F.embedding(at, table).backward(g)

    return step


# --- casts and random -------------------------------------------------------------------------------------------------
KINDS = ["float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "uint8", "bool"]
SIZES = dict(zip(KINDS, [4, 8, 2, 2, 8, 4, 2, 1, 1], strict=True))


def casts(source):
    """One case per dtype that `source` is converted to."""

    def prepare(lib):
        lib.torch.manual_seed(0)
        x = lib.torch.rand(M) * 100
        return (x.to(getattr(lib.torch, source)),)

    def maker(to):
        def make(lib, x):
            dtype = getattr(lib.torch, to)
            return lambda: x.to(dtype)

        return make

    others = [to for to in KINDS if to != source]
    moved = {f"{source}_to_{to}": (SIZES[source] + SIZES[to]) * M for to in others}
    moving("casts", 1, "1e6_", moved, **{f"{source}_to_{to}": maker(to) for to in others})(prepare)


for kind in KINDS:
    casts(kind)


@moving(
    "random 1e6", 1, "1e6_",
    {"randint": 8 * M, "bernoulli": 8 * M, "exponential": 4 * M, "normal_f64": 8 * M, "uniform_f16": 2 * M},
    randint=lambda lib, x, p: lambda: lib.torch.randint(0, 1000, (M,)),
    bernoulli=lambda lib, x, p: lambda: lib.torch.bernoulli(p),
    exponential=lambda lib, x, p: lambda: x.exponential_(),
    normal_f64=lambda lib, x, p: lambda: lib.torch.randn(M, dtype=lib.torch.float64),
    uniform_f16=lambda lib, x, p: lambda: lib.torch.rand(M, dtype=lib.torch.float16),
    multinomial=lambda lib, x, p: lambda: lib.torch.multinomial(p, 1000),
)  # fmt: skip
def one_million_to_draw(lib):
    lib.torch.manual_seed(0)
    return lib.torch.empty(M), lib.torch.full((M,), 0.3)


# --- lookups of layers ------------------------------------------------------------------------------------------------
@moving(
    "lookups of layers", 1, "layer_", {},
    embedding_bag=lambda lib, table, at, image, grid: lambda: lib.F.embedding_bag(at, table),
    grid_sample=lambda lib, table, at, image, grid: lambda: lib.F.grid_sample(image, grid, align_corners=False),
    adaptive_max_pool=lambda lib, table, at, image, grid: lambda: lib.F.adaptive_max_pool2d(image, 7),
    adaptive_avg_pool=lambda lib, table, at, image, grid: lambda: lib.F.adaptive_avg_pool2d(image, 7),
    interpolate=lambda lib, table, at, image, grid: lambda: lib.F.interpolate(image, scale_factor=2, mode="bilinear"),
    one_hot=lambda lib, table, at, image, grid: lambda: lib.F.one_hot(at, 10000),
    pdist=lambda lib, table, at, image, grid: lambda: lib.F.pdist(table[:500]),
    cdist=lambda lib, table, at, image, grid: lambda: lib.torch.cdist(table[:500], table[:500]),
)  # fmt: skip
def lookups(lib):
    torch = lib.torch
    torch.manual_seed(0)
    image, grid = torch.randn(8, 16, 56, 56), torch.rand(8, 56, 56, 2) * 2 - 1
    return torch.randn(10000, 64), torch.randint(0, 10000, (64, 20)), image, grid


# --- scan and layout --------------------------------------------------------------------------------------------------
@moving(
    "scan and layout", 2, "1e7_", {"cumsum": 80 * M, "permute": 80 * M, "to_f64": 120 * M, "to_i64": 120 * M},
    cumsum=lambda lib, x: lambda: x.cumsum(0),
    cumprod=lambda lib, x: lambda: x.cumprod(0),
    permute=lambda lib, x: lambda: x.view(100, 1000, 100).permute(2, 0, 1).contiguous(),
)  # fmt: skip
@moving(
    "scan and layout", 1, "1e7_",
    {"clone": 80 * M, "to_f64": 120 * M, "to_i64": 120 * M, "to_f16": 60 * M, "to_bf16": 60 * M, "to_bool": 50 * M},
    clone=lambda lib, x: lambda: x.clone(),
    to_f64=lambda lib, x: lambda: x.double(),
    to_i64=lambda lib, x: lambda: x.long(),
    to_f16=lambda lib, x: lambda: x.half(),
    to_bf16=lambda lib, x: lambda: x.bfloat16(),
    to_bool=lambda lib, x: lambda: x.bool(),
)  # fmt: skip
def ten_million_to_move(lib):
    lib.torch.manual_seed(0)
    return (lib.torch.randn(10 * M),)


@moving(
    "scan and layout", 2, "square_", {"transpose": 32 * M},
    transpose=lambda lib, x: lambda: x.t().contiguous(),
)  # fmt: skip
@moving(
    "scan and layout", 1, "square_", {"cumsum_1": 32 * M, "cumsum_0": 32 * M, "flip": 32 * M, "tril": 32 * M},
    cumsum_1=lambda lib, x: lambda: x.cumsum(1),
    cumsum_0=lambda lib, x: lambda: x.cumsum(0),
    cummax_1=lambda lib, x: lambda: x.cummax(1),
    flip=lambda lib, x: lambda: x.flip(1),
    tril=lambda lib, x: lambda: x.tril(),
)  # fmt: skip
def square_to_move(lib):
    lib.torch.manual_seed(0)
    return (lib.torch.randn(2000, 2000),)
