"""The chaos table: fault x trials x wrong rows x time to recover."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any

from tests.chaos.trial import Result

HEAD = ("fault", "trials", "missed", "wrong rows", "gave up within", "recovered in", "at most")
MISSED = 0.1
"""The most of a fault's trials in which it may not have come."""


@dataclass(frozen=True)
class Line:
    """All trials of one fault."""

    fault: str
    trials: int
    """Those in which the fault came."""
    missed: int
    """Those in which it did not, whatever the luck: a run was through before it, say."""
    wrong_rows: int
    """Of all trials together; a reader who looks all the time counts as well."""
    gave_up: float | None
    """Seconds until a run that could not go on ended with its error, at most."""
    recovered: float | None
    """Seconds from the fault's end until readers saw the wanted predictions: the median."""
    recovered_at_most: float | None
    problems: tuple[str, ...]

    @classmethod
    def of(cls, fault: str, results: Sequence[Result]) -> "Line":
        struck = [result for result in results if not result.missed]
        missed = len(results) - len(struck)
        recovered = [result.recovered for result in struck if result.recovered is not None]
        problems = [f"{fault}, trial {r.number}: {r.problem}" for r in results if r.problem]
        if missed > MISSED * len(results):
            problems.append(f"{fault}: it did not come in {missed} of {len(results)} trials")
        return cls(
            fault,
            len(struck),
            missed,
            sum(result.wrong_rows for result in results),
            max((result.gave_up for result in results if result.gave_up is not None), default=None),
            statistics.median(recovered) if recovered else None,
            max(recovered, default=None),
            tuple(problems),
        )

    def texts(self) -> tuple[str, ...]:
        times = (self.gave_up, self.recovered, self.recovered_at_most)
        shown = ("" if seconds is None else f"{seconds:.1f} s" for seconds in times)
        counts = (self.trials, self.missed, self.wrong_rows)
        return (self.fault, *map(str, counts), *shown)


@dataclass(frozen=True)
class Report:
    """A run of the suite."""

    command: str
    seed: int
    day: date
    seconds: float
    looks: int
    """How often readers looked at the predictions while all that happened."""
    lines: tuple[Line, ...]

    @classmethod
    def of(cls, command: str, seed: int, seconds: float, results: Sequence[Result]) -> "Report":
        names = dict.fromkeys(result.fault for result in results)
        lines = (Line.of(name, [r for r in results if r.fault == name]) for name in names)
        looks = sum(result.looks for result in results)
        return cls(command, seed, datetime.now(UTC).date(), seconds, looks, tuple(lines))

    @property
    def kills(self) -> int:
        """Trials in which a process was killed."""
        return sum(line.trials for line in self.lines if line.fault.startswith("kill -9"))

    @property
    def problems(self) -> list[str]:
        return [problem for line in self.lines for problem in line.problems]

    def text(self) -> str:
        rows = [HEAD, *(line.texts() for line in self.lines), self._total()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]

        def padded(row: Sequence[str]) -> str:
            first, *others = (
                text.rjust(width) if column else text.ljust(width)
                for column, (text, width) in enumerate(zip(row, widths, strict=True))
            )
            return "  ".join([first, *others]).rstrip()

        return "\n".join(map(padded, rows))

    def markdown(self) -> str:
        rows = [HEAD, ("---", *["---:"] * (len(HEAD) - 1))]
        rows += [line.texts() for line in self.lines] + [self._total()]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    def json(self) -> str:
        content: dict[str, Any] = asdict(self) | {"day": self.day.isoformat()}
        return json.dumps(content, indent=2)

    def _total(self) -> tuple[str, ...]:
        trials = sum(line.trials for line in self.lines)
        missed = sum(line.missed for line in self.lines)
        wrong = sum(line.wrong_rows for line in self.lines)
        return ("all", str(trials), str(missed), str(wrong), "", "", "")
