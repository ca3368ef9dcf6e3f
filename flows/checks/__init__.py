"""What must hold before readers see a run.

audit.py runs all checks; each kind is a file (volume, columns, drift, custom); results.py is what
they return; evidence.py is what they may ask. `Evidence` and `NotJudged` are public: users' own
checks take the one and may raise the other.
"""

from nightshift.flows.checks.evidence import Evidence
from nightshift.flows.checks.results import NotJudged

__all__ = ["Evidence", "NotJudged"]
