"""Everything that can go wrong, as one tree.

    NightshiftError
    ├── ConfigurationError          a file, parameter or setting is wrong; names file, field, remedy
    ├── BackfillFailed              some of its partitions failed; names them and why
    ├── RunTimedOut                 scoring took longer than the job's timeout
    ├── ModelError
    │   ├── AdapterNotFound         no adapter has that name
    │   ├── LibraryNotInstalled     the adapter's library is missing; names the pip install line
    │   ├── SerializationFailed     the model did not become bytes, or bytes did not become a model
    │   ├── SignatureUndefined      a sample does not say what the model's inputs or outputs are
    │   ├── SignatureMismatch       data does not fit the signature; names the column
    │   ├── PredictionFailed        predict_batch raised
    │   ├── PredictionTimedOut      predict_batch did not answer in time, and cannot be waited for
    │   ├── RejectsExceeded         more rows could not be scored than the job allows
    │   ├── InvalidPredictions      predict_batch returned the wrong number of rows, or no numbers
    │   ├── GoldenRowsDiffer        the model predicts otherwise here than when it was published
    │   ├── VersionSkew             other library versions here than when it was published
    │   ├── ModelUntrusted          the operator's trust policy does not let this model be opened
    │   ├── JobsBroken              jobs that use an alias could not run with this version
    │   ├── AgreementTooLow         as a challenger it agreed too little, or was never compared
    │   └── Leakage                 the rows are among those that the model was trained on
    ├── StoreError
    │   ├── ModelNotFound           no such model, version or alias
    │   ├── StoreNotFound           no such bucket or folder
    │   ├── StoreAccessDenied       wrong or missing credentials
    │   ├── StoreUnsafe             the storage ignores conditional writes
    │   ├── StoreRefused            any other refusal of the storage, in its own words
    │   ├── AliasMoved              somebody else moved the alias first
    │   ├── RecordInvalid           a manifest or alias file cannot be understood
    │   └── BlobCorrupt             the bytes do not have their digest
    ├── DatabaseError
    │   ├── TableNotFound, ColumnNotFound, ColumnTypeUnsupported, ColumnNameReserved
    │   ├── KeyNotUnique            the source's key is not unique, or not declared so
    │   ├── RowWithoutTime          a row with NULL in the time column belongs to no partition
    │   ├── ValueUnreadable         a value that no model can be given, such as an infinite time
    │   ├── ValueUnstorable         a prediction that the target database cannot hold, such as NaN
    │   ├── LedgerIncompatible      the ledger was made by another version of Nightshift
    │   ├── TargetMismatch          the target table has other columns than this job would write
    │   ├── PartitionBusy           somebody alive is scoring this partition
    │   ├── AlreadyPublished        readers see something newer of this partition
    │   ├── OwnershipLost           this run was taken over; nothing more may be written
    │   ├── RunIncomplete           a run cannot end while one of its shards is not done
    │   ├── RunUnknown              the ledger has no such run
    │   ├── Quarantined             the audit found the run wrong; readers do not see it
    │   ├── RunNotQuarantined       only what the audit has rejected can be released
    │   ├── RunNotReplayable        rows cannot be merged into this run
    │   ├── NothingToRollBackTo     no other run of that partition can be shown again
    │   ├── RowsMissing             the source gave another number of rows than its snapshot holds
    │   └── StatementFailed         any other refusal of the database, in its own words
    └── TransientError              what may succeed when tried again; only these are retried
        ├── StoreUnavailable
        ├── DatabaseUnavailable
        └── WorkerLost              a process that scored a shard has ended without a word

An error's arguments are its fields, all positional, so that it survives pickling across task
runners; its text is made in `__str__` and says what is wrong, where, and what to do.
"""


class NightshiftError(Exception):
    """The root; catch it to catch everything that Nightshift raises on purpose."""


class ConfigurationError(NightshiftError):
    def __init__(self, place: str, field: str, problem: str, remedy: str) -> None:
        super().__init__(place, field, problem, remedy)
        self.place, self.field, self.problem, self.remedy = place, field, problem, remedy

    def __str__(self) -> str:
        where = f"{self.place}: {self.field}" if self.field else self.place
        return f"{where}: {self.problem}. {self.remedy}"


