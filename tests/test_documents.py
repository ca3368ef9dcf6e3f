"""The documents name only what exists: commands, options, files, sections, tests.

That their commands work is shown in flows/test_document_commands.py, which runs them.
"""

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from documents import DOCUMENTS, ROOT, find_blocks, read_prose
from nightshift.flows.cli.main import LazyCommand, app

TESTS = ROOT / "tests"
LANGUAGES = {"console", "python", "yaml", "toml", "json", "sql", "text", "ini"}
NAMED = re.compile(r"`(?:[\w/]*?(test_\w+\.py))?::(test_\w+)`")
"""A test; without a file, it is in the file named last."""

each_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS]
)


@each_document
def test_commands_stand_in_blocks_that_are_run(document: Path) -> None:
    for block in find_blocks(document):
        assert block.language in LANGUAGES, f"{block.place}: commands stand in ```console"
        if block.language == "console":
            assert block.commands, f"{block.place}: a command begins with '$ '"


@each_document
def test_commands_and_options_exist(document: Path) -> None:
    commands = [line for block in find_blocks(document) for line in block.commands]
    commands += re.findall(r"`([^`\n]+)`", read_prose(document))
    problems = [
        f"{command}: {problem}"
        for command in commands
        if (problem := _find_problem(re.sub(r"^([A-Z_]+=\S* )+", "", command)))
    ]
    assert not problems


def _find_problem(command: str) -> str | None:
    """What `nightshift ...` or `make ...` names and is not there; None for other commands."""
    try:
        words = shlex.split(command, comments=True)
    except ValueError:
        return None  # code, not a command
    if len(words) > 1 and words[0] == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return None if words[1] in targets or "=" in words[1] else "no such target"
    if len(words) < 2 or words[0] != "nightshift":
        return None
    known: Any = _commands()
    for word in words[1:]:
        inner = getattr(known, "commands", {})
        if word in inner:
            known = inner[word].load() if isinstance(inner[word], LazyCommand) else inner[word]
            continue
        if "list" in inner and word != "--help":  # `nightshift runs JOB` is `runs list JOB`
            known = inner["list"]
        elif inner and not word.startswith("-") and not word.isupper():
            return f"no command {word}"
        options = {"--help", *(name for parameter in known.params for name in parameter.opts)}
        if word.startswith("--") and word not in options:
            return f"no option {word}"
    return None


@cache
def _commands() -> Any:
    return typer.main.get_command(app)


@each_document
def test_the_code_that_it_names_is_there(document: Path) -> None:
    named = re.findall(r"`([\w/]+\.py)\b", read_prose(document))
    folders = ("adapters", "flows", "tests", "benchmarks", "deploy")
    files = [path.as_posix() for folder in folders for path in (ROOT / folder).rglob("*.*")]
    assert [name for name in named if not any(file.endswith(f"/{name}") for file in files)] == []


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", read_prose(document)):
        file, _, section = link.partition("#")
        target = (document.parent / file).resolve() if file else document
        if not target.exists() or (section and section not in _sections(target)):
            broken.append(link)
    assert not broken


@cache
def _sections(document: Path) -> set[str]:
    """The anchors of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", read_prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_index_names_every_document() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    others = {path.name for path in DOCUMENTS if path.name != "README.md"}
    assert others == set(re.findall(r"\]\((\w+\.md)\)", index))


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_each_test_that_security_names_is_there() -> None:
    file, named, missing = "", 0, []
    for other, name in NAMED.findall((ROOT / "docs/security.md").read_text(encoding="utf-8")):
        file, named = other or file, named + 1
        found = [path.read_text(encoding="utf-8") for path in TESTS.rglob(file)]
        if not any(f"def {name}(" in text for text in found):
            missing.append(f"{file}::{name}")
    assert named > 25
    assert not missing
