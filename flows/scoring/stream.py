"""Streaming a partition through its model: read, predict, count, write. Free of Prefect."""

import json
from collections.abc import Callable
from contextlib import ExitStack, closing

import pyarrow as pa

from nightshift.adapters.ledger.runs import RejectedRow, Run
from nightshift.adapters.models.model import Model
from nightshift.adapters.models.signature import Signature
from nightshift.adapters.profiles.profile import Profile
from nightshift.adapters.source.checksums import digest
from nightshift.adapters.source.columns import KeyRange, encode_key
from nightshift.adapters.source.snapshot import Snapshot
from nightshift.adapters.target.predictions import PredictionTable
from nightshift.flows.config.job import Job
from nightshift.flows.config.resources import JobResources
from nightshift.flows.scoring.blas_threads import AdaptiveBlasThreads
from nightshift.flows.scoring.challenger.run import ChallengerRun
from nightshift.flows.scoring.challenger.scorer import Challenged
from nightshift.flows.scoring.loaded_model import LoadedModel
from nightshift.flows.scoring.pipeline import overlapped
from nightshift.flows.scoring.prediction.predictor import Limits, Predictor, Scored
from nightshift.flows.scoring.prediction.rejects import Reject
from nightshift.flows.scoring.timings import StageTimings

_CHUNK = 16_000_000
"""Bytes of a chunk's model inputs. More needs more memory and is not faster."""
_TEXT = 32
"""Bytes assumed for a string."""

Item = tuple[int, pa.Table, Scored, Challenged | None]


def stream(
    resources: JobResources,
    model: LoadedModel,
    predictions: PredictionTable,
    snapshot: Snapshot,
    run: Run,
    keys: KeyRange,
    expected: int,
    advance: Callable[[int], None],
    challenger: ChallengerRun | None = None,
) -> StageTimings:
    """Score the rows in a range of keys, one transaction per chunk; how long each stage took.

    `expected` is the number of those rows; `advance` is called with the rows of each chunk that is
    committed.
    """
    job, signature, reference = resources.job, model.manifest.signature, model.reference
    seconds = None if job.predict_timeout is None else job.predict_timeout.total_seconds()
    limits = Limits(job.max_rejects, seconds, run.seen + expected, run.seen, run.rejected)
    profile = Profile() if run.profile is None else Profile.from_json(run.profile)
    exact = job.checks.find_listed(signature.output_names)

    def predict(numbered: tuple[int, pa.Table]) -> Item:
        number, chunk = numbered
        with stages.of("predict"):
            scored = predictor.score(chunk)
        blas.predicted(scored.seconds)
        if challenger is None:
            return number, chunk, scored, None
        with stages.of("challenge"):
            return number, chunk, scored, challenger.compare(chunk, scored)

    def write(item: Item) -> None:
        nonlocal profile
        number, chunk, scored, challenged = item
        with stages.of("profile"):
            inputs, outputs = chunk.select(signature.input_names), signature.output_names
            part = Profile.of(inputs, scored.rows.select(outputs), reference, exact)
            profile = profile.merged(part)
            text = profile.to_json()
        rejects = [rejected_row(resources, reject) for reject in scored.rejects]
        with stages.of("write"):
            seen = digest(chunk.select(resources.source.kept_columns), inputs)
            predictions.write(run, number, scored.rows, rejects, text, scored.keys, seen)
        if challenger is not None and challenged is not None:
            challenger.write(number, scored, challenged)

    blas, size, stages = AdaptiveBlasThreads(), chunk_rows(job, signature), StageTimings()
    with ExitStack() as stack:
        stack.enter_context(blas)
        borrowed = [stack.enter_context(model.borrow())]

        def renew() -> Model:
            borrowed.append(stack.enter_context(model.borrow()))
            return borrowed[-1].model

        predictor = Predictor(
            model.manifest,
            borrowed[0].model,
            job.source.key,
            resources.source.kept_columns,
            limits,
            lambda: borrowed[-1].abandoned.set(),
            renew,
        )
        stack.enter_context(closing(predictor))
        if challenger is None:
            read = snapshot.chunks(keys, size)
        else:
            read = challenger.chunks(snapshot, signature, keys, size)
        chunks = stack.enter_context(closing(read))
        numbered = enumerate(stages.each("read", chunks), start=run.chunks)
        with closing(overlapped(numbered, predict, write)) as written:
            for _, _, scored, _ in written:
                advance(scored.read)
    return stages


def chunk_rows(job: Job, signature: Signature) -> int:
    """Rows of a chunk: the job's `chunk_rows`, or as many as have about 16 MB of inputs.

    It is part of a run's fingerprint, so it depends on nothing that may change between attempts.
    """
    if job.chunk_rows is not None:
        return job.chunk_rows
    width = sum(_TEXT if column.arrow_type == pa.string() else 8 for column in signature.inputs)
    return max(1_000, min(_CHUNK // width, 100_000) // 1_000 * 1_000)


def rejected_row(resources: JobResources, reject: Reject) -> RejectedRow:
    """A reject as the ledger keeps it."""
    inputs = json.dumps(reject.inputs, ensure_ascii=False)
    return RejectedRow(encode_key(reject.key), reject.kind, reject.error, inputs)