class BackfillFailed(NightshiftError):
    def __init__(self, job: str, partitions: int, failures: tuple[tuple[str, str], ...]) -> None:
        super().__init__(job, partitions, failures)
        self.job, self.partitions, self.failures = job, partitions, failures

    def __str__(self) -> str:
        told = "; ".join(f"{partition}: {reason}" for partition, reason in self.failures[:5])
        more = f"; and {len(self.failures) - 5} more" if len(self.failures) > 5 else ""
        return (
            f"{len(self.failures)} of {self.partitions} partitions failed. {told}{more} "
            f"({self.job}; started again with `reprocess: failed`, it does only these)"
        )


class RunTimedOut(NightshiftError):
    def __init__(self, job: str, partition: str, seconds: float) -> None:
        super().__init__(job, partition, seconds)
        self.job, self.partition, self.seconds = job, partition, seconds

    def __str__(self) -> str:
        return (
            f"Scoring {self.job} {self.partition} took longer than {self.seconds:g} s, the job's "
            "timeout. What it wrote is kept: run it again to go on, or raise `timeout`."
        )


# --- models -------------------------------------------------------------------------------------


class ModelError(NightshiftError):
    """A model, or what it was given or gave back, is wrong."""


class AdapterNotFound(ModelError):
    def __init__(self, adapter: str, known: tuple[str, ...]) -> None:
        super().__init__(adapter, known)
        self.adapter, self.known = adapter, known

    def __str__(self) -> str:
        return (
            f"No model adapter is called {self.adapter!r}; known are {', '.join(self.known)}. "
            "An adapter of your own is found by an entry point in the group 'nightshift.adapters'."
        )


class LibraryNotInstalled(ModelError):
    def __init__(self, adapter: str, library: str, extra: str) -> None:
        super().__init__(adapter, library, extra)
        self.adapter, self.library, self.extra = adapter, library, extra

    def __str__(self) -> str:
        return (
            f"The adapter {self.adapter!r} needs {self.library}, which is not installed here. "
            f"Install it with: pip install 'nightshift[{self.extra}]'"
        )


class SerializationFailed(ModelError):
    def __init__(self, model: str, problem: str, remedy: str) -> None:
        super().__init__(model, problem, remedy)
        self.model, self.problem, self.remedy = model, problem, remedy

    def __str__(self) -> str:
        return f"{self.model}: {self.problem}. {self.remedy}"


class SignatureUndefined(ModelError):
    def __init__(self, column: str, problem: str, remedy: str) -> None:
        super().__init__(column, problem, remedy)
        self.column, self.problem, self.remedy = column, problem, remedy

    def __str__(self) -> str:
        return f"The signature cannot be taken: {self.column}: {self.problem}. {self.remedy}"


class SignatureMismatch(ModelError):
    def __init__(self, column: str, expected: str, found: str, remedy: str) -> None:
        super().__init__(column, expected, found, remedy)
        self.column, self.expected, self.found, self.remedy = column, expected, found, remedy

    def __str__(self) -> str:
        return (
            f"Column {self.column!r}: the model's signature says {self.expected}, "
            f"the data has {self.found}. {self.remedy}"
        )


class PredictionFailed(ModelError):
    def __init__(self, model: str, place: str, problem: str) -> None:
        super().__init__(model, place, problem)
        self.model, self.place, self.problem = model, place, problem

    def __str__(self) -> str:
        return (
            f"{self.model} could not predict {self.place}: {' '.join(self.problem.split())}. "
            "Mend the model, or the rows it was given; readers see what they saw before."
        )


class PredictionTimedOut(ModelError):
    def __init__(self, model: str, place: str, seconds: float, why: str) -> None:
        super().__init__(model, place, seconds, why)
        self.model, self.place, self.seconds, self.why = model, place, seconds, why

    def __str__(self) -> str:
        return (
            f"{self.model} did not predict {self.place} within {self.seconds:g} s, the job's "
            f"predict_timeout, and the run stopped because {self.why}. Run it again to go on, with "
            "a longer predict_timeout or a smaller chunk_rows, or mend the model."
        )


class RejectsExceeded(ModelError):
    def __init__(
        self,
        model: str,
        rejects: int,
        rows: int,
        budget: str,
        examples: tuple[tuple[str, str], ...],
    ) -> None:
        super().__init__(model, rejects, rows, budget, examples)
        self.model, self.rejects, self.rows = model, rejects, rows
        self.budget, self.examples = budget, examples

    def __str__(self) -> str:
        told = "".join(f"; {key}: {error}" for key, error in self.examples[:3])
        return (
            f"{self.model} could not score {self.rejects:,} of {self.rows:,} rows, and max_rejects "
            f"is {self.budget}{told}. Mend these rows or the model, or raise max_rejects; readers "
            "see what they saw before."
        )


