"""What the runs of one job with one model version share."""

from dataclasses import dataclass
from datetime import datetime

from nightshift.adapters.store.manifest import Manifest
from nightshift.adapters.target.predictions import PredictionTable
from nightshift.flows.config.resources import JobResources
from nightshift.flows.scoring.loaded_model import LoadedModel


@dataclass(frozen=True)
class RunContext:
    """Open resources and loaded models: of one run, or of all the runs of a backfill."""

    resources: JobResources
    predictions: PredictionTable
    model: LoadedModel
    challenger: LoadedModel | None = None
    unless_published_since: datetime | None = None
    """In a backfill: skip what another run has published or quarantined since it was planned."""
    unless_changed: bool = False
    """And skip a partition of which readers see anything new since then."""

    @property
    def manifest(self) -> Manifest:
        return self.model.manifest
