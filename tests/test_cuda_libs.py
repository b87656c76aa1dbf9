"""Finding the folders of NVIDIA's pip packages."""

import pytest

pytestmark = pytest.mark.pyrite


def test_folders_with_libraries_are_found_newest_layout_first(tmp_path):
    from pyrite._cuda_libs import library_dirs

    for package, name in [("cublas", "libcublas.so.12"), ("cu13", "libcublas.so.13"), ("empty", "readme.txt")]:
        folder = tmp_path / "nvidia" / package / "lib"
        folder.mkdir(parents=True)
        (folder / name).touch()
    found = library_dirs([str(tmp_path), str(tmp_path / "missing"), str(tmp_path)])
    assert found == [str(tmp_path / "nvidia" / "cu13" / "lib"), str(tmp_path / "nvidia" / "cublas" / "lib")]
