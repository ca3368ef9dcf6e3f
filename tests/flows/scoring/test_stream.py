"""How large a chunk is, and how many threads BLAS has while a run streams."""

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from backends import sign
from nightshift.flows.config.job import Job
from nightshift.flows.scoring.blas_threads import AdaptiveBlasThreads
from nightshift.flows.scoring.stream import chunk_rows


@pytest.mark.parametrize(
    ("inputs", "rows"),
    [
        ({"x": "float64"}, 100_000),
        ({f"x{i}": "float64" for i in range(20)}, 100_000),
        ({f"x{i}": "float64" for i in range(50)}, 40_000),
        ({f"x{i}": "string" for i in range(50)}, 10_000),
        ({f"x{i}": "float64" for i in range(900)}, 2_000),
        ({f"x{i}": "float64" for i in range(9000)}, 1_000),
    ],
)
def test_wide_rows_come_in_smaller_chunks(inputs: dict[str, str], rows: int) -> None:
    assert chunk_rows(job(), sign(inputs)) == rows


def test_unless_the_job_says_how_many() -> None:
    assert chunk_rows(job(chunk_rows=7), sign({"x": "float64"})) == 7


def test_blas_has_one_thread_while_predicting_is_cheap() -> None:
    with threadpool_limits(2, user_api="blas"):
        with AdaptiveBlasThreads() as algebra:
            for _ in range(10):
                algebra.predicted(0.0)
            assert threads() == {1}
        assert threads() == {2}


def test_and_all_of_them_once_that_is_what_the_run_waits_for() -> None:
    with threadpool_limits(2, user_api="blas"), AdaptiveBlasThreads() as algebra:
        for _ in range(3):
            algebra.predicted(3600.0)
        assert threads() == {1}  # too early to tell
        algebra.predicted(3600.0)
        assert threads() == {2}


def job(**settings: object) -> Job:
    source = {"table": "t", "key": "id"}
    return Job.model_validate(
        {"model": "m", "source": source, "target": {"table": "p"}, **settings}
    )


def threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