class InvalidPredictions(ModelError):
    def __init__(self, expected: str, found: str) -> None:
        super().__init__(expected, found)
        self.expected, self.found = expected, found

    def __str__(self) -> str:
        return (
            f"predict_batch should have returned {self.expected}, but returned {self.found}. "
            "Mend predict_batch and publish a new version."
        )


class GoldenRowsDiffer(ModelError):
    def __init__(self, model: str, problem: str, versions: tuple[str, ...]) -> None:
        super().__init__(model, problem, versions)
        self.model, self.problem, self.versions = model, problem, versions

    def __str__(self) -> str:
        changed = ", ".join(self.versions) or "the same library versions then and now"
        return (
            f"{self.model} predicts otherwise here than when it was published: {self.problem}; "
            f"{changed}. Nothing was scored. Install the versions of then, or publish it again."
        )


class VersionSkew(ModelError):
    def __init__(self, model: str, versions: tuple[str, ...]) -> None:
        super().__init__(model, versions)
        self.model, self.versions = model, versions

    def __str__(self) -> str:
        return (
            f"{self.model} was published with other library versions: {', '.join(self.versions)}. "
            "Install the versions of then, publish it again, or set trust.version_skew to 'warn'."
        )


class ModelUntrusted(ModelError):
    def __init__(self, model: str, problem: str, remedy: str) -> None:
        super().__init__(model, problem, remedy)
        self.model, self.problem, self.remedy = model, problem, remedy

    def __str__(self) -> str:
        return f"{self.model} was not opened: {self.problem}. {self.remedy}"


class JobsBroken(ModelError):
    def __init__(self, model: str, alias: str, jobs: tuple[tuple[str, str], ...]) -> None:
        super().__init__(model, alias, jobs)
        self.model, self.alias, self.jobs = model, alias, jobs

    def __str__(self) -> str:
        told = " ".join(f"{job}: {problem}" for job, problem in self.jobs)
        return (
            f"{self.model} was not made {self.alias!r}, because jobs that use that alias could "
            f"not run with it. {told} Mend them first, or promote it all the same with --force."
        )


class AgreementTooLow(ModelError):
    def __init__(
        self,
        model: str,
        alias: str,
        job: str,
        level: float,
        agreement: float | None,
        run_id: int | None,
        problem: str,
    ) -> None:
        super().__init__(model, alias, job, level, agreement, run_id, problem)
        self.model, self.alias, self.job, self.level = model, alias, job, level
        self.agreement, self.run_id, self.problem = agreement, run_id, problem

    def __str__(self) -> str:
        look = "Have it scored beside it, as the job's challenger"
        if self.run_id is not None:
            look = f"`nightshift report {self.run_id}` shows how they differ"
        return (
            f"{self.model} was not made {self.alias!r}: job {self.job!r} asks that it agree with "
            f"its champion in {100 * self.level:.6g} % of the rows first, and {self.problem}. "
            f"{look}; or promote it all the same with --force."
        )


class Leakage(ModelError):
    def __init__(self, model: str, trained_through: str, partition: str) -> None:
        super().__init__(model, trained_through, partition)
        self.model, self.trained_through, self.partition = model, trained_through, partition

    def __str__(self) -> str:
        return (
            f"{self.model} was trained through {self.trained_through}, and the partition "
            f"{self.partition} begins before that: its predictions there would look better than "
            "they are. Score a later partition, or allow it with --allow-leakage."
        )


# --- the model store ----------------------------------------------------------------------------


class StoreError(NightshiftError):
    """The model store answered, and the answer is no."""


class ModelNotFound(StoreError):
    def __init__(self, store: str, reference: str, known: tuple[str, ...]) -> None:
        super().__init__(store, reference, known)
        self.store, self.reference, self.known = store, reference, known

    def __str__(self) -> str:
        there = f"it has {', '.join(self.known)}" if self.known else "it has none"
        name, _, pointer = self.reference.partition("@")
        mine = [known for known in self.known if known.rpartition("@")[0] == name]
        mine = [known for known in mine if known.rpartition("@")[2].isdigit()]
        remedy = "`nightshift models` lists what can be used; `nightshift publish` adds to it."
        if mine and not pointer.isdigit():
            version = mine[-1].rpartition("@")[2]
            remedy = f"`nightshift promote {name} {version}` lets an alias name a version."
        return f"{self.reference!r} is not in the model store {self.store}: {there}. {remedy}"


