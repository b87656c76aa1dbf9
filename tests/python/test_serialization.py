"""save and load: round trips, atomic writes, damaged and hostile files, and the same files in PyTorch."""

import collections
import copy
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from subject import nn, optim, torch

pytestmark = pytest.mark.pyrite

from pyrite import serialization  # noqa: E402

CheckpointError = serialization.CheckpointError


def through(obj, **options):
    f = io.BytesIO()
    torch.save(obj, f)
    f.seek(0)
    return torch.load(f, **options)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return (
            type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and a.stride() == b.stride()
            and a.requires_grad == b.requires_grad and a.tolist() == b.tolist()
        )  # fmt: skip
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def sample():
    base = torch.arange(12.0)
    return collections.OrderedDict(
        p=nn.Parameter(torch.ones(2, 3)),
        t=torch.arange(6).reshape(2, 3).t(),
        view=base[3:9:2],
        zero=torch.tensor(2.5, dtype=torch.float64),
        empty=torch.ones(0, 3),
        flag=torch.tensor([True, False]),
        plain={"n": None, "l": [1, 2.5, "x", b"y", 10**30], "t": (1, (2,)), "s": {1, 2}},
        dtype=torch.float32,
        size=torch.Size([2, 3]),
        device=torch.device("cpu"),
    )


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_round_trip(protocol):
    f = io.BytesIO()
    torch.save(sample(), f, pickle_protocol=protocol)
    f.seek(0)
    assert same(sample(), torch.load(f))


@pytest.mark.parametrize(
    "name", ["float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool"]
)
def test_dtypes(name):
    x = torch.arange(5).to(getattr(torch, name))
    y = through(x)
    assert y.dtype == x.dtype and y.to(torch.int64).tolist() == x.to(torch.int64).tolist()


def test_shared_memory_stays_shared():
    a = torch.arange(6.0)
    b = through({"a": a, "same": a, "part": a[2:4]})
    b["a"].fill_(7)
    assert b["same"].tolist() == [7] * 6 and b["part"].tolist() == [7, 7]


def test_models_and_optimizers(tmp_path):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    opt = optim.Adam(net.parameters())
    net(torch.randn(3, 1, 4, 4)).sum().backward()
    opt.step()
    path = tmp_path / "c.pt"
    torch.save({"net": net.state_dict(), "opt": opt.state_dict(), "whole": net}, path)
    saved = torch.load(path)
    twin = copy.deepcopy(net)
    twin.load_state_dict(saved["net"])
    other = optim.Adam(twin.parameters())
    other.load_state_dict(saved["opt"])
    assert same(opt.state_dict(), other.state_dict())
    net.eval()
    saved["whole"].eval()
    x = torch.randn(2, 1, 4, 4)
    assert net(x).tolist() == saved["whole"](x).tolist()


def test_map_location():
    x = {"w": torch.ones(2)}
    for where in ("cpu", torch.device("cpu"), {"cuda:0": "cpu"}, lambda t, loc: t, lambda t, loc: None):
        assert through(x, map_location=where)["w"].tolist() == [1, 1]


