"""Users' own checks: a query in the job file, or a function of an installed package.

    [project.entry-points."nightshift.checks"]
    plausible = "my_package.checks:plausible"

    def plausible(evidence: Evidence, most: float) -> tuple[float, str]:
        share = ...
        return share, "share of fares above the most expensive one"    # or the number, or a bool

with `python: [{name: plausible, settings: {most: 900}, fail: 0.02}]`. A number above the levels
warns or fails; True passes, False fails. A function that raises NotJudged("why") is not judged. Any
other error fails, and so does no answer within the check's `timeout`, 10 minutes by default.
"""

import math
from collections.abc import Callable
from importlib.metadata import entry_points

from nightshift.adapters.errors import ConfigurationError, TransientError
from nightshift.flows.checks.evidence import Evidence
from nightshift.flows.checks.results import (
    CheckResult,
    Level,
    NotJudged,
    grade,
    leave_unjudged,
)
from nightshift.flows.config.checks import Checks, Levels, PythonCheck, SqlCheck
from nightshift.flows.scoring.prediction.timeouts import TimedCalls

ENTRY_POINT_GROUP = "nightshift.checks"


def run_sql_check(check: SqlCheck, evidence: Evidence) -> CheckResult:
    """Grade the value of the check's query. Raises TransientError if it could not be run."""

    def ask() -> object:
        if evidence.run_sql is None:
            raise ValueError("it needs a database")
        return evidence.run_sql(check.query)

    return _run(f"SQL check {check.name}", check, ask)


def run_python_check(check: PythonCheck, evidence: Evidence) -> CheckResult:
    """Grade what the check's function returns. Raises its TransientError."""

    def ask() -> object:
        return _load_function("checks.python", check)(evidence, **check.settings)

    return _run(f"check {check.name}", check, ask)


def require_checks(place: str, checks: Checks) -> None:
    """Raises ConfigurationError for a Python check that is not installed."""
    for check in checks.python:
        _load_function(place, check)


def _load_function(place: str, check: PythonCheck) -> Callable[..., object]:
    """Raises ConfigurationError."""
    known = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if check.name not in known:
        problem = f"no installed package has a check called {check.name!r}"
        remedy = f"Known in the group {ENTRY_POINT_GROUP!r} are: {', '.join(known) or 'none'}."
        raise ConfigurationError(place, "checks.python", problem, remedy)
    try:
        found = known[check.name].load()
    except Exception as error:  # importing a user's module may raise anything
        problem = f"{known[check.name].value} cannot be loaded ({type(error).__name__}: {error})"
        raise ConfigurationError(place, "checks.python", problem, "Correct it.") from error
    if not callable(found):
        problem = f"{known[check.name].value} is not a function"
        raise ConfigurationError(place, "checks.python", problem, "Correct the entry point.")
    function: Callable[..., object] = found
    return function


def _run(name: str, check: SqlCheck | PythonCheck, ask: Callable[[], object]) -> CheckResult:
    """Grade the answer; an error, or no answer in time, fails."""
    calls = TimedCalls(check.timeout.total_seconds())
    try:
        answer = calls(ask)
        given, text = answer if isinstance(answer, tuple) else (answer, "")
        value = _to_number(given)
    except TransientError:
        raise
    except NotJudged as reason:
        return leave_unjudged(name, None, str(reason), check)
    except Exception as error:  # a user's query or function may raise anything
        return CheckResult(
            name=name, warn=check.warn, fail=check.fail, level=Level.FAIL, reached=Level.FAIL,
            text=f"{name} could not be run: {type(error).__name__}: {error}",
        )  # fmt: skip
    finally:
        calls.close()
    if isinstance(given, bool):
        levels = Levels(warn=check.warn and 0, fail=check.fail and 0)  # False is above any level
        return grade(name, None, value, levels, f"{name}: {text or str(given).lower()}")
    result = grade(name, None, value, check, f"{name}: {text or f'{value:g}'}")
    limit = check.fail if result.level == Level.FAIL else check.warn
    if result.level == Level.OK or limit is None:
        return result
    return result.model_copy(
        update={"text": f"{result.text} (found {value:g}, at most {limit:g} may be)"}
    )


def _to_number(given: object) -> float:
    """Raises ValueError for what is neither a finite number nor a boolean."""
    if isinstance(given, bool):
        return 0.0 if given else 1.0
    try:
        value = float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ValueError(f"it returned {given!r}, not a number") from error
    if not math.isfinite(value):
        raise ValueError(f"it returned {given!r}, not a number")
    return value
