"""The part of Module that moves parameters and buffers between dtypes and devices."""

from ... import _C


class ConvertMixin:
    """`to`, `cuda`, `cpu`, `float` and friends. They change the module in place and return it."""

    def _apply(self, fn, recurse=True):
        """Replaces the values of every parameter, gradient and buffer by ``fn`` of them."""
        if recurse:
            for module in self.children():
                module._apply(fn)
        for param in self._parameters.values():
            if param is None:
                continue
            grad = param.grad
            data = fn(param.data)
            if grad is not None:
                # A gradient must have its parameter's dtype at every moment, so it steps aside.
                param.grad = None
                param.data = data
                param.grad = fn(grad.detach()).requires_grad_(grad.requires_grad)
            else:
                param.data = data
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = fn(buffer)
        return self

    def to(self, *args, **kwargs):
        """Moves to a device and/or casts floating point parameters: ``to(device)``, ``to(dtype)``,
        ``to(device, dtype)``, ``to(tensor)``, ``memory_format=``.

        Integer parameters and buffers keep their dtype. TypeError if ``dtype`` is not floating or complex.

        >>> import pyrite as torch
        >>> torch.nn.Linear(2, 2).to(torch.float64).weight.dtype
        torch.float64
        """
        device, dtype, non_blocking, memory_format = _parse_to(args, dict(kwargs))
        if dtype is not None and not (dtype.is_floating_point or dtype.is_complex):
            raise TypeError(
                f"nn.Module.to only accepts floating point or complex dtypes, but got desired dtype={dtype}"
            )

        def convert(t):
            options = {}
            if device is not None:
                options["device"] = device
            if dtype is not None and (t.is_floating_point() or t.is_complex()):
                options["dtype"] = dtype
            if memory_format is not None and t.dim() in (4, 5):
                options["memory_format"] = memory_format
            if non_blocking:
                options["non_blocking"] = True
            return t.to(**options) if options else t

        return self._apply(convert)

    def to_empty(self, *, device, recurse=True):
        """Moves to ``device`` without copying values."""
        return self._apply(lambda t: _C.empty_like(t, device=device), recurse)

    def cuda(self, device=None):
        """Moves to a CUDA device."""
        return self._apply(lambda t: t.cuda() if device is None else t.cuda(device))

    def cpu(self):
        """Moves to the CPU."""
        return self._apply(lambda t: t.cpu())

    def type(self, dst_type):
        """Casts all parameters and buffers."""
        return self._apply(lambda t: t.type(dst_type))

    def float(self):
        """Casts floating point parameters and buffers to float32."""
        return self._cast(_C.float32)

    def double(self):
        """Casts floating point parameters and buffers to float64."""
        return self._cast(_C.float64)

    def half(self):
        """Casts floating point parameters and buffers to float16."""
        return self._cast(_C.float16)

    def bfloat16(self):
        """Casts floating point parameters and buffers to bfloat16."""
        return self._cast(_C.bfloat16)

    def _cast(self, dtype):
        return self._apply(lambda t: t.to(dtype) if t.is_floating_point() else t)

    def share_memory(self):
        """Moves parameters and buffers to shared memory."""
        return self._apply(lambda t: t.share_memory_())


def _parse_to(args, kwargs):
    device = kwargs.pop("device", None)
    dtype = kwargs.pop("dtype", None)
    non_blocking = kwargs.pop("non_blocking", False)
    memory_format = kwargs.pop("memory_format", None)
    other = kwargs.pop("tensor", kwargs.pop("other", None))
    if kwargs:
        raise TypeError(f"to() received an invalid keyword argument: {next(iter(kwargs))}")
    args = list(args)
    if args and isinstance(args[0], _C.Tensor):
        other = args.pop(0)
    elif args and isinstance(args[0], _C.dtype):
        dtype = args.pop(0)
    elif args:
        if args[0] is not None:
            device = args[0]
        args.pop(0)
        if args and (args[0] is None or isinstance(args[0], _C.dtype)):
            dtype = args.pop(0)
    if args:
        non_blocking = args.pop(0)
    if args:
        raise TypeError(f"to() received too many positional arguments: {args!r}")
    if other is not None:
        device, dtype = other.device, other.dtype
    if device is not None and not isinstance(device, _C.device):
        device = _C.device(device)
    return device, dtype, bool(non_blocking), memory_format
