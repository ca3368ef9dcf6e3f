"""Whether a run may go on where it stopped."""

from adapters.database.digests import digest
from adapters.database.ledger import Ledger
from adapters.database.snapshot import Snapshot
from adapters.database.source import Source


def unchanged(
    ledger: Ledger, source: Source, snapshot: Snapshot, run_id: int, chunk_rows: int
) -> bool:
    """Whether the rows that a run is done with are still the source's: the same keys and times.

    What has come, gone or been exchanged among them would be missing, or be there for ever. That
    their values may have changed meanwhile is another matter: each was as predicted at its time.
    `chunk_rows` is the size of the run's chunks.
    """
    digests = ledger.digests(run_id)
    kept = source.kept_columns
    try:
        for shard in ledger.shards(run_id):
            written = digests.get(shard.progress.shard, [])
            through = shard.through if shard.done else shard.progress.last_key
            if not written and not shard.done:
                continue
            snapshot.through = None if through is None else source.decode_key(through)
            after = None if shard.after is None else source.decode_key(shard.after)
            found = (digest(rows.select(kept)) for rows in snapshot.keys(after, chunk_rows))
            if list(found) != written:
                return False
    finally:
        snapshot.through = None
    return True