# --- writing ---------------------------------------------------------------------------------------------------------
def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    torch.save([1], path)
    with pytest.raises(Exception, match=r"(?i)pickle|local"):
        torch.save([torch.ones(3), lambda: 0], path)
    assert torch.load(path) == [1] and os.listdir(tmp_path) == ["c.pt"]

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(serialization.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        torch.save([2], path)
    assert torch.load(path) == [1] and os.listdir(tmp_path) == ["c.pt"]


def test_paths(tmp_path):
    torch.save(1, str(tmp_path / "a"))
    os.symlink(tmp_path / "a", tmp_path / "link")
    torch.save(2, tmp_path / "link")
    assert torch.load(tmp_path / "a") == 2 and (tmp_path / "link").is_symlink()
    with pytest.raises(RuntimeError, match="does not exist"):
        torch.save(1, tmp_path / "no" / "a")
    with pytest.raises(FileNotFoundError):
        torch.load(tmp_path / "none")
    for f in (tmp_path / "a",):
        mode = 0o640
        f.chmod(mode)
        torch.save(3, f)
        assert f.stat().st_mode & 0o777 == mode


def test_values_are_aligned(tmp_path):
    torch.save({"a": torch.ones(3), "b": torch.ones(5)}, tmp_path / "c.pt")
    raw = (tmp_path / "c.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "c.pt") as z:
        for info in z.infolist():
            n, extra = struct.unpack("<HH", raw[info.header_offset + 26 : info.header_offset + 30])
            if "/data/" in info.filename:
                assert (info.header_offset + 30 + n + extra) % 64 == 0


# --- damaged and hostile files ---------------------------------------------------------------------------------------
def test_every_flipped_bit_is_noticed_or_harmless():
    x = {"a": torch.arange(5.0), "b": [1, "two"]}
    f = io.BytesIO()
    torch.save(x, f)
    raw = f.getvalue()
    noticed = 0
    for i in range(len(raw)):
        broken = bytearray(raw)
        broken[i] ^= 1 << (i % 8)
        try:
            assert same(torch.load(io.BytesIO(bytes(broken))), x), i
        except (CheckpointError, NotImplementedError):
            noticed += 1
    assert noticed > 300


def test_cut_files():
    f = io.BytesIO()
    torch.save({"a": torch.arange(5.0)}, f)
    raw = f.getvalue()
    for n in range(0, len(raw), 3):
        with pytest.raises(CheckpointError):
            torch.load(io.BytesIO(raw[:n]))


def archive(data, entries=()):
    f = io.BytesIO()
    with zipfile.ZipFile(f, "w") as z:
        z.writestr("x/data.pkl", data)
        for name, content in entries:
            z.writestr(f"x/{name}", content)
    f.seek(0)
    return f


class Evil:
    def __init__(self, what):
        self.what = what

    def __reduce__(self):
        return self.what


HOSTILE = {
    "system": pickle.dumps(Evil((os.system, ("true",)))),
    "eval": pickle.dumps(Evil((eval, ("1",)))),
    "getattr": pickle.dumps(Evil((getattr, ("a", "upper")))),
    "patch a class": b"cpyrite.nn.modules.linear\nLinear\n}X\x07\x00\x00\x00forwardNsb.",
    "patch a function": b"ctorch._utils\n_rebuild_tensor_v2\n(N}X\x0c\x00\x00\x00__defaults__NstbN.",
    "a function of ours": b"cpyrite.serialization\nsave\n)R.",
    "inside a layer's module": b"cpyrite.nn.modules.linear\nmath\n.",
    "inst": b"(ios\nsystem\n.",
    "empty": b"",
    "no stop": b"\x80\x02N",
    "underflow": b"\x80\x02R.",
    "number as storage": b"\x80\x02K\x01Q.",
    "path as key": pickle.dumps(1)[:0]
    + b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x04\x00\x00\x00../aX\x03\x00\x00\x00cpuK\x01tQ.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles(name):
    with pytest.raises(CheckpointError):
        torch.load(archive(HOSTILE[name]))
    with pytest.raises(CheckpointError):
        torch.load(archive(HOSTILE[name]), weights_only=False)


def tensor_pickle(offset, size, stride, count):
    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + pickle.dumps(count, 2)[2:-1] + b"tQ"
        + b"".join(pickle.dumps(v, 2)[2:-1].replace(b"q\x00", b"") for v in (offset, size, stride)) + b"\x89)tR."
    )  # fmt: skip


def test_layouts_outside_the_storage():
    data = [("data/0", struct.pack("<4f", 1, 2, 3, 4))]
    assert torch.load(archive(tensor_pickle(0, (2, 2), (2, 1), 4), data)).tolist() == [[1, 2], [3, 4]]
    assert torch.load(archive(tensor_pickle(0, (2, 2), (1, 2), 4), data)).tolist() == [[1, 3], [2, 4]]
    for bad in (
        tensor_pickle(1, (2, 2), (2, 1), 4),
        tensor_pickle(0, (2, 3), (3, 1), 4),
        tensor_pickle(-1, (2,), (1,), 4),
        tensor_pickle(3, (2,), (-1,), 4),
        tensor_pickle(0, (2, 2), (1,), 4),
        tensor_pickle(0, (2**62, 4), (1, 1), 4),
        tensor_pickle(0, (5,), (0,), 5),
    ):
        with pytest.raises(CheckpointError):
            torch.load(archive(bad, data))
    with pytest.raises(CheckpointError, match="no entry data/0"):
        torch.load(archive(tensor_pickle(0, (2,), (1,), 4)))


class Config:
    def __init__(self, n):
        self.n = n


def test_safe_globals():
    f = io.BytesIO()
    torch.save(Config(3), f)
    f.seek(0)
    with pytest.raises(CheckpointError, match=r"add_safe_globals\(\[Config\]\)"):
        torch.load(f)
    serialization.add_safe_globals([Config])
    try:
        f.seek(0)
        assert torch.load(f).n == 3
    finally:
        serialization.clear_safe_globals()


def test_other_files(tmp_path):
    for content in (b"", b"hello", pickle.dumps([1])):
        with pytest.raises(CheckpointError):
            torch.load(io.BytesIO(content))
    with pytest.raises(CheckpointError, match=r"data\.pkl"):
        f = io.BytesIO()
        zipfile.ZipFile(f, "w").close()
        f.seek(0)
        torch.load(f)
    with pytest.raises(NotImplementedError):
        torch.load(io.BytesIO(), mmap=True)


# --- the same files in PyTorch ---------------------------------------------------------------------------------------
@pytest.mark.torch
def test_exchange_with_torch(tmp_path):
    reference = pytest.importorskip("torch")
    ours = {k: v for k, v in sample().items() if k != "plain"}
    torch.save(ours, tmp_path / "ours.pt")
    theirs = reference.load(tmp_path / "ours.pt")
    for k, v in ours.items():
        if isinstance(v, torch.Tensor):
            assert theirs[k].tolist() == v.tolist() and theirs[k].stride() == tuple(v.stride())
    assert type(theirs["p"]) is reference.nn.Parameter and theirs["dtype"] is reference.float32
    net = reference.nn.Sequential(reference.nn.Linear(3, 2), reference.nn.BatchNorm1d(2)).bfloat16()
    reference.save(net.state_dict(), tmp_path / "theirs.pt")
    read = torch.load(tmp_path / "theirs.pt")
    mine = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).to(torch.bfloat16)
    mine.load_state_dict(read)
    for k, v in net.state_dict().items():
        np.testing.assert_array_equal(read[k].float().numpy(), v.float().numpy())
