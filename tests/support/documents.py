"""The documents as data: their blocks, with the commands in them, and their prose."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->\s*\Z")


@dataclass(frozen=True)
class Block:
    """What stands between two fences, and why it is not run, if it is not."""

    place: str  # file:line
    language: str
    text: str
    not_run: str = ""

    @property
    def commands(self) -> list[str]:
        """The lines after `$ `, each with those that continue it after a backslash."""
        joined = re.sub(r" *\\\n\s*", " ", self.text)
        lines = (line.strip() for line in joined.splitlines())
        return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def find_blocks(document: Path) -> list[Block]:
    """The fenced blocks of a document, in order."""
    text, blocks = document.read_text(encoding="utf-8"), []
    for found in _FENCE.finditer(text):
        before = text[: found.start()]
        reason = _NOT_RUN.search(before)
        place = f"{document.relative_to(ROOT)}:{before.count(chr(10)) + 1}"
        blocks.append(Block(place, found[2], found[3], reason[1] if reason else ""))
    return blocks


def read_prose(document: Path) -> str:
    """The document without its fenced blocks."""
    return _FENCE.sub("", document.read_text(encoding="utf-8"))
