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
    "sort and search", 1, "1e6_", {"topk_10": 4 * M, "median": 4 * M, "kthvalue": 4 * M, "isin_100": 9 * M},
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
    "sort and search", 1, "rows_", {"topk_1": 16 * M, "median_1": 16 * M},
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
    {"take": 16 * M, "index": 16 * M, "index_put": 20 * M, "nonzero": 5 * M, "masked_select": 7 * M, "where": 5 * M},
    take=lambda lib, x, at, mask: lambda: x.take(at),
    index=lambda lib, x, at, mask: lambda: x[at],
    index_put=lambda lib, x, at, mask: lambda: x.index_put((at,), x),
    index_put_accumulate=lambda lib, x, at, mask: lambda: x.index_put((at,), x, accumulate=True),
    index_add=lambda lib, x, at, mask: lambda: x.index_add(0, at, x),
    scatter_amax=lambda lib, x, at, mask: lambda: x.scatter_reduce(0, at, x, "amax"),
    nonzero=lambda lib, x, at, mask: lambda: mask.nonzero(),
    where=lambda lib, x, at, mask: lambda: lib.torch.where(mask),
    masked_select=lambda lib, x, at, mask: lambda: x[mask],
)  # fmt: skip
def one_million_to_index(lib):
    lib.torch.manual_seed(0)
    x = lib.torch.randn(M)
    return x, lib.torch.randint(0, M, (M,)), x > 0


@moving(
    "indexing", 1, "rows_",
    {"gather_1": 67 * M, "gather_0": 67 * M, "scatter_1": 67 * M, "select_0": 34 * M, "select_1": 34 * M, "cat_0": 67 * M, "cat_1": 67 * M},
    gather_1=lambda lib, x, i1, i0: lambda: x.gather(1, i1),
    gather_0=lambda lib, x, i1, i0: lambda: x.gather(0, i0),
    scatter_1=lambda lib, x, i1, i0: lambda: x.scatter(1, i1, x),
    scatter_add_1=lambda lib, x, i1, i0: lambda: x.scatter_add(1, i1, x),
    select_0=lambda lib, x, i1, i0: lambda: x.index_select(0, i0[:, 0]),
    select_1=lambda lib, x, i1, i0: lambda: x.index_select(1, i1[0]),
    index_add_0=lambda lib, x, i1, i0: lambda: x.index_add(0, i0[:, 0], x),
    cat_0=lambda lib, x, i1, i0: lambda: lib.torch.cat([x, x]),
    cat_1=lambda lib, x, i1, i0: lambda: lib.torch.cat([x, x], 1),
)  # fmt: skip
def rows_to_index(lib):
    torch = lib.torch
    torch.manual_seed(0)
    return torch.randn(4096, 1024), torch.randint(0, 1024, (4096, 1024)), torch.randint(0, 4096, (4096, 1024))


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