class StoreNotFound(StoreError):
    def __init__(self, store: str) -> None:
        super().__init__(store)
        self.store = store

    def __str__(self) -> str:
        return (
            f"The model store {self.store} does not exist. "
            "Create the bucket, or correct store.url in nightshift.yaml."
        )


class StoreAccessDenied(StoreError):
    def __init__(self, store: str, problem: str) -> None:
        super().__init__(store, problem)
        self.store, self.problem = store, problem

    def __str__(self) -> str:
        return (
            f"The model store {self.store} refused access: {self.problem}. Check the credentials: "
            "NIGHTSHIFT_STORE__KEY and NIGHTSHIFT_STORE__SECRET, or the usual AWS_ variables."
        )


class StoreUnsafe(StoreError):
    def __init__(self, store: str, problem: str) -> None:
        super().__init__(store, problem)
        self.store, self.problem = store, problem

    def __str__(self) -> str:
        return (
            f"The model store {self.store} cannot keep versions apart: {self.problem}. "
            "Use storage with atomic conditional writes (AWS S3, Ceph, a local folder, ...)."
        )


class StoreRefused(StoreError):
    def __init__(self, place: str, doing: str, problem: str) -> None:
        super().__init__(place, doing, problem)
        self.place, self.doing, self.problem = place, doing, problem

    def __str__(self) -> str:
        return f"{self.place} refused to {self.doing}: {self.problem}"


class AliasMoved(StoreError):
    def __init__(self, model: str, alias: str, expected: int | None, found: int | None) -> None:
        super().__init__(model, alias, expected, found)
        self.model, self.alias, self.expected, self.found = model, alias, expected, found

    def __str__(self) -> str:
        return (
            f"{self.model}@{self.alias} was to move from version {self.expected}, but somebody "
            f"moved it to {self.found} meanwhile. Look at `nightshift models`, then promote again."
        )


class RecordInvalid(StoreError):
    def __init__(self, place: str, problem: str) -> None:
        super().__init__(place, problem)
        self.place, self.problem = place, problem

    def __str__(self) -> str:
        return (
            f"{self.place} cannot be understood: {self.problem}. "
            "It was damaged, exchanged, or written by a newer Nightshift. Publish another version; "
            "if it is an alias, delete the file and promote again."
        )


class BlobCorrupt(StoreError):
    def __init__(self, place: str, expected: str, found: str) -> None:
        super().__init__(place, expected, found)
        self.place, self.expected, self.found = place, expected, found

    def __str__(self) -> str:
        return (
            f"{self.place} should have the SHA-256 digest {self.expected} but has {self.found}. "
            "It was damaged or exchanged and was not opened. Publish the model again."
        )


# --- the database -------------------------------------------------------------------------------


class DatabaseError(NightshiftError):
    """The database answered, and the answer is no."""


class TableNotFound(DatabaseError):
    def __init__(self, table: str, known: tuple[str, ...]) -> None:
        super().__init__(table, known)
        self.table, self.known = table, known

    def __str__(self) -> str:
        there = f"it has {', '.join(self.known)}" if self.known else "it has no tables"
        return (
            f"The source database has no table {self.table!r}: {there}. "
            "Correct source.table in the job file."
        )


class ColumnNotFound(DatabaseError):
    def __init__(self, source: str, column: str, needed_for: str, known: tuple[str, ...]) -> None:
        super().__init__(source, column, needed_for, known)
        self.source, self.column, self.needed_for, self.known = source, column, needed_for, known

    def __str__(self) -> str:
        return (
            f"{self.source} has no column {self.column!r}, needed as {self.needed_for}; "
            f"it has {', '.join(self.known)}. Add the column to the source, or correct the job."
        )


class ColumnTypeUnsupported(DatabaseError):
    def __init__(self, source: str, column: str, found: str, needed_for: str) -> None:
        super().__init__(source, column, found, needed_for)
        self.source, self.column, self.found, self.needed_for = source, column, found, needed_for

    def __str__(self) -> str:
        return (
            f"{self.source}: column {self.column!r} has type {self.found}, which cannot serve as "
            f"{self.needed_for}. Cast it in a source query."
        )


