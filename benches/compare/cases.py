"""The cases: what is run, on both libraries from the same text, and the ratio each must reach.

A case is a function of `lib` (the names a program would import) that prepares its data and returns the step to time.
`target` is how many times faster than PyTorch the step must be.
"""

CASES = {}


def case(group, target, name=None):
    def register(prepare):
        key = name or prepare.__name__
        assert key not in CASES, key
        CASES[key] = {"group": group, "target": target, "prepare": prepare}
        return prepare

    return register


def each(group, target, prefix, **makers):
    """One case per keyword: a function of (lib, data)."""

    def register(prepare):
        for key, make in makers.items():
            CASES[f"{prefix}{key}"] = {
                "group": group,
                "target": target,
                "prepare": lambda lib, make=make: make(lib, *prepare(lib)),
            }
        return prepare

    return register


# --- overhead: what one call costs beside the work --------------------------------------------------------------------
@case("overhead", 4)
def add_one_element(lib):
    a, b = lib.torch.ones(1), lib.torch.ones(1)
    return lambda: a + b


@case("overhead", 3.5)
def add_one_element_with_grad(lib):
    a, b = lib.torch.ones(1, requires_grad=True), lib.torch.ones(1)
    return lambda: a + b


@case("overhead", 4)
def mul_one_element(lib):
    a, b = lib.torch.ones(1), lib.torch.ones(1)
    return lambda: a * b


# The difference to the one above is what recording costs, two saved inputs and the release of the node included.
@case("overhead", 3.5)
def mul_one_element_with_grad(lib):
    a, b = lib.torch.ones(1, requires_grad=True), lib.torch.ones(1, requires_grad=True)
    return lambda: a * b


@case("overhead", 5)
def mul_one_element_backward(lib):
    x, w = lib.torch.tensor(2.0, requires_grad=True), lib.torch.tensor(3.0, requires_grad=True)
    return lambda: (x * w).backward()


@case("overhead", 4)
def chain_of_10000_forward_backward(lib):
    x, seed = lib.torch.ones(1, requires_grad=True), lib.torch.ones(1)

    def step():
        y = x
        for _ in range(10_000):
            y = y + 1
        y.backward(seed)

    return step


@case("overhead", 4)
def chain_of_1000000_forward_backward(lib):
    x = lib.torch.tensor(1.0, requires_grad=True)

    def step():
        y = x
        for _ in range(1_000_000):
            y = y * 1.0000001
        y.backward()

    return step


@case("overhead", 3)
def index_first(lib):
    x = lib.torch.ones(4, 4)
    return lambda: x[0]


@case("overhead", 3)
def view(lib):
    x = lib.torch.ones(4, 4)
    return lambda: x.view(2, 8)


@case("overhead", 5)
def scalar_chain_forward_backward(lib):
    x = lib.torch.tensor(0.5, requires_grad=True)

    def step():
        y = x
        for _ in range(5):
            y = (y * x).sin()
        x.grad = None
        y.backward()

    return step


@case("overhead", 4)
def mlp_8_16_1_sgd_step(lib):
    torch, nn = lib.torch, lib.nn
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    optimizer = lib.optim.SGD(model.parameters(), lr=0.01)
    x, y = torch.randn(32, 8), torch.randn(32, 1)

    def step():
        optimizer.zero_grad()
        lib.F.mse_loss(model(x), y).backward()
        optimizer.step()

    return step


@case("overhead", 10)
def adam_step_50_small_parameters(lib):
    torch = lib.torch
    parameters = [torch.randn(10, 10).requires_grad_() for _ in range(50)]
    for p in parameters:
        p.grad = torch.randn(10, 10)
    optimizer = lib.optim.Adam(parameters, lr=1e-3)
    return optimizer.step


# --- elementwise, each result fresh -----------------------------------------------------------------------------------
@each("elementwise 1e7", 2.5, "1e7_", add=lambda lib, a, b, c: lambda: a + b)
@each(
    "elementwise 1e7", 3, "1e7_",
    exp=lambda lib, a, b, c: lambda: lib.torch.exp(a),
    tanh=lambda lib, a, b, c: lambda: lib.torch.tanh(a),
    sigmoid=lambda lib, a, b, c: lambda: lib.torch.sigmoid(a),
    gelu=lambda lib, a, b, c: lambda: lib.F.gelu(a),
    relu=lambda lib, a, b, c: lambda: lib.torch.relu(a),
    where=lambda lib, a, b, c: lambda: lib.torch.where(c, a, b),
)  # fmt: skip
def ten_million(lib):
    lib.torch.manual_seed(0)
    a, b = lib.torch.randn(10_000_000), lib.torch.randn(10_000_000)
    return a, b, a > b


@each(
    "elementwise 1e6", 3, "1e6_",
    exp=lambda lib, a, b: lambda: lib.torch.exp(a),
    log=lambda lib, a, b: lambda: lib.torch.log(b),
    tanh=lambda lib, a, b: lambda: lib.torch.tanh(a),
)  # fmt: skip
@each(
    "elementwise 1e6", 1, "1e6_",
    add=lambda lib, a, b: lambda: a + b,
    relu=lambda lib, a, b: lambda: lib.torch.relu(a),
    clamp=lambda lib, a, b: lambda: lib.torch.clamp(a, -1, 1),
)  # fmt: skip
def one_million(lib):
    lib.torch.manual_seed(0)
    return lib.torch.randn(1_000_000), lib.torch.rand(1_000_000) + 0.1


