"""Nightshift, everything on: Prefect, the store and its trust, the ledger, transactions, checks.

The time is that of a whole flow run, from the call to its end; the predictions are published, for
readers to see, a little before.
"""

import logging
import time

from contest import report, sampled, task

given = task()

from nightshift.adapters.ledger.ledger import Ledger  # noqa: E402
from nightshift.adapters.models.model import Model  # noqa: E402
from nightshift.flows.score import score  # noqa: E402

logging.getLogger("prefect").setLevel(logging.WARNING)
predicting, published = [0.0], [0.0]


def observe(kind: type[Model]) -> None:
    """Count the CPU that the adapter's thread spends in `predict_batch`."""
    original = kind.predict_batch

    def predict_batch(self, features):  # type: ignore[no-untyped-def]
        began = time.thread_time()
        try:
            return original(self, features)
        finally:
            predicting[0] += time.thread_time() - began

    kind.predict_batch = predict_batch  # type: ignore[method-assign]


def publish(self, *arguments, **options):  # type: ignore[no-untyped-def]
    """Note when it is done."""
    original_publish(self, *arguments, **options)
    published[0] = time.perf_counter()


original_publish = Ledger.publish
Ledger.publish = publish  # type: ignore[method-assign]

match given.model:
    case "network":
        from nightshift.adapters.libraries.pytorch import PyTorchModel as Adapter
    case "xgboost":
        from nightshift.adapters.libraries.xgboost import XGBoostModel as Adapter
    case _:
        from nightshift.adapters.libraries.sklearn import SklearnModel as Adapter
observe(Adapter)
score(f"warm_{given.model}", "all")  # 1,000 rows: so that all libraries are there before, as theirs

predicting[0] = 0.0
wall, cpu = time.perf_counter(), time.process_time()
with sampled():
    result = score(f"{given.table}_{given.model}", "all")
report(
    seconds=time.perf_counter() - wall,
    cpu_seconds=time.process_time() - cpu,
    predict_cpu_seconds=predicting[0],
    published_seconds=published[0] - wall,
    scoring_seconds=result.seconds,
)
