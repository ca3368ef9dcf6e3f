"""How far apart two predictions for one row may be and still be the same."""

from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from nightshift.adapters.models.signature import Signature

_FLOATS = {"float32": (1e-5, 2e-5), "float64": (1e-9, 1e-7)}  # relative, absolute
_LARGEST_SHARE = 1e-3  # of the column's mean: else tiny probabilities would all be equal to zero


class Tolerance(BaseModel):
    """A relative and an absolute part, which are added; kept in a version's manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    relative: float = Field(ge=0, le=1)
    """Times the prediction, or the column's mean where that is more: the noise of a sum does not
    shrink with its result."""
    absolute: float = Field(default=0, ge=0, le=1)
    """Times the column's mean where that is above 1: a distance of zero is the root of a difference
    of squares, and its noise is far above that of the type."""

    @classmethod
    def of(cls, signature: Signature, declared: float) -> Self:
        """What the narrowest float among inputs and outputs needs, and at least the adapter's own.

        Another CPU's kernels add in another order, so no float is exact.
        """
        types = {column.type.removesuffix("[]") for column in signature.inputs + signature.outputs}
        narrowest = next((name for name in _FLOATS if name in types), None)
        relative, absolute = (0.0, 0.0) if narrowest is None else _FLOATS[narrowest]
        return cls(relative=max(relative, declared), absolute=absolute)

    def near(
        self, then: npt.NDArray[np.float64], now: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.bool_]:
        """(m,) and (m,) numbers of one column -> (m,) whether they are the same; NaN equals NaN."""
        finite = np.abs(then[np.isfinite(then)])
        with np.errstate(over="ignore"):
            mean = min(np.sum(finite / max(len(finite), 1)), np.finfo(np.float64).max)
        absolute = self.absolute * max(mean, 1)
        if mean:
            absolute = min(absolute, _LARGEST_SHARE * mean)
        with np.errstate(invalid="ignore", over="ignore"):  # inf - inf
            allowed = self.relative * np.maximum(np.abs(then), mean) + absolute
            near = np.abs(now - then) <= allowed
        near &= np.isfinite(then) & np.isfinite(now)
        return np.asarray(near | (then == now) | (np.isnan(then) & np.isnan(now)))
