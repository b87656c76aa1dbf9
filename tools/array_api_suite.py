"""Runs the public test suite of the array API standard against `pyrite.array_api`.

    make array-api SUITE=path/to/array-api-tests [ARGS='--max-examples 100']

The checkout needs its submodule (the text of the standard). Operators follow the standard during the run
(`pyrite.array_api.standard_operators`), which is the switch a program would set; everything else is as in a program.
What is left of the command line goes to pytest.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

VERSION = "2024.12"
# The suite takes the module under test as an expression.
MODULE = "exec('import pyrite.array_api as xp; xp.standard_operators()')"


def main():
    if len(sys.argv) < 2 or not (Path(sys.argv[1]) / "array_api_tests").is_dir():
        sys.exit(__doc__)
    suite, *rest = sys.argv[1:]
    missing = [p for p in ("pytest_jsonreport", "ndindex") if importlib.util.find_spec(p) is None]
    if missing:
        subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", "pytest-json-report", "ndindex"])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--disable-warnings", "-rf", *rest]
    environment = os.environ | {"ARRAY_API_TESTS_MODULE": MODULE, "ARRAY_API_TESTS_VERSION": VERSION}
    sys.exit(subprocess.call([*command, "array_api_tests"], cwd=suite, env=environment))


if __name__ == "__main__":
    main()
