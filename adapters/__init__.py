"""What touches the outside world: models, the model store, databases. Knows nothing of Prefect."""

from nightshift.adapters.models.model import Model
from nightshift.adapters.models.signature import Signature

__all__ = ["Model", "Signature"]