class ColumnNameReserved(DatabaseError):
    def __init__(self, source: str, column: str, needed_for: str) -> None:
        super().__init__(source, column, needed_for)
        self.source, self.column, self.needed_for = source, column, needed_for

    def __str__(self) -> str:
        return (
            f"{self.source}: column {self.column!r} cannot be {self.needed_for}: Nightshift has a "
            "column of its own with that name. Give it another name in a source query."
        )


class KeyNotUnique(DatabaseError):
    def __init__(self, source: str, key: tuple[str, ...], problem: str, remedy: str) -> None:
        super().__init__(source, key, problem, remedy)
        self.source, self.key, self.problem, self.remedy = source, key, problem, remedy

    def __str__(self) -> str:
        return (
            f"{self.source}: the key ({', '.join(self.key)}) does not name one row: "
            f"{self.problem}. {self.remedy}"
        )


class RowWithoutTime(DatabaseError):
    def __init__(self, source: str, column: str) -> None:
        super().__init__(source, column)
        self.source, self.column = source, column

    def __str__(self) -> str:
        return (
            f"{self.source} has rows with NULL in the time column {self.column!r}; they belong to "
            "no partition and would silently get no prediction. Fill them, or leave them out in "
            "a source query."
        )


class ValueUnreadable(DatabaseError):
    def __init__(self, source: str, column: str, row: str, problem: str) -> None:
        super().__init__(source, column, row, problem)
        self.source, self.column, self.row, self.problem = source, column, row, problem

    def __str__(self) -> str:
        return (
            f"{self.source}: column {self.column!r} of the row {self.row} {self.problem}. "
            "Correct the value, or leave the row out in a source query."
        )


class ValueUnstorable(DatabaseError):
    def __init__(self, target: str, column: str, row: str, value: str, database: str) -> None:
        super().__init__(target, column, row, value, database)
        self.target, self.column, self.row = target, column, row
        self.value, self.database = value, database

    def __str__(self) -> str:
        return (
            f"Target {self.target!r}: column {self.column!r} of the row {self.row} would be "
            f"{self.value}, which {self.database} cannot hold. Nothing was written of its chunk. "
            "Mend the model, or keep its predictions in another database."
        )


class TargetMismatch(DatabaseError):
    def __init__(self, target: str, problem: str, remedy: str) -> None:
        super().__init__(target, problem, remedy)
        self.target, self.problem, self.remedy = target, problem, remedy

    def __str__(self) -> str:
        return f"Target {self.target!r}: {self.problem}. {self.remedy}"


class LedgerIncompatible(DatabaseError):
    def __init__(self, database: str, problem: str, remedy: str) -> None:
        super().__init__(database, problem, remedy)
        self.database, self.problem, self.remedy = database, problem, remedy

    def __str__(self) -> str:
        return f"The ledger in {self.database} cannot be used: {self.problem}. {self.remedy}"


class PartitionBusy(DatabaseError):
    def __init__(self, job: str, partition: str, run_id: int, owner: str, seconds: float) -> None:
        super().__init__(job, partition, run_id, owner, seconds)
        self.job, self.partition, self.run_id = job, partition, run_id
        self.owner, self.seconds = owner, seconds

    def __str__(self) -> str:
        return (
            f"{self.job} {self.partition} is being scored by run {self.run_id} ({self.owner}, "
            f"last seen {self.seconds:.0f} s ago). Wait for it; an owner that is silent for longer "
            "than its lease is taken over by the next run."
        )


class AlreadyPublished(DatabaseError):
    def __init__(self, job: str, partition: str, run_id: int) -> None:
        super().__init__(job, partition, run_id)
        self.job, self.partition, self.run_id = job, partition, run_id

    def __str__(self) -> str:
        return (
            f"Run {self.run_id} was published meanwhile, so nothing is to be done about {self.job} "
            f"{self.partition}: readers see what is newer."
        )


class OwnershipLost(DatabaseError):
    def __init__(self, run_id: int) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    def __str__(self) -> str:
        return (
            f"Run {self.run_id} was taken over by another worker, or ended, while this one was "
            "away. What this one wanted to write was not written; readers see none of it."
        )


class RunIncomplete(DatabaseError):
    def __init__(self, run_id: int, shards: int) -> None:
        super().__init__(run_id, shards)
        self.run_id, self.shards = run_id, shards

    def __str__(self) -> str:
        return (
            f"Run {self.run_id} cannot end: {self.shards} of its shards are not done. Run the "
            "partition again; it goes on where they stopped."
        )


