"""A Prefect server that goes away, processes of its that die, and people who press Cancel."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from tests.chaos.processes import wanted
from tests.chaos.scoring_process import PATIENCE, PUBLISHED
from tests.chaos.trial import Fault, Trial
from tests.chaos.world import DAY, World, another, eventually

UNHURRIED = {"DOUBLER_BEHAVES": "", "CHAOS_SECONDS": "1"}
"""Six seconds for a run's chunks."""
LEISURELY = {**UNHURRIED, "CHAOS_SECONDS": "3"}
"""A chunk takes longer than it takes to hear of a cancellation."""
CHUNKS = 6
STOPPING = 2
"""Chunks that may still be committed once a run is cancelled: the one under way, and the one that
was started before the run has heard of it."""
LEASE = {"NIGHTSHIFT_DATABASE__LEASE": "5"}
"""Seconds after which a process that was killed counts as dead, if nothing else tells."""


class PrefectServer:
    """A server of our own, with its database in a folder, on the same port each time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def start(self) -> None:
        command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(self.port)]
        environment = os.environ | {
            "PREFECT_HOME": str(self.folder),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        eventually(self._healthy, "a Prefect server", 120)

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _healthy(self) -> bool:
        try:
            return httpx.get(f"{self.api}/health", timeout=2).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def ended(self, run: str) -> dict[str, Any] | None:
        """The flow run, once it has ended."""
        found: dict[str, Any] = self.get(f"/flow_runs/{run}")
        over = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}
        return found if found["state_type"] in over else None

    def post(self, path: str, body: dict[str, Any]) -> Any:
        answer = httpx.post(f"{self.api}{path}", json=body, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def get(self, path: str) -> Any:
        answer = httpx.get(f"{self.api}{path}", timeout=30)
        answer.raise_for_status()
        return answer.json()


def server(world: World) -> PrefectServer:
    """The world's; started when it is first needed."""
    if "prefect" not in world.more:
        made = PrefectServer(world.folder / "prefect")
        world.more["prefect"] = made
        world.opened.callback(made.kill)
    found: PrefectServer = world.more["prefect"]
    return found


def chunks(trial: Trial) -> int:
    """How many chunks of the newest run are committed."""
    (row,) = trial.stage.sql(
        "SELECT count(*) FROM nightshift_chunks"
        " WHERE run_id = (SELECT max(run_id) FROM nightshift_runs) AND run_id > 1"
    )
    return int(row[0])


def flow_killed(trial: Trial) -> None:
    """kill -9 of a process that runs the whole flow; the next one goes on."""
    api = server(trial.world).api
    process = trial.stage.start(api=api, **{**UNHURRIED, "CHAOS_SECONDS": "0.1"})
    time.sleep(trial.chance.uniform(0.5, 4))
    process.kill()
    trial.missed = not trial.dies(process)
    trial.rides_out(trial.stage.start(api=api), time.monotonic())


SHARDED = "chaos_shards"


def sharded(world: World) -> None:
    shards = {"count": 3, "on": "threads"}
    another(world, SHARDED, "sharded", api=server(world).api, shards=shards)


def shards_killed(trial: Trial) -> None:
    """kill -9 of a process that scores three shards; the next one goes on within each."""
    api, stage = server(trial.world).api, trial.stage
    wanted(stage)
    pace = {**UNHURRIED, "CHAOS_SECONDS": "0.5"}
    process = stage.start(api=api, job="sharded", **pace)
    eventually(lambda: chunks(trial) or process.over, "a chunk", PATIENCE)
    time.sleep(trial.chance.uniform(0, 1))
    process.kill()
    trial.missed = not trial.dies(process)
    trial.rides_out(stage.start(api=api, job="sharded"), time.monotonic())
    runs = stage.sql("SELECT run_id, count(*) FROM nightshift_shards WHERE run_id > 1 GROUP BY 1")
    assert [row[1] for row in runs] == [3], runs


def server_restarted(trial: Trial) -> None:
    """The Prefect server is killed while a flow scores, and is back some seconds later."""
    prefect = server(trial.world)
    process = trial.stage.start(api=prefect.api, **UNHURRIED)
    eventually(lambda: chunks(trial), "a chunk", 60)
    prefect.kill()
    try:
        time.sleep(trial.chance.uniform(0, 3))
    finally:
        prefect.start()
    trial.rides_out(process, time.monotonic())


def server_away(trial: Trial) -> None:
    """The Prefect server is killed while a flow scores, and stays away until that has ended.

    Readers get their predictions all the same; the flow, which cannot tell anybody, ends in time.
    """
    prefect, stage = server(trial.world), trial.stage
    process = stage.start(api=prefect.api, **UNHURRIED, PREFECT_CLIENT_MAX_RETRIES="2")
    eventually(lambda: chunks(trial), "a chunk", 60)
    prefect.kill()
    since = time.monotonic()
    try:
        eventually(lambda: stage.view() in stage.wanted, "published without Prefect", 60)
        trial.recovered = time.monotonic() - since
        outcome = process.outcome(2 * PATIENCE)
        trial.gave_up.append(time.monotonic() - since)
    finally:
        prefect.start()
    assert outcome.name in {PUBLISHED, "ConnectError"}, outcome


def cancelled(trial: Trial) -> None:
    """A user cancels a flow run that `nightshift serve` has started: Prefect ends its process."""
    with serving(trial, LEISURELY) as served:
        run = served.begin()
        eventually(lambda: chunks(trial), "a chunk", PATIENCE)
        call_off(trial, run)
    gone_on(trial)


