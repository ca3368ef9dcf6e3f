"""What the documents say about the tests is what the tests are."""

import subprocess
import sys
from pathlib import Path

import pytest

MATRIX = Path(__file__).parent / "support" / "matrix.py"


@pytest.mark.heavy
def test_the_tables_of_tests_are_up_to_date() -> None:
    command = [sys.executable, str(MATRIX), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
