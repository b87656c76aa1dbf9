"""Finds the folders of NVIDIA's pip packages (``nvidia-cublas``, ``nvidia-cuda-nvrtc``, ...).

Their libraries are not on the dynamic loader's path; the core opens them by full path. Nothing is
imported or opened here, so it costs a few directory listings, at first use of CUDA only.
"""

import os
import sys


def library_dirs(paths=None):
    """Folders below ``nvidia`` in site-packages that hold shared libraries, in the order of ``sys.path``.

    >>> isinstance(library_dirs(), list)
    True
    """
    found = []
    for base in sys.path if paths is None else paths:
        root = os.path.join(base or os.curdir, "nvidia")
        try:
            packages = sorted(os.listdir(root))
        except OSError:
            continue
        for package in packages:
            folder = os.path.join(root, package, "lib")
            try:
                names = os.listdir(folder)
            except OSError:
                continue
            if folder not in found and any(".so" in name for name in names):
                found.append(folder)
    # Newer packages share one folder per CUDA version (cu13); it goes before the single ones.
    found.sort(key=lambda folder: not os.path.basename(os.path.dirname(folder)).startswith("cu1"))
    return found
