"""Random state: seeds, states, and `fork_rng`."""

from . import _C

manual_seed = _C.manual_seed
seed = _C.seed
initial_seed = _C.initial_seed
get_rng_state = _C.get_rng_state
set_rng_state = _C.set_rng_state

__all__ = ["fork_rng", "get_rng_state", "initial_seed", "manual_seed", "seed", "set_rng_state"]


class fork_rng:
    """Restores the random state at the end of the block, so that code inside leaves no trace.

    ``devices`` names CUDA devices whose state is kept too (default: all, if there are any).

    >>> import pyrite as torch
    >>> _ = torch.manual_seed(1)
    >>> with torch.random.fork_rng():
    ...     _ = torch.rand(1)
    >>> a = torch.rand(1); _ = torch.manual_seed(1); bool((a == torch.rand(1)).all())
    True
    """

    def __init__(self, devices=None, enabled=True, device_type="cuda"):
        if device_type not in ("cuda", "cpu"):
            raise RuntimeError(f"fork_rng: device_type {device_type!r} is not supported")
        self.enabled = enabled
        self.devices = devices
        self.device_type = device_type

    def __enter__(self):
        if not self.enabled:
            return
        self.state = get_rng_state()
        self.cuda_states = {}
        if self.device_type == "cuda":
            from . import cuda

            devices = range(cuda.device_count()) if self.devices is None else self.devices
            self.cuda_states = {d: cuda.get_rng_state(d) for d in devices}

    def __exit__(self, *exc):
        if not self.enabled:
            return
        set_rng_state(self.state)
        if self.cuda_states:
            from . import cuda

            for d, state in self.cuda_states.items():
                cuda.set_rng_state(state, d)
