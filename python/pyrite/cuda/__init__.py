"""CUDA devices: what is there, memory statistics, synchronisation. Importing this starts nothing.

The work is done by the core's ``_cuda_*`` functions; where one is missing or there is no driver, the call says so.
"""

from .. import _C

OutOfMemoryError = getattr(_C, "OutOfMemoryError", MemoryError)


def _core(name):
    function = getattr(_C, "_cuda_" + name, None)
    if function is None:
        raise RuntimeError(f"pyrite.cuda.{name}: this build of Pyrite has no CUDA support for it")
    return function


def _index(device):
    if device is None:
        return current_device()
    if isinstance(device, int):
        return device
    device = device if isinstance(device, _C.device) else _C.device(device)
    if device.type != "cuda":
        raise ValueError(f"Expected a cuda device, but got: {device}")
    return current_device() if device.index is None else device.index


def is_available():
    """True if there is a usable NVIDIA GPU; never raises.

    >>> import pyrite as torch
    >>> isinstance(torch.cuda.is_available(), bool)
    True
    """
    function = getattr(_C, "_cuda_is_available", None)
    return bool(function()) if function is not None else False


def device_count():
    """The number of usable GPUs; 0 without a driver."""
    function = getattr(_C, "_cuda_device_count", None)
    if function is None:
        return int(is_available())
    try:
        return int(function())
    except RuntimeError:
        return 0


def is_initialized():
    """True if this process has used CUDA."""
    function = getattr(_C, "_cuda_is_initialized", None)
    return bool(function()) if function is not None else False


def init():
    """Starts CUDA now instead of at first use; RuntimeError that says what is missing where it can't."""
    _core("init")()


def current_device():
    """Index of the device that ``'cuda'`` means."""
    function = getattr(_C, "_cuda_current_device", None)
    return 0 if function is None else int(function())  # without device switching 'cuda' is the first GPU


def set_device(device):
    """Changes what ``'cuda'`` means."""
    index = _index(device)
    if index >= 0:
        _core("set_device")(index)


class device:
    """Context manager: ``'cuda'`` means this device inside."""

    def __init__(self, device):
        self.idx = _index(device)

    def __enter__(self):
        self.prev = current_device()
        set_device(self.idx)

    def __exit__(self, *exc):
        set_device(self.prev)


def synchronize(device=None):
    """Waits until the device has finished all work given to it."""
    _core("synchronize")(_index(device))


def get_device_name(device=None):
    """The device's name."""
    return _core("device_properties")(_index(device))["name"]


def get_device_capability(device=None):
    """The compute capability, such as (9, 0)."""
    found = _core("device_properties")(_index(device))
    return found["major"], found["minor"]


def get_device_properties(device=None):
    """Name, capability and memory of a device."""
    from types import SimpleNamespace

    return SimpleNamespace(**_core("device_properties")(_index(device)))


def is_bf16_supported(including_emulation=True):
    """True if the device computes in bfloat16."""
    return is_available() and (including_emulation or get_device_capability()[0] >= 8)


def mem_get_info(device=None):
    """Free and total bytes of a device."""
    return tuple(_core("mem_get_info")(_index(device)))


def memory_stats(device=None):
    """The caching allocator's counters, by name."""
    return dict(_C.memory_stats(_C.device("cuda", _index(device))))


def memory_allocated(device=None):
    """Bytes in tensors now."""
    return memory_stats(device)["allocated_bytes.all.current"]


def max_memory_allocated(device=None):
    """Most bytes in tensors since the start or :func:`reset_peak_memory_stats`."""
    return memory_stats(device)["allocated_bytes.all.peak"]


def memory_reserved(device=None):
    """Bytes that the allocator holds now."""
    return memory_stats(device)["reserved_bytes.all.current"]


def max_memory_reserved(device=None):
    """Most bytes that the allocator has held."""
    return memory_stats(device)["reserved_bytes.all.peak"]


def reset_peak_memory_stats(device=None):
    """Peaks start again from now."""
    _C.reset_peak_memory_stats(_C.device("cuda", _index(device)))


reset_max_memory_allocated = reset_peak_memory_stats


def empty_cache():
    """Returns memory that no tensor uses to the driver."""
    if is_available():
        _C.empty_cache(_C.device("cuda", current_device()))


def manual_seed(seed):
    """Seeds the random numbers of the current device; remembered until CUDA is used."""
    if is_available():
        _core("manual_seed")(int(seed), current_device())


def manual_seed_all(seed):
    """Seeds the random numbers of all devices."""
    for i in range(device_count()):
        _core("manual_seed")(int(seed), i)


def get_rng_state(device="cuda"):
    """The random state of a device."""
    return _core("get_rng_state")(_index(device))


def set_rng_state(new_state, device="cuda"):
    """Restores a random state."""
    _core("set_rng_state")(new_state, _index(device))


def warmup(*args, **kwargs):
    """Compiles kernels ahead of their first use."""
    return _core("warmup")(*args, **kwargs)


def memory_summary(device=None, abbreviated=False):
    """The allocator's counters as a table."""
    rows = [f"{name:40s} {value:>18,d}" for name, value in memory_stats(device).items()]
    return "\n".join(rows[:4] if abbreviated else rows)
