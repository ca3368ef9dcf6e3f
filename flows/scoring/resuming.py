"""Where a run goes on: what is left of its shards, and whether what it has read still holds."""

from collections.abc import Sequence
from contextlib import closing
from itertools import zip_longest

from nightshift.adapters.ledger.ledger import Ledger
from nightshift.adapters.ledger.shards import Shard
from nightshift.adapters.source.checksums import digest
from nightshift.adapters.source.columns import KeyRange
from nightshift.adapters.source.snapshot import Snapshot
from nightshift.adapters.source.source import Source


def is_unchanged(
    ledger: Ledger,
    source: Source,
    snapshot: Snapshot,
    run_id: int,
    chunk_rows: int,
    inputs: Sequence[str],
) -> bool:
    """Whether the source still has exactly the rows that the run has scored, value by value.

    A row inserted, deleted or updated behind the resume point would never be noticed. With this
    check, a resumed run has the same rows as one that had read all of them from this snapshot.
    `chunk_rows` is the size of the run's chunks; `inputs` are its model's input columns.
    """
    checksums = ledger.checksums(run_id)
    kept = source.kept_columns
    for shard in ledger.shards(run_id):
        written = checksums.get(shard.progress.shard, [])
        if not written and not shard.done:
            continue
        through = shard.through if shard.done else shard.progress.last_key
        keys = source.decode_range(shard.after, through)
        with closing(snapshot.chunks(keys, chunk_rows)) as chunks:
            found = (digest(rows.select(kept), rows.select(inputs)) for rows in chunks)
            if any(now != then for now, then in zip_longest(found, written)):
                return False
    return True


def remaining_keys(source: Source, shard: Shard) -> KeyRange:
    """The range of keys that the shard has not written yet."""
    return source.decode_range(shard.progress.last_key or shard.after, shard.through)


def count_remaining(source: Source, snapshot: Snapshot, shards: Sequence[Shard]) -> int:
    """Rows of the snapshot that no shard has written yet."""
    return sum(snapshot.count(remaining_keys(source, s)) for s in shards if not s.done)


def count_rows(source: Source, snapshot: Snapshot, shards: Sequence[Shard]) -> tuple[int, ...]:
    """Rows of the snapshot in each shard, counted by the database."""
    ranges = [source.decode_range(shard.after, shard.through) for shard in shards]
    return tuple(map(snapshot.count, ranges))
