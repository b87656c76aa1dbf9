"""Documentation is executed: README, docs/*.md, the examples' docstrings and every docstring of the package."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from subject import IS_PYRITE, torch

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def blocks(page):
    """The ```python blocks of a page with their line numbers; ```python-error ones must raise."""
    text = page.read_text()
    for match in re.finditer(r"^```(python(?:-error)?)\n(.*?)^```", text, re.M | re.S):
        yield match.group(1), match.group(2), text[: match.start()].count("\n") + 2


BLOCKS = [
    pytest.param(page, kind, code, line, id=f"{page.name}:{line}")
    for page in PAGES
    if page.exists()
    for kind, code, line in blocks(page)
]


@pytest.mark.pyrite
@pytest.mark.parametrize("page, kind, code, line", BLOCKS)
def test_page(page, kind, code, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    compiled = compile("\n" * (line - 1) + code, str(page), "exec")
    scope = {"__name__": "__docs__"}
    if kind == "python-error":
        with pytest.raises(Exception):  # noqa: B017
            exec(compiled, scope)
    else:
        exec(compiled, scope)


def modules():
    if not IS_PYRITE:
        return []
    names = [m.name for m in pkgutil.walk_packages(torch.__path__, "pyrite.") if not m.name.endswith("._C")]
    return ["pyrite", *names]


@pytest.mark.pyrite
@pytest.mark.parametrize("name", modules())
def test_python_docstrings(name):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, extraglobs={"torch": torch}, optionflags=FLAGS)
    assert not failed


def compiled_docstrings():
    owners = (torch._C, torch.Tensor) if IS_PYRITE else ()
    documented = [(o, n, getattr(getattr(o, n), "__doc__", None)) for o in owners for n in dir(o)]
    return [
        pytest.param(doc, id=f"{owner.__name__}.{name}")
        for owner, name, doc in documented
        if not name.startswith("__") and isinstance(doc, str) and ">>>" in doc
    ]


@pytest.mark.pyrite
@pytest.mark.parametrize("doc", compiled_docstrings())
def test_compiled_docstrings(doc):
    from pyrite import nn

    scope = {"torch": torch, "pyrite": torch, "nn": nn, "F": nn.functional}
    example = doctest.DocTestParser().get_doctest(doc, scope, "doc", None, None)
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    assert runner.run(example).failed == 0


def test_links_lead_somewhere():
    links = [
        (page, target)
        for page in PAGES
        if page.exists()
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    ]
    broken = [f"{p.name}: {t}" for p, t in links if "://" not in t and not (p.parent / t).exists()]
    assert not broken
