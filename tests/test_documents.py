"""The documents name only what exists."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
SECURITY = TESTS.parent / "docs" / "security.md"
NAMED = re.compile(r"`(?:[\w/]*?(test_\w+\.py))?::(test_\w+)`")
"""A test; without a file, it is in the file named last."""


def test_each_test_that_security_names_is_there() -> None:
    file, named, missing = "", 0, []
    for other, name in NAMED.findall(SECURITY.read_text(encoding="utf-8")):
        file, named = other or file, named + 1
        found = [path.read_text(encoding="utf-8") for path in TESTS.rglob(file)]
        if not any(f"def {name}(" in text for text in found):
            missing.append(f"{file}::{name}")
    assert named > 25
    assert not missing