def cancelled_elsewhere(trial: Trial) -> None:
    """A user cancels a flow run that Prefect has not started, as `nightshift run` does."""
    api = server(trial.world).api
    process = trial.stage.start(api=api, **LEISURELY)
    (run,) = eventually(lambda: under_way(trial), "a chunk", PATIENCE)
    call_off(trial, run)
    trial.gives_up(process, time.monotonic(), "CancelledRun")
    gone_on(trial)


def under_way(trial: Trial) -> list[str]:
    """The flow run of a run with a chunk."""
    if not chunks(trial):
        return []
    return list(trial.stage.sql("SELECT flow_run_id FROM nightshift_runs WHERE run_id > 1")[0])


def call_off(trial: Trial, run: str) -> None:
    """As the button in the UI does; the run stops soon, ends as cancelled, and its chunks stay."""
    prefect, since, before = server(trial.world), time.monotonic(), chunks(trial)
    state = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    prefect.post(f"/flow_runs/{run}/set_state", state)
    ended = eventually(lambda: prefect.ended(run), "the end of a cancelled run", 60)
    trial.gave_up.append(time.monotonic() - since)
    assert ended["state_type"] == "CANCELLED", ended["state"]
    more = chunks(trial) - before
    assert more <= STOPPING, f"{more} chunks were committed after it was cancelled"
    trial.check()
    assert trial.stage.view() == trial.stage.previous, "it was published all the same"


def gone_on(trial: Trial) -> None:
    """The next run does the rest: no chunk is written twice."""
    before = chunks(trial)
    trial.resumes()
    runs = trial.stage.sql("SELECT state FROM nightshift_runs WHERE run_id > 1")
    assert [row[0] for row in runs] == ["published"], runs
    assert 1 <= before < chunks(trial) == CHUNKS


def server_process_killed(trial: Trial) -> None:
    """kill -9 of `nightshift serve`; in half of the trials of the flow's own process, too.

    By hand the run goes on at once. Prefect would begin the deployment's next one only when the
    lease of the first has run out: five minutes, measured, and too long for a trial.
    """
    stage, all_of_it = trial.stage, trial.chance.random() < 0.5
    with serving(trial) as served:
        served.begin()
        eventually(lambda: chunks(trial), "a chunk", PATIENCE)
        served.kill(all_of_it)
        if all_of_it:  # it is in a session of its own
            query = "SELECT split_part(owner, ':', 2) FROM nightshift_runs WHERE run_id > 1"
            os.kill(int(stage.sql(query)[0][0]), signal.SIGKILL)
        since = time.monotonic()
        if not all_of_it:  # the flow goes on without it
            eventually(lambda: stage.view() in stage.wanted, "published without `serve`", 60)
            trial.recovered = time.monotonic() - since
            return
    # The dead process may not have been reaped, and then looks alive: its lease must run out.
    eventually(lambda: stage.start(**LEASE).outcome().name == PUBLISHED, "taken over", 60)
    trial.recovered = time.monotonic() - since


class ServeProcess:
    """`nightshift serve` for a trial's database, in processes of its own."""

    def __init__(self, trial: Trial, pace: dict[str, str]) -> None:
        stage, self._prefect = trial.stage, server(trial.world)
        own = {"PREFECT_API_URL": self._prefect.api, "PREFECT_HOME": str(stage.folder / "prefect")}
        quiet = {"PREFECT_LOGGING_LEVEL": "CRITICAL"}
        environment = os.environ | stage.environment(**pace, **LEASE) | own | quiet
        command = [
            sys.executable,
            "-c",
            "from nightshift.flows.cli.main import main; main()",
            "serve",
        ]
        started = time.time()
        self._process = subprocess.Popen(
            command,
            env=environment,
            cwd=stage.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._deployment = eventually(lambda: self._polled(started), "a deployment", PATIENCE)

    def begin(self) -> str:
        """Have it run a flow; the flow run's id."""
        wanted = {"parameters": {"job": "orders", "partition": DAY}}
        path = f"/deployments/{self._deployment}/create_flow_run"
        return str(self._prefect.post(path, wanted)["id"])

    def kill(self, all_of_it: bool = True) -> None:
        with contextlib.suppress(ProcessLookupError):
            if all_of_it:
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()

    def forget(self) -> None:
        """Delete its deployment, with the slot that a killed run still holds."""
        httpx.delete(f"{self._prefect.api}/deployments/{self._deployment}", timeout=30)

    def _polled(self, since: float) -> str | None:
        """Its deployment's id, once it has asked for work."""
        answer = httpx.get(f"{self._prefect.api}/deployments/name/score/orders", timeout=30)
        if answer.status_code != httpx.codes.OK:
            return None
        found = answer.json()
        polled = found["last_polled"]
        new = polled is not None and datetime.fromisoformat(polled).timestamp() > since
        return str(found["id"]) if new else None


@contextmanager
def serving(trial: Trial, pace: dict[str, str] = UNHURRIED) -> Iterator[ServeProcess]:
    served = ServeProcess(trial, pace)
    try:
        yield served
    finally:
        served.kill()
        served.forget()


FAULTS = (
    Fault("kill -9 of a whole flow", flow_killed, 10),
    Fault("kill -9 during shards", shards_killed, 5, 1, SHARDED, prepare=sharded),
    Fault("Prefect server restarted", server_restarted, 3),
    Fault("Prefect server away", server_away, 1, 0),
    Fault("flow run of `serve` cancelled", cancelled, 3),
    Fault("flow run of `run` cancelled", cancelled_elsewhere, 3),
    Fault("`serve` killed", server_process_killed, 4),
)
