"""What the documents say about the tests is what the tests are."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
MATRIX = TESTS / "support" / "matrix.py"
SECURITY = TESTS.parent / "docs" / "security.md"
NAMED = re.compile(r"`(?:[\w/]*?(test_\w+\.py))?::(test_\w+)`")
"""A test; without a file, it is in the one that was named last."""


def test_each_test_that_security_names_is_there() -> None:
    file, named, missing = "", 0, []
    for other, name in NAMED.findall(SECURITY.read_text(encoding="utf-8")):
        file, named = other or file, named + 1
        found = [path.read_text(encoding="utf-8") for path in TESTS.rglob(file)]
        if not any(f"def {name}(" in text for text in found):
            missing.append(f"{file}::{name}")
    assert named > 25
    assert not missing


@pytest.mark.heavy
def test_the_tables_of_tests_are_up_to_date() -> None:
    command = [sys.executable, str(MATRIX), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
