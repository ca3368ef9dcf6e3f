"""The gate before an alias: what a version must have shown as a challenger."""

import pytest

from command import Nightshift
from nightshift.flows.score import score
from project import Project

pytestmark = pytest.mark.usefixtures("prefect")


@pytest.fixture
def gated(project: Project) -> Project:
    """Version 1 is the champion, version 2 the challenger, and 95% of the rows must agree."""
    project.fill()
    project.register()
    project.register()
    project.store.promote("doubler", 1)
    project.store.promote("doubler", 2, "challenger")
    job_with(project, 0.95)
    return project


def job_with(project: Project, level: float | None) -> None:
    challenger = {"model": "doubler@challenger", "agreement": level}
    project.write_job(challenger={k: v for k, v in challenger.items() if v is not None})


def champion(project: Project) -> int:
    return project.store.aliases("doubler")["champion"].version


@pytest.mark.heavy
def test_what_was_never_compared_is_refused(gated: Project, nightshift: Nightshift) -> None:
    for scored in (False, True):
        if scored:  # by another version, and with another challenger
            gated.store.promote("doubler", 1, "challenger")
            score("orders", "all")
        output = nightshift("promote", "doubler", "2", code=1).stderr
        assert "doubler@2 was not made 'champion'" in output
        assert "95%" in output
        assert "no run has compared the two yet" in output
        assert "--force" in output
        assert champion(gated) == 1


def test_what_agreed_is_promoted(gated: Project, nightshift: Nightshift) -> None:
    score("orders", "2024-03-01")
    nightshift("promote", "doubler", "2")
    assert champion(gated) == 2


@pytest.mark.parametrize("behaviour", ["lower", "raise"])
@pytest.mark.heavy
def test_what_differs_or_fails_is_refused_unless_forced(
    gated: Project, nightshift: Nightshift, behaviour: str
) -> None:
    score("orders", "2024-03-01")  # version 2 did agree, but its last run is what counts
    gated.register(behaviour=behaviour)
    gated.store.promote("doubler", 1)
    gated.store.promote("doubler", 3, "challenger")
    score("orders", "2024-03-01")
    output = nightshift("promote", "doubler", "3", code=1).stderr
    said = {
        "lower": "in run 4 it did in 93.2%",
        "raise": "it was switched off (ValueError: cannot",
    }
    assert said[behaviour] in output
    assert "`nightshift report 4`" in output
    assert champion(gated) == 1
    nightshift("promote", "doubler", "3", "--alias", "stable")  # no job uses that one
    nightshift("promote", "doubler", "3", "--force")
    assert champion(gated) == 3


@pytest.mark.heavy
def test_the_level_is_the_job_s(gated: Project, nightshift: Nightshift) -> None:
    gated.register(behaviour="lower")
    gated.store.promote("doubler", 1)
    gated.store.promote("doubler", 3, "challenger")
    score("orders", "2024-03-01")
    job_with(gated, 0.933)
    assert "93.3% of the rows" in nightshift("promote", "doubler", "3", code=1).stderr
    job_with(gated, 0.932)
    nightshift("promote", "doubler", "3")
    assert champion(gated) == 3


def test_without_a_level_nothing_is_asked(gated: Project, nightshift: Nightshift) -> None:
    job_with(gated, None)
    nightshift("promote", "doubler", "2")
    assert champion(gated) == 2
