"""What a model has to show before it is registered, and again whenever it is loaded."""

import contextlib
import reprlib
from collections.abc import Callable
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
from nightshift.adapters.models.tolerance import Tolerance
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
    tolerance: Tolerance
    inputs: pa.Table
    predictions: pa.Table
    profile: Profile


def verify(model: Model, sample: pd.DataFrame, policy: Trust) -> VerifiedModel:
    """Let what was handed over predict the sample, and then the model that its bytes hold, for the
    rows as a database would give them.

    Raises PredictionFailed, InvalidPredictions, SignatureMismatch, SignatureUndefined or
    SerializationFailed if the two are not the same within the tolerance.
    """
    _require_modules(model)
    values = _predict(model.predict_original, type(model).__name__, sample.copy(), "the sample")
    signature = Signature.from_sample(sample, values, model.output_names)
    tolerance = Tolerance.of(signature, model.tolerance)
    _compare_categories(model, sample)
    table = signature.table(sample)
    given = signature.predictions(values, len(sample))
    data = model.serialize()
    copy = type(model).deserialize_trusted(data, policy)
    fed = predict_table(copy, signature, table, "the sample, once it has a database's types")
    if changed := golden_rows.difference(
        given, fed, tolerance, ("as handed over", "from its bytes")
    ):
        _find_loss(model, signature, tolerance, sample, given)
        problem = f"read back from its own bytes it gives other predictions: {changed}"
        remedy = "Its serialize or deserialize loses something, or its predictions are random."
        raise SerializationFailed(type(model).__name__, problem, remedy)
    inputs, predictions = _golden(copy, signature, table)
    profile = _profile(signature, table, fed)
    return VerifiedModel(data, signature, tolerance, inputs, predictions, profile)


def _golden(model: Model, signature: Signature, sample: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Golden rows and their predictions: of the sample, and made ones that the model takes."""
    made = []
    for row in golden_rows.make_rows(sample, signature):
        with contextlib.suppress(NightshiftError):
            predict_table(model, signature, row, "a row with an unseen value")
            made.append(row)
    most = golden_rows.MOST_ROWS - len(made)
    inputs = sample.take(golden_rows.choose_rows(sample, signature, most))
    with contextlib.suppress(NightshiftError):  # made rows may differ too much for one batch
        both = pa.concat_tables([inputs, *made])
        return both, predict_table(model, signature, both, "its golden rows")
    return inputs, predict_table(model, signature, inputs, "its golden rows")


def _find_loss(
    model: Model, signature: Signature, tolerance: Tolerance, sample: pd.DataFrame, given: pa.Table
) -> None:
    """Raise what explains a difference if it is there before the model became bytes."""
    adapter = type(model).__name__

    def change(predict: Callable[[Features], PredictionArray], words: tuple[str, str]) -> str:
        values = _predict(predict, adapter, sample.copy(), "the sample")
        found = signature.predictions(values, len(sample))
        return golden_rows.difference(given, found, tolerance, words) or ""

    if changed := change(model.predict_original, ("at first", "the second time")):
        problem = f"{adapter} gives other predictions when it is called again: {changed}"
        raise SignatureUndefined(
            "the sample", problem, "Fix its seed: make its predictions repeatable."
        )
    if changed := change(model.predict_batch, ("as handed over", "by the adapter")):
        problem = f"it gives other predictions than the object it was made from: {changed}"
        remedy = "Register that object with an adapter that keeps it whole, such as `sklearn`."
        raise SerializationFailed(adapter, problem, remedy)
    fed = predict_table(model, signature, signature.table(sample), "the sample as Arrow")
    words = ("as given", "from a database")
    if (found := golden_rows.difference(given, fed, tolerance, words)) is not None:
        problem = f"{adapter} gives other predictions once it has been through a database: {found}"
        remedy = "Give the sample the types that the model was trained on."
        raise SignatureUndefined("the sample", problem, remedy)


def _compare_categories(model: Model, sample: pd.DataFrame) -> None:
    """Raises SignatureUndefined for a column whose values the model cannot know."""
    for name, own in model.categories(sample).items():
        if own is None:
            problem = (
                "the model knows its categories only by their codes, and the sample has others"
            )
            remedy = "Give the codes that it was trained on as whole numbers, or train it on them."
            raise SignatureUndefined(repr(name), problem, remedy)
        found = set(sample[name].dropna().unique())
        if found and not found & set(own):
            one, other = (reprlib.repr(sorted(values, key=str)) for values in (found, set(own)))
            problem = f"its values {one} are none of the model's own categories, {other}"
            raise SignatureUndefined(repr(name), problem, "Give the values of the training.")


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
        problem = golden_rows.difference(then, now, manifest.tolerance) or ""
    except NightshiftError as error:
        problem = str(error)
    if problem:
        raise GoldenRowsDiffer(manifest.reference, problem, version_mismatches(manifest.libraries))


def predict_table(model: Model, signature: Signature, inputs: pa.Table, place: str) -> pa.Table:
    """(m, n) Arrow columns -> m predictions as Arrow columns, in one batch, checked.

    Raises PredictionFailed, InvalidPredictions or SignatureMismatch.
    """
    adapter = type(model).__name__
    predictions = _predict(model.predict_batch, adapter, signature.features(inputs), place)
    return signature.predictions(predictions, inputs.num_rows)


def _profile(signature: Signature, inputs: pa.Table, predictions: pa.Table) -> Profile:
    """Slice by slice, as a run is profiled; a sample may be the whole training frame."""
    found = kinds = Profile.blank(signature)
    for start in range(0, inputs.num_rows, _SLICE):
        rows, predicted = (side.slice(start, _SLICE) for side in (inputs, predictions))
        found = found.merged(Profile.of(rows, predicted, kinds))
    return found


def _predict(
    predict: Callable[[Features], PredictionArray], model: str, features: Features, place: str
) -> PredictionArray:
    try:
        return predict(features)
    except Exception as error:  # whatever a model may raise
        problem = f"{type(error).__name__}: {error}"
        raise PredictionFailed(model, place, problem) from error


def _require_modules(model: Model) -> None:
    """A pickle names what it is made of, and no worker can import the script that registers it."""
    mains = {name for module, name in parts_of(model) if module == "__main__"}
    if model.pickled and mains:
        problem = f"it uses {', '.join(sorted(mains))} of the script that registers it"
        remedy = "No worker can import that; move it to a module of its own."
        raise SerializationFailed(type(model).__name__, problem, remedy)
