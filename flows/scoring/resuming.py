"""Whether a run may go on where it stopped."""

from collections.abc import Sequence
from contextlib import closing
from itertools import zip_longest

from nightshift.adapters.ledger.ledger import Ledger
from nightshift.adapters.source.checksums import digest
from nightshift.adapters.source.snapshot import Snapshot
from nightshift.adapters.source.source import Source


def unchanged(
    ledger: Ledger,
    source: Source,
    snapshot: Snapshot,
    run_id: int,
    chunk_rows: int,
    inputs: Sequence[str],
) -> bool:
    """Whether the rows that a run is done with are still the source's, value by value.

    What has come, gone or changed among them would be missing, or be there, or be as it was, for
    ever. So a run that goes on is, in the end, as if it had read all its rows from this snapshot.
    `chunk_rows` is the size of the run's chunks, `inputs` is what its model is given.
    """
    checksums = ledger.checksums(run_id)
    kept = source.kept_columns
    for shard in ledger.shards(run_id):
        written = checksums.get(shard.progress.shard, [])
        through = shard.through if shard.done else shard.progress.last_key
        if not written and not shard.done:
            continue
        keys = source.decode_range(shard.after, through)
        with closing(snapshot.chunks(keys, chunk_rows)) as chunks:
            found = (digest(rows.select(kept), rows.select(inputs)) for rows in chunks)
            if any(now != then for now, then in zip_longest(found, written)):
                return False
    return True
