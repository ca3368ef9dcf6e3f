"""Every error of the tree crosses a task runner whole."""

import inspect
import pickle
from collections.abc import Iterator
from typing import Any, get_type_hints

import pytest

from nightshift.adapters import errors
from nightshift.adapters.errors import NightshiftError

EXAMPLES: dict[Any, Any] = {
    str: "some text",
    int: 7,
    float: 1.5,
    float | None: 0.5,
    int | None: 3,
    str | None: "some text",
    tuple[str, ...]: ("one", "two"),
    tuple[tuple[str, str], ...]: (("one", "some text"),),
}


def tree(branch: type[NightshiftError]) -> Iterator[type[NightshiftError]]:
    yield branch
    for child in branch.__subclasses__():
        yield from tree(child)


def leaves() -> list[type[NightshiftError]]:
    ours = [kind for kind in tree(NightshiftError) if kind.__module__.startswith(errors.__name__)]
    return [kind for kind in ours if not kind.__subclasses__()]


def example(leaf: type[NightshiftError]) -> NightshiftError:
    hints = get_type_hints(leaf.__init__)
    names = list(inspect.signature(leaf).parameters)
    return leaf(*(EXAMPLES[hints[name]] for name in names))


@pytest.mark.parametrize("leaf", leaves())
def test_survives_pickling(leaf: type[NightshiftError]) -> None:
    error = example(leaf)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is leaf
    assert copy.args == error.args
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)


@pytest.mark.parametrize("leaf", leaves())
def test_says_its_fields(leaf: type[NightshiftError]) -> None:
    error = example(leaf)
    assert error.args == tuple(vars(error).values())
    assert "some text" in str(error) or "one, two" in str(error) or "7" in str(error)
    assert "object at 0x" not in str(error)


@pytest.mark.parametrize("kind", [*tree(NightshiftError)])
def test_is_in_the_tree_that_people_read(kind: type[NightshiftError]) -> None:
    assert kind.__name__ in (errors.__doc__ or "")
    assert kind.__name__ in errors.__all__
