"""What a model has to show before it is registered, and again whenever it is loaded."""

from dataclasses import dataclass

import pandas as pd
import pyarrow as pa

from nightshift.adapters.errors import (
    GoldenRowsDiffer,
    NightshiftError,
    PredictionFailed,
    SerializationFailed,
    SignatureUndefined,
)
from nightshift.adapters.models.arrays import Features, PredictionArray
from nightshift.adapters.models.model import Model, Trust
from nightshift.adapters.models.signature import Signature
from nightshift.adapters.profiles.drift import MINIMUM_ROWS, RANGE_ROWS
from nightshift.adapters.profiles.profile import Profile
from nightshift.adapters.store import golden_rows
from nightshift.adapters.store.library_versions import parts_of, version_mismatches
from nightshift.adapters.store.manifest import Manifest

_SLICE = 50_000  # rows


@dataclass(frozen=True)
class VerifiedModel:
    """A model that may be registered: its bytes, golden rows that they predict, and the profile of
    the whole sample.
    """

    data: bytes
    signature: Signature
    inputs: pa.Table
    predictions: pa.Table
    profile: Profile


def verify(model: Model, sample: pd.DataFrame, policy: Trust) -> VerifiedModel:
    """Let the model predict the sample: as given, as a database would give it, and from its bytes.

    Raises PredictionFailed, InvalidPredictions, SignatureMismatch, SignatureUndefined or
    SerializationFailed if the three are not the same within the model's tolerance.
    """
    _require_modules(model)
    values = _predict(model, sample.copy(), "the sample")
    signature = Signature.from_sample(sample, values, model.output_names)
    table = signature.table(sample)
    given = signature.predictions(values, len(sample))
    retyped = predict_table(model, signature, table, "the sample, once it has a database's types")
    if changed := golden_rows.difference(given, retyped, model.tolerance):
        problem = (
            f"{type(model).__name__} gives other predictions once it has been through a "
            f"database: {changed}"
        )
        remedy = "Give it the types that it was trained on, or make its predictions repeatable."
        raise SignatureUndefined("the sample", problem, remedy)

    inputs = table.take(golden_rows.spread_rows(table.num_rows))
    predictions = predict_table(model, signature, inputs, "its golden rows")
    data = model.serialize()
    copy = type(model).deserialize_trusted(data, policy)
    again = predict_table(copy, signature, inputs, "its golden rows, read back from its own bytes")
    if changed := golden_rows.difference(predictions, again, model.tolerance):
        problem = f"read back from its own bytes it gives other predictions: {changed}"
        remedy = "Its serialize or deserialize loses something, or its predictions are random."
        raise SerializationFailed(type(model).__name__, problem, remedy)
    return VerifiedModel(data, signature, inputs, predictions, _profile(signature, table, retyped))


def warn_of_small_sample(rows: int) -> tuple[str, ...]:
    """What a run's checks will not judge against a sample of so many rows; empty if all."""
    unjudged = []
    if rows < RANGE_ROWS:
        unjudged.append(f"ranges and unseen categories (from {RANGE_ROWS} rows)")
    if rows < MINIMUM_ROWS:
        unjudged.append(f"drift and shares of classes (from {MINIMUM_ROWS}, or what a job sets)")
    if not unjudged:
        return ()
    return (
        f"The sample has {rows:,} rows, so runs are not judged by {' and '.join(unjudged)}. "
        "Register with more of the training data.",
    )


def check_golden_rows(model: Model, manifest: Manifest, inputs: pa.Table, then: pa.Table) -> None:
    """Raises GoldenRowsDiffer unless the model predicts its golden rows as it did then."""
    try:
        now = predict_table(model, manifest.signature, inputs, "its golden rows")
        problem = golden_rows.difference(then, now, model.tolerance) or ""
    except NightshiftError as error:
        problem = str(error)
    if problem:
        raise GoldenRowsDiffer(manifest.reference, problem, version_mismatches(manifest.libraries))


def predict_table(model: Model, signature: Signature, inputs: pa.Table, place: str) -> pa.Table:
    """(m, n) Arrow columns -> m predictions as Arrow columns, in one batch, checked.

    Raises PredictionFailed, InvalidPredictions or SignatureMismatch.
    """
    predictions = _predict(model, signature.features(inputs), place)
    return signature.predictions(predictions, inputs.num_rows)


def _profile(signature: Signature, inputs: pa.Table, predictions: pa.Table) -> Profile:
    """Slice by slice, as a run is profiled; a sample may be the whole training frame."""
    found = kinds = Profile.blank(signature)
    for start in range(0, inputs.num_rows, _SLICE):
        rows, predicted = (side.slice(start, _SLICE) for side in (inputs, predictions))
        found = found.merged(Profile.of(rows, predicted, kinds))
    return found


def _predict(model: Model, features: Features, place: str) -> PredictionArray:
    try:
        return model.predict_batch(features)
    except Exception as error:  # whatever a model may raise
        problem = f"{type(error).__name__}: {error}"
        raise PredictionFailed(type(model).__name__, place, problem) from error


def _require_modules(model: Model) -> None:
    """A pickle names what it is made of, and no worker can import the script that registers it."""
    mains = {name for module, name in parts_of(model) if module == "__main__"}
    if model.pickled and mains:
        problem = f"it uses {', '.join(sorted(mains))} of the script that registers it"
        remedy = "No worker can import that; move it to a module of its own."
        raise SerializationFailed(type(model).__name__, problem, remedy)