# --- reductions and rowwise kernels -----------------------------------------------------------------------------------
@each(
    "reductions 1e7", 1, "1e7_",
    sum=lambda lib, x: lambda: x.sum(),
    mean=lambda lib, x: lambda: x.mean(),
    max=lambda lib, x: lambda: x.max(),
)  # fmt: skip
def ten_million_to_reduce(lib):
    lib.torch.manual_seed(0)
    return (lib.torch.randn(10_000_000),)


@each(
    "rowwise 4096 x 1024", 1, "rows_",
    softmax=lambda lib, x: lambda: lib.F.softmax(x, 1),
    log_softmax=lambda lib, x: lambda: lib.F.log_softmax(x, 1),
    layer_norm=lambda lib, x: lambda: lib.F.layer_norm(x, (1024,)),
)  # fmt: skip
@each(
    "along a dimension", 3, "rows_",
    argmax_1=lambda lib, x: lambda: x.argmax(1),
    argmax_0=lambda lib, x: lambda: x.argmax(0),
    std_1=lambda lib, x: lambda: x.std(1),
    std_0=lambda lib, x: lambda: x.std(0),
    max_1=lambda lib, x: lambda: x.max(1),
    max_0=lambda lib, x: lambda: x.max(0),
)  # fmt: skip
def rows(lib):
    lib.torch.manual_seed(0)
    return (lib.torch.randn(4096, 1024),)


# --- random numbers ---------------------------------------------------------------------------------------------------
@case("random 1e7", 5, "1e7_randn")
def randn(lib):
    return lambda: lib.torch.randn(10_000_000)


@case("random 1e7", 5, "1e7_rand")
def rand(lib):
    return lambda: lib.torch.rand(10_000_000)


@case("random 1e7", 10, "1e7_dropout")
def dropout(lib):
    x = lib.torch.ones(10_000_000)
    return lambda: lib.F.dropout(x, 0.5, True)


# --- matrix multiplication and convolution ----------------------------------------------------------------------------
def matmul(n):
    def prepare(lib):
        a, b = lib.torch.randn(n, n), lib.torch.randn(n, n)
        return lambda: a @ b

    return prepare


for _n in (256, 1024, 2048):
    case("matmul", 1, f"matmul_{_n}")(matmul(_n))


@case("convolution", 1)
def conv2d_64_56_forward(lib):
    x, w, b = lib.torch.randn(8, 64, 56, 56), lib.torch.randn(64, 64, 3, 3), lib.torch.randn(64)

    def step():
        with lib.torch.no_grad():
            return lib.F.conv2d(x, w, b, padding=1)

    return step


@case("convolution", 1)
def conv2d_64_56_forward_backward(lib):
    torch = lib.torch
    x, w, b = (torch.randn(*s).requires_grad_() for s in ((8, 64, 56, 56), (64, 64, 3, 3), (64,)))
    g = torch.randn(8, 64, 56, 56)

    def step():
        x.grad = w.grad = b.grad = None
        lib.F.conv2d(x, w, b, padding=1).backward(g)

    return step


@case("small layers", 3)
def max_pool2d_forward_backward(lib):
    x = lib.torch.randn(64, 6, 24, 24).requires_grad_()
    g = lib.torch.randn(64, 6, 12, 12)

    def step():
        x.grad = None
        lib.F.max_pool2d(x, 2).backward(g)

    return step


@case("small layers", 3)
def batch_norm_training(lib):
    torch = lib.torch
    layer = lib.nn.BatchNorm2d(32)
    x, g = torch.randn(64, 32, 28, 28).requires_grad_(), torch.randn(64, 32, 28, 28)

    def step():
        x.grad = layer.weight.grad = layer.bias.grad = None
        layer(x).backward(g)

    return step


@case("small layers", 3)
def lenet_convolutions_forward_backward(lib):
    torch = lib.torch
    first, second = lib.nn.Conv2d(1, 6, 5), lib.nn.Conv2d(6, 16, 5)
    x = torch.randn(64, 1, 28, 28)
    h = torch.randn(64, 6, 12, 12).requires_grad_()
    g1, g2 = torch.randn(64, 6, 24, 24), torch.randn(64, 16, 8, 8)

    def step():
        h.grad = None
        first(x).backward(g1)
        second(h).backward(g2)

    return step


# --- training steps ---------------------------------------------------------------------------------------------------
def classifier_step(lib, model, x, classes=10):
    y = lib.torch.arange(x.shape[0]) % classes
    optimizer = lib.optim.SGD(model.parameters(), lr=0.01)

    def step():
        optimizer.zero_grad()
        lib.F.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


@case("training step", 1)
def mlp_784_256_128_10_batch_128(lib):
    nn = lib.nn
    lib.torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))
    return classifier_step(lib, model, lib.torch.randn(128, 784))


@case("training step", 2)
def lenet5_batch_64(lib):
    nn = lib.nn
    lib.torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip
    return classifier_step(lib, model, lib.torch.randn(64, 1, 28, 28))


# More cases, which register themselves.
import cases_data  # noqa: E402, F401
import cases_reduce  # noqa: E402, F401
