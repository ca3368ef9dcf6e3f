"""Metrics for Prometheus, read from the ledger when asked.

A flow run is a short-lived process that Prometheus cannot scrape and that may be killed. The ledger
records each chunk in the transaction of its rows, so numbers read from it are right after a crash,
and in any process.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from nightshift.adapters.database.engine import open_engine
from nightshift.adapters.errors import ConfigurationError, NightshiftError
from nightshift.adapters.history.job_totals import JobTotals, read_job_totals
from nightshift.adapters.ledger.ledger import Ledger
from nightshift.adapters.ledger.runs import RunState
from nightshift.flows.config.settings import Settings

CONNECT_SECONDS = 5
_JOB = "nightshift_job"  # Prometheus has a label `job` of its own


class LedgerCollector(Collector):
    """Reads the ledger at each scrape."""

    def __init__(self, settings: Settings) -> None:
        self._engine = open_engine(settings.target_url(), CONNECT_SECONDS)
        self._ledger = Ledger(self._engine, settings.database.schema_, settings.database.lease)

    def collect(self) -> Iterator[Metric]:
        """`nightshift_up` is 0, and the only metric, while the ledger cannot be read."""
        jobs: list[JobTotals] | None = None
        with suppress(NightshiftError):
            jobs = read_job_totals(self._ledger)
        up = GaugeMetricFamily("nightshift_up", "Whether the ledger could be read: 1 or 0.")
        up.add_metric([], 0 if jobs is None else 1)
        yield up
        if jobs is not None:
            yield from _families(jobs)

    def describe(self) -> Iterator[Metric]:
        """Nothing, so that registering does not scrape."""
        return iter(())

    def close(self) -> None:
        self._engine.dispose()


def metrics_text(settings: Settings) -> str:
    """All metrics now, as Prometheus reads them."""
    registry, collector = CollectorRegistry(), LedgerCollector(settings)
    registry.register(collector)
    try:
        return generate_latest(registry).decode()
    finally:
        collector.close()


@contextmanager
def serve_metrics(settings: Settings, host: str, port: int) -> Iterator[str]:
    """Answer scrapes in the background; gives the address. Raises ConfigurationError."""
    registry, collector = CollectorRegistry(), LedgerCollector(settings)
    registry.register(collector)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        problem, remedy = f"{host}:{port} cannot be used ({error.strerror})", "Choose another port."
        raise ConfigurationError("metrics", "--port", problem, remedy) from error
    try:
        yield f"http://{host}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        collector.close()


def _families(jobs: list[JobTotals]) -> Iterator[Metric]:
    runs = GaugeMetricFamily("nightshift_runs", "Runs in the ledger.", labels=[_JOB, "state"])
    rows = CounterMetricFamily("nightshift_rows_written", "Predictions written.", labels=[_JOB])
    rejected = CounterMetricFamily(
        "nightshift_rows_rejected", "Rows that got no prediction.", labels=[_JOB]
    )
    last_rows = GaugeMetricFamily(
        "nightshift_last_run_rows", "Predictions of the last complete run.", labels=[_JOB]
    )
    last_seconds = GaugeMetricFamily(
        "nightshift_last_run_seconds", "How long the last complete run took.", labels=[_JOB]
    )
    published = GaugeMetricFamily(
        "nightshift_last_published_timestamp_seconds",
        "When readers last got new predictions, in Unix time.",
        labels=[_JOB],
    )
    silent = GaugeMetricFamily(
        "nightshift_run_silent_seconds",
        "Since the last sign of the running run that is silent for longest; 0 if none runs.",
        labels=[_JOB],
    )
    for job in jobs:
        for state in RunState:  # a state of none, too: what was not there before cannot increase
            runs.add_metric([job.job, state], job.runs.get(state, 0))
        rows.add_metric([job.job], job.rows)
        rejected.add_metric([job.job], job.rejected)
        last_rows.add_metric([job.job], job.last_rows)
        last_seconds.add_metric([job.job], job.last_seconds)
        silent.add_metric([job.job], job.silent)
        if job.published_at is not None:
            published.add_metric([job.job], job.published_at.timestamp())
    yield from (runs, rows, rejected, last_rows, last_seconds, published, silent)
