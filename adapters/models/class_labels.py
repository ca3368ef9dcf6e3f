"""A classifier's classes: which probabilities are wanted and what their columns are called."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator

from nightshift.adapters.errors import ConfigurationError


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value


Label = Annotated[bool | int | float | str, BeforeValidator(_plain)]
Output = Literal["predict", "predict_proba"]  # values or labels; probabilities


def class_labels(model: str, labels: Sequence[Any] | None, count: int) -> tuple[Any, ...]:
    """The classes' names, 0 .. count - 1 if none are given; a model without classes has none.

    Raises ConfigurationError if there are more or fewer names than classes.
    """
    if labels is None:
        return tuple(range(count))
    if len(labels) != count:
        problem = f"there are {len(labels)} labels, but the model has {count} classes"
        raise ConfigurationError(model, "labels", problem, "Give one label per class, in order.")
    return tuple(labels)


def positions(model: str, labels: Sequence[Any], chosen: Sequence[Any] | None) -> list[int]:
    """Where the chosen classes are among the labels, all of them if none were chosen.

    Raises ConfigurationError for a class that the model does not know, or a model without classes.
    """
    known = list(labels)
    if not known:
        remedy = 'Register its values with output="predict".'
        raise ConfigurationError(model, "output", "the model gives no probabilities", remedy)
    if chosen is None:
        return list(range(len(known)))
    for label in chosen:
        if label not in known:
            remedy = f"Its classes are {', '.join(repr(_plain(one)) for one in known)}."
            raise ConfigurationError(model, "classes", f"there is no class {label!r}", remedy)
    return [known.index(label) for label in chosen]


def probability_names(labels: Sequence[Any], chosen: Sequence[int]) -> list[str]:
    """One column name per chosen position: `probability_yes`."""
    return [f"probability_{labels[position]}" for position in chosen]


def both(probability: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(m,) probability of the second of two classes -> (m, 2) of both; (m, k) stays."""
    if probability.ndim == 1:
        return np.column_stack([1 - probability, probability])
    return probability