class RunUnknown(DatabaseError):
    def __init__(self, run_id: int) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    def __str__(self) -> str:
        return f"There is no run {self.run_id}. `nightshift runs` lists them."


class Quarantined(DatabaseError):
    def __init__(self, job: str, partition: str, run_id: int, reason: str) -> None:
        super().__init__(job, partition, run_id, reason)
        self.job, self.partition, self.run_id, self.reason = job, partition, run_id, reason

    def __str__(self) -> str:
        return (
            f"{self.reason}. So run {self.run_id} of {self.job} {self.partition} is quarantined: "
            "readers go on seeing what was published before. `nightshift report "
            f"{self.run_id}` shows the checks, and `nightshift release {self.run_id} --reason "
            '"..."` publishes it after all.'
        )


class RunNotQuarantined(DatabaseError):
    def __init__(self, run_id: int, problem: str) -> None:
        super().__init__(run_id, problem)
        self.run_id, self.problem = run_id, problem

    def __str__(self) -> str:
        return (
            f"Run {self.run_id} cannot be released: {self.problem}. Only a run that the audit has "
            "rejected can; `nightshift rollback JOB --to RUN` shows a former one again."
        )


class RunNotReplayable(DatabaseError):
    def __init__(self, run_id: int, problem: str) -> None:
        super().__init__(run_id, problem)
        self.run_id, self.problem = run_id, problem

    def __str__(self) -> str:
        return (
            f"Rows cannot be merged into run {self.run_id}: {self.problem}. Only a published or a "
            "quarantined run takes some; one that failed is scored again by the next run."
        )


class NothingToRollBackTo(DatabaseError):
    def __init__(self, job: str, partition: str, wanted: int | None, runs: tuple[str, ...]) -> None:
        super().__init__(job, partition, wanted, runs)
        self.job, self.partition, self.wanted, self.runs = job, partition, wanted, runs

    def __str__(self) -> str:
        what = "an earlier run" if self.wanted is None else f"run {self.wanted}"
        there = ", ".join(self.runs)
        choice = f"Name one of these with --to: {there}." if there else "No other run covers it."
        return (
            f"{self.job} {self.partition} cannot be rolled back to {what}: it was never "
            f"published for all of this partition, or its rows are gone. {choice}"
        )


class RowsMissing(DatabaseError):
    def __init__(self, source: str, expected: int, found: int) -> None:
        super().__init__(source, expected, found)
        self.source, self.expected, self.found = source, expected, found

    def __str__(self) -> str:
        return (
            f"{self.source}: the snapshot holds {self.expected:,} rows, but {self.found:,} were "
            "read. Nothing was published. Does the source query give the same rows every time?"
        )


class StatementFailed(DatabaseError):
    def __init__(self, doing: str, problem: str) -> None:
        super().__init__(doing, problem)
        self.doing, self.problem = doing, problem

    def __str__(self) -> str:
        return f"The database refused {self.doing}: {self.problem}"


# --- what may be tried again --------------------------------------------------------------------


class TransientError(NightshiftError):
    """The world is away for a moment; the same call may succeed later."""


class StoreUnavailable(TransientError):
    def __init__(self, store: str, problem: str) -> None:
        super().__init__(store, problem)
        self.store, self.problem = store, problem

    def __str__(self) -> str:
        return (
            f"The model store {self.store} cannot be reached: {self.problem}. "
            "Check store.url and store.endpoint_url, and that the server is up."
        )


class DatabaseUnavailable(TransientError):
    def __init__(self, database: str, problem: str) -> None:
        super().__init__(database, problem)
        self.database, self.problem = database, problem

    def __str__(self) -> str:
        return (
            f"The database {self.database} cannot be reached: {self.problem}. "
            "Check database.url, and that the server is up; a run resumes where it stopped."
        )


class WorkerLost(TransientError):
    def __init__(self, job: str, partition: str) -> None:
        super().__init__(job, partition)
        self.job, self.partition = job, partition

    def __str__(self) -> str:
        return (
            f"A process that scored a shard of {self.job} {self.partition} was killed, perhaps for "
            "want of memory: see `shards.at_once` and `chunk_rows`. What it wrote is kept; a run "
            "resumes where each shard stopped."
        )
