"""What touches the outside world: models, the model store, databases. Knows nothing of Prefect."""

from adapters.model import Model
from adapters.signature import Signature

__all__ = ["Model", "Signature"]
