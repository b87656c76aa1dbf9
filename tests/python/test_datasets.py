"""The embedded digits, IDX files whole and damaged, and a download that never leaves half a file."""

import collections
import gzip
import struct

import pytest
from subject import data, torch

pytestmark = pytest.mark.pyrite

from pyrite.datasets import MNIST, mnist, read_idx  # noqa: E402


def idx(code, shape, values):
    return struct.pack(f">2xBB{len(shape)}I", code, len(shape), *shape) + values


def test_the_embedded_digits():
    train, test = MNIST(), MNIST(train=False)
    assert (len(train), len(test)) == (9000, 1000)
    assert train.data.shape == (9000, 28, 28) and train.data.dtype == torch.uint8
    assert sorted(set(train.targets.tolist())) == list(range(10))
    counts = collections.Counter(test.targets.tolist())
    assert len(counts) == 10 and min(counts.values()) > 60
    image, label = train[5]
    assert image.shape == (1, 28, 28) and image.dtype == torch.float32 and isinstance(label, int)
    assert image.min().item() == 0 and 0.9 < image.max().item() <= 1
    assert 0.12 < train.data.float().mean().item() / 255 < 0.14
    assert "9000" in repr(train)


def test_batches_equal_samples():
    digits = MNIST(train=False)
    images, labels = next(iter(data.DataLoader(digits, batch_size=7)))
    assert images.shape == (7, 1, 28, 28) and labels.dtype == torch.int64
    for i in range(7):
        assert images[i].tolist() == digits[i][0].tolist() and labels[i].item() == digits[i][1]


def test_transforms():
    digits = MNIST(transform=lambda x: x.flatten() - 1, target_transform=lambda y: y + 100)
    images, labels = next(iter(data.DataLoader(digits, batch_size=3)))
    assert images.shape == (3, 784) and images.min().item() == -1 and labels.min().item() >= 100


@pytest.mark.parametrize(
    "code, dtype, pack, values",
    [
        (0x08, "uint8", ">6B", [0, 1, 2, 3, 4, 255]),
        (0x09, "int8", ">6b", [0, -1, 2, 3, 4, -128]),
        (0x0B, "int16", ">6h", [0, 1, -2, 3, 4, 30000]),
        (0x0C, "int32", ">6i", [0, 1, -2, 3, 4, 2**31 - 1]),
        (0x0D, "float32", ">6f", [0, 1.5, -2, 3, 4, 1e30]),
        (0x0E, "float64", ">6d", [0, 1.5, -2, 3, 4, 1e300]),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_idx(tmp_path, code, dtype, pack, values, packed):
    content = idx(code, (2, 3), struct.pack(pack, *values))
    path = tmp_path / "f"
    path.write_bytes(gzip.compress(content) if packed else content)
    t = read_idx(path)
    assert t.dtype == getattr(torch, dtype) and t.shape == (2, 3)
    assert t.flatten().tolist() == pytest.approx(values, rel=1e-6)


def test_damaged_idx(tmp_path):
    whole = idx(0x08, (3, 4), bytes(range(12)))
    path = tmp_path / "digits"
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="digits"):
            read_idx(path)
    packed = gzip.compress(whole)
    for cut in range(len(packed)):
        path.write_bytes(packed[:cut])
        with pytest.raises(ValueError, match="digits"):
            read_idx(path)
    for i in range(10, len(packed)):
        broken = bytearray(packed)
        broken[i] ^= 0x10
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="digits"):
            read_idx(path)
    for bad in (whole + b"x", b"PK" + whole[2:], idx(0x07, (1,), b"0"), idx(0x08, (2**32 - 1, 2**32 - 1), b"0")):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match="digits"):
            read_idx(path)
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="2 dimensions"):
        read_idx(path, ndim=3)
    assert read_idx(path).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="download=True"):
        MNIST(tmp_path)
    with pytest.raises(ValueError, match="root"):
        MNIST(download=True)


def test_counts_must_agree(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(idx(8, (2, 28, 28), bytes(2 * 784)))
    (raw / "train-labels-idx1-ubyte").write_bytes(idx(8, (3,), b"abc"))
    with pytest.raises(ValueError, match="2 images but 3 labels"):
        MNIST(tmp_path)


def test_a_failed_download_leaves_nothing(tmp_path, monkeypatch):
    served = tmp_path / "server"
    served.mkdir()
    (served / "train-images-idx3-ubyte.gz").write_bytes(b"not the digits")
    monkeypatch.setattr(mnist, "_MIRRORS", (served.as_uri() + "/", (tmp_path / "nowhere").as_uri() + "/"))
    with pytest.raises(RuntimeError, match="wrong checksum"):
        MNIST(tmp_path / "root", download=True)
    assert list((tmp_path / "root" / "MNIST" / "raw").iterdir()) == []


def test_download(tmp_path, monkeypatch):
    import hashlib

    served = tmp_path / "server"
    served.mkdir()
    sums = {}
    for name in mnist._MD5:
        shape, body = ((4, 28, 28), bytes(4 * 784)) if "images" in name else ((4,), b"\1\2\3\4")
        content = gzip.compress(idx(8, shape, body))
        (served / f"{name}.gz").write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
    monkeypatch.setattr(mnist, "_MIRRORS", (served.as_uri() + "/",))
    monkeypatch.setattr(mnist, "_MD5", sums)
    digits = MNIST(tmp_path / "root", train=False, download=True)
    assert len(digits) == 4 and digits.targets.tolist() == [1, 2, 3, 4]
    assert len(MNIST(tmp_path / "root", download=True)) == 4
