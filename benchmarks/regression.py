"""Has it become slower? Nightshift's speed as a share of the floor's, against what was recorded.

    python benchmarks/regression.py            # about half a minute; prints the ratios
    python benchmarks/regression.py --record   # keeps them in benchmarks/ratios.json

The floor is a hand-written program without any checks (benchmarks/peers/floor.py), so that the
machine and its load cancel out. Noise does not fail: only less than half of a recorded ratio does,
three times in a row. Nightshift's time is that of its scoring, since fixed costs would weigh more
in so small a table than in a real one.
"""

import argparse
import json
import os
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from compare import arena, take_turn, verify  # noqa: E402

RATIOS = HERE / "ratios.json"
MODELS = ["linear", "pipeline"]
ROWS = 100_000
ROUNDS = 3
"""At most: one is enough if it is good."""
FAILS_BELOW = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--record", action="store_true")
    record = parser.parse_args().record
    recorded = json.loads(RATIOS.read_text()) if RATIOS.exists() else {}
    home = Path.cwd()
    with (
        tempfile.TemporaryDirectory(prefix="nightshift-", ignore_cleanup_errors=True) as folder,
        arena(Path(folder), ROWS, MODELS) as place,
    ):
        found = {
            model: measure(place, model, FAILS_BELOW * recorded.get(model, 0)) for model in MODELS
        }
        os.chdir(home)
    lost = False
    for model, ratio in found.items():
        before = recorded.get(model)
        lost |= before is not None and ratio < FAILS_BELOW * before
        print(f"{model:<10} {ratio:6.2f} of the floor's speed; recorded: {before}")
    if record:
        kept = {model: round(ratio, 2) for model, ratio in found.items()}
        RATIOS.write_text(json.dumps(kept, indent=1) + "\n")
        return
    if lost:
        print(f"Less than {FAILS_BELOW} of what was recorded: something became much slower.")
    sys.exit(lost)


def measure(place: dict[str, object], model: str, enough: float) -> float:
    """The floor's seconds to Nightshift's while it scores, in the best round."""
    options = Namespace(rows=ROWS, limit=300.0, peers=sys.executable)
    best = 0.0
    for _ in range(ROUNDS):
        floor, wanted = take_turn(place, model, "floor", options)
        ours, sums = take_turn(place, model, "nightshift", options)
        verify("nightshift", model, wanted, sums, ROWS)
        best = max(best, floor["seconds"] / ours["scoring_seconds"])
        if best >= enough:
            break
    return best


if __name__ == "__main__":
    main()
