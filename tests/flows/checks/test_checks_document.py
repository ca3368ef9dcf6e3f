"""docs/checks.md and docs/events.md say all there is, with the defaults that hold."""

import re
from pathlib import Path

from nightshift.flows.config.checks import (
    Checks,
    InputChecks,
    OutputChecks,
    PythonCheck,
    SqlCheck,
)
from nightshift.flows.config.job import On
from nightshift.flows.operations import alerts
from nightshift.flows.orchestrator import events
from nightshift.flows.scoring.run import ScoreResult

DOCS = Path(__file__).parents[3] / "docs"


def section(document: str, title: str) -> str:
    text = (DOCS / document).read_text()
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


def lines(text: str) -> dict[str, str]:
    """Of tables, by the names in the first column."""
    found = re.findall(r"^\| (`[^|]+) \|(.*)\|$", text, re.MULTILINE)
    return {name: rest for names, rest in found for name in re.findall(r"`([^`]+)`", names)}


def test_every_check_and_its_default_levels() -> None:
    for model, title in ((InputChecks, "Of each input"), (OutputChecks, "Of each output")):
        documented = lines(section("checks.md", title))
        assert set(documented) == set(model.model_fields)
        for name, field in model.model_fields.items():
            for level in ("warn", "fail", "at_once"):
                value = getattr(field.default, level, None)
                assert value is None or re.search(rf"\b{value:g}\b", documented[name]), (
                    name,
                    level,
                )
    volume = lines(section("checks.md", "Of the run"))["volume"]
    for value in Checks().volume.model_dump().values():
        assert f"{value:g}" in volume
    own = lines(section("checks.md", "Your own checks"))
    assert set(own) >= set(SqlCheck.model_fields) | set(PythonCheck.model_fields)
    text = (DOCS / "checks.md").read_text()
    assert all(f"{name}:" in text or f"`{name}`" in text for name in Checks.model_fields)


def test_every_event_and_its_payload() -> None:
    sent = section("events.md", "Events that are sent")
    documented = lines(sent)
    result = ScoreResult("job", "2024-03-01", 1, "m@1", "scores", 10, 0, "", 1.0)
    assert {events.PARTITION_PUBLISHED, events.RUN_QUARANTINED, events.MODEL_PROMOTED} <= set(
        documented
    )
    assert set(events._payload(result)) | {"reason", "alias", "version", "reference"} <= set(
        documented
    )
    assert all(f"`{label}`" in sent for label in events._resource(result))
    assert set(lines(section("events.md", "Events that start a job"))) == set(On.model_fields)


def test_every_alert() -> None:
    assert set(alerts._KINDS) <= set(lines(section("events.md", "Alerts")))
