"""Counts and shares in a job file."""

from decimal import Decimal
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshift.flows.config.quantities import Budget, MaxDistance, MaxRejects, Tolerance


class Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)

    max_rejects: MaxRejects = Budget()
    tolerance: MaxDistance = Tolerance()


@pytest.mark.parametrize(
    ("given", "budget", "text"),
    [
        (0, Budget(), "0"),
        (10, Budget(10), "10"),
        ("10", Budget(10), "10"),
        ("0.1%", Budget(share=Decimal("0.001")), "0.1%"),
        (" 5 % ", Budget(share=Decimal("0.05")), "5%"),
        ("100%", Budget(share=Decimal(1)), "100%"),
    ],
)
def test_what_max_rejects_may_be(given: Any, budget: Budget, text: str) -> None:
    part = Part(max_rejects=given)
    assert part.max_rejects == budget
    assert str(budget) == text
    assert Part.model_validate_json(part.model_dump_json()) == part


@pytest.mark.parametrize("given", [-1, 0.5, True, None, "", "some", "-1%", "1,5%", "%", [], "٣"])
def test_what_it_may_not_be(given: Any) -> None:
    with pytest.raises(pydantic.ValidationError) as raised:
        Part(max_rejects=given)
    assert raised.value.errors()[0]["type"] == "refused"
    assert "10, or like 0.1%" in raised.value.errors()[0]["ctx"]["remedy"]


def test_more_than_all() -> None:
    with pytest.raises(pydantic.ValidationError, match="more than 100%"):
        Part(max_rejects="101%")


@pytest.mark.parametrize(
    ("given", "tolerance", "text"),
    [
        (0, Tolerance(amount=0.0), "0"),
        (0.05, Tolerance(amount=0.05), "0.05"),
        ("2%", Tolerance(share=Decimal("0.02")), "2%"),
    ],
)
def test_what_a_tolerance_may_be(given: Any, tolerance: Tolerance, text: str) -> None:
    assert Part(tolerance=given).tolerance == tolerance
    assert str(tolerance) == text


@pytest.mark.parametrize("given", [-1, "near", True, float("nan"), float("inf"), None])
def test_what_a_tolerance_may_not_be(given: Any) -> None:
    with pytest.raises(pydantic.ValidationError, match="neither an amount nor a share"):
        Part(tolerance=given)


@pytest.mark.parametrize(
    ("budget", "rejects", "rows", "too_many"),
    [
        (Budget(), 0, 0, False),
        (Budget(), 1, 100, True),
        (Budget(7), 7, 7, False),
        (Budget(7), 8, 10**9, True),
        (Budget(share=Decimal("0.007")), 7, 1000, False),  # 0.007 * 1000 is below 7 as floats
        (Budget(share=Decimal("0.007")), 8, 1000, True),
        (Budget(share=Decimal("0.001")), 1, 999, True),
        (Budget(share=Decimal(1)), 5, 5, False),
    ],
)
def test_the_budget_decides(budget: Budget, rejects: int, rows: int, too_many: bool) -> None:
    assert (rejects > budget.allowed(rows)) is too_many


@given(st.integers(0, 10**6), st.integers(0, 100), st.integers(0, 10**6))
def test_a_share_is_exact(rows: int, percent: int, rejects: int) -> None:
    budget = Part(max_rejects=f"{percent}%").max_rejects
    assert (rejects > budget.allowed(rows)) is (rejects * 100 > percent * rows)
