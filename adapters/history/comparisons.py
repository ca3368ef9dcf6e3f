"""How a version has compared with a job's champion, as its challenger."""

from dataclasses import dataclass

import sqlalchemy as sa

from nightshift.adapters.database.engine import open_reader
from nightshift.adapters.database.error_translation import translate_errors
from nightshift.adapters.ledger.ledger import Ledger
from nightshift.adapters.ledger.runs import CHALLENGER, RunState


@dataclass(frozen=True)
class ComparedRun:
    """A challenger's run that has ended."""

    run_id: int
    partition: str
    state: RunState
    error: str | None
    """Why it was switched off."""
    comparison: str
    """JSON of how it compares."""


def read_newest_comparison(
    ledger: Ledger, job: str, model: str, version: int
) -> ComparedRun | None:
    """The last run in which this version of the model was the job's challenger, if there is one."""
    runs = ledger.tables.runs
    names = list(ComparedRun.__dataclass_fields__)
    statement = (
        sa.select(*(runs.c[name] for name in names))
        .where(runs.c.job == job, runs.c.role == CHALLENGER)
        .where(runs.c.model_name == model, runs.c.model_version == version)
        .where(runs.c.comparison.is_not(None))
        .order_by(runs.c.run_id.desc())
        .limit(1)
    )
    with (
        translate_errors(ledger.engine, "to read a comparison"),
        open_reader(ledger.engine) as connection,
    ):
        row = connection.execute(statement).mappings().first()
    return None if row is None else ComparedRun(**row)
