"""MNIST: 28 x 28 grey handwritten digits (LeCun, Cortes and Burges 1998)."""

import os

from .. import _C
from ..utils.data.dataset import Dataset
from .idx import read_idx

_EMBEDDED = os.path.join(os.path.dirname(__file__), "_mnist10k")
_NAMES = {
    True: ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    False: ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)
_MD5 = {
    "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
}


class MNIST(Dataset):
    """Handwritten digits: samples are ``(image, label)``, a float32 tensor (1, 28, 28) in [0, 1] and an int.

    Args:
        root: folder of the full set (60,000 and 10,000 digits) as ``root/MNIST/raw/*-ubyte[.gz]``. None
            (default): the digits that travel with Pyrite, 9,000 for training and 1,000 for testing, from the first
            10,000 of MNIST. They need no network.
        train: the training or the test digits.
        transform: applied to the image, target_transform: applied to the label.
        download: fetch the full set into ``root`` if it is not there; checked by checksum.

    ``data`` (N, 28, 28) uint8 and ``targets`` (N,) int64 are all digits at once. A loader without transforms
    takes a batch by one indexing operation.

    >>> import pyrite as torch
    >>> digits = torch.datasets.MNIST()
    >>> len(digits), digits[0][0].shape, digits[0][1]
    (9000, torch.Size([1, 28, 28]), 9)
    """

    classes = [
        "0 - zero", "1 - one", "2 - two", "3 - three", "4 - four", "5 - five", "6 - six", "7 - seven", "8 - eight",
        "9 - nine",
    ]  # fmt: skip

    def __init__(self, root=None, train=True, transform=None, target_transform=None, download=False):
        self.root = root if root is None else os.path.expanduser(os.fspath(root))
        self.train = bool(train)
        self.transform = transform
        self.target_transform = target_transform
        if root is None:
            if download:
                raise ValueError("MNIST: download=True needs a root folder to download the full set into")
            folder = _EMBEDDED
        else:
            folder = self.raw_folder
            if download:
                self.download()
        images, labels = (read_idx(self._find(folder, n), d) for n, d in zip(_NAMES[self.train], (3, 1)))
        if images.shape[0] != labels.shape[0]:
            raise ValueError(
                f"MNIST: {folder} holds {images.shape[0]} images but {labels.shape[0]} labels; fetch the files again"
            )
        self.data = images
        self.targets = labels.to(_C.int64)

    @property
    def raw_folder(self):
        """Where the files of the full set lie."""
        return os.path.join(self.root, "MNIST", "raw")

    @property
    def class_to_idx(self):
        """Class names to labels."""
        return {name: i for i, name in enumerate(self.classes)}

    @staticmethod
    def _find(folder, name):
        for path in (os.path.join(folder, name), os.path.join(folder, name + ".gz")):
            if os.path.isfile(path):
                return path
        raise FileNotFoundError(f"MNIST: {name}[.gz] not found in {folder}. Use download=True to fetch it.")

    def __len__(self):
        return self.targets.shape[0]

    def __getitem__(self, index):
        image = self.data[index].unsqueeze(0).to(_C.float32).div_(255)
        label = int(self.targets[index])
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            label = self.target_transform(label)
        return image, label

    @property
    def __getbatch__(self):
        if self.transform is not None or self.target_transform is not None:
            raise AttributeError("MNIST with transforms is read sample by sample")
        return self._batch

    def _batch(self, indices):
        index = _C.tensor(indices, dtype=_C.int64)
        images = self.data.index_select(0, index).unsqueeze(1).to(_C.float32).div_(255)
        return [images, self.targets.index_select(0, index)]

    def __repr__(self):
        where = "embedded" if self.root is None else self.root
        return (
            f"Dataset MNIST\n    Number of datapoints: {len(self)}\n    Root location: {where}\n"
            f"    Split: {'Train' if self.train else 'Test'}"
        )

    def download(self):
        """Fetches the files that are missing. RuntimeError if no mirror answers with the right content."""
        os.makedirs(self.raw_folder, exist_ok=True)
        for names in _NAMES.values():
            for name in names:
                try:
                    self._find(self.raw_folder, name)
                except FileNotFoundError:
                    _fetch(name, self.raw_folder)


def _fetch(name, folder):
    """Downloads one file to a temporary name, checks it, and only then gives it its own name."""
    import hashlib
    import tempfile
    import urllib.error
    import urllib.request

    failures = []
    for mirror in _MIRRORS:
        url = f"{mirror}{name}.gz"
        fd, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name}-")
        try:
            digest = hashlib.md5(usedforsecurity=False)
            with os.fdopen(fd, "wb") as out, urllib.request.urlopen(url, timeout=30) as answer:
                while piece := answer.read(1 << 16):
                    digest.update(piece)
                    out.write(piece)
            if digest.hexdigest() != _MD5[name]:
                failures.append(f"{url}: wrong checksum")
                continue
            os.replace(temporary, os.path.join(folder, name + ".gz"))
            return
        except (urllib.error.URLError, OSError) as error:
            failures.append(f"{url}: {error}")
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
    raise RuntimeError(f"MNIST: could not download {name}: " + "; ".join(failures))
