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
    │   ├── PredictionTimedOut      predict_batch did not answer in time, and the run cannot go on
    │   ├── RejectsExceeded         more rows could not be scored than the job allows
    │   ├── InvalidPredictions      predict_batch returned the wrong number of rows, or no numbers
    │   ├── GoldenRowsDiffer        other predictions here than when the model was registered
    │   ├── VersionMismatch             library versions differ from those it was registered with
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
    │   ├── AliasMoved              another process moved the alias first
    │   ├── RecordInvalid           a manifest or alias file cannot be understood
    │   └── BlobCorrupt             the bytes do not have their digest
    ├── DatabaseError
    │   ├── TableNotFound, ColumnNotFound, ColumnTypeUnsupported, ColumnNameReserved
    │   ├── KeyNotUnique            the source's key is not unique, or not declared so
    │   ├── RowWithoutTime          a row with NULL in the time column belongs to no partition
    │   ├── RowsHidden              row-level security would hide rows of the source from the role
    │   ├── ValueUnreadable         a value that no model can be given, such as an infinite time
    │   ├── ValueUnstorable         a prediction that the target database cannot hold, such as NaN
    │   ├── LedgerIncompatible      the ledger was made by another version of Nightshift
    │   ├── TargetMismatch          the target table has other columns than this job would write
    │   ├── PartitionBusy           another run is scoring this partition
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
    └── TransientError              may succeed when tried again; only these are retried
        ├── StoreUnavailable
        ├── DatabaseUnavailable
        ├── SnapshotEnded           the connection that held a shared snapshot has ended
        ├── SourceReplaced          a table was emptied or replaced behind the snapshot
        └── WorkerLost              a process that scored a shard was killed

An error's arguments are its fields, all positional, so that it survives pickling across task
runners; `__str__` says what is wrong, where, and what to do.
"""

from nightshift.adapters.errors.database import (
    AlreadyPublished,
    ColumnNameReserved,
    ColumnNotFound,
    ColumnTypeUnsupported,
    DatabaseError,
    KeyNotUnique,
    LedgerIncompatible,
    NothingToRollBackTo,
    OwnershipLost,
    PartitionBusy,
    Quarantined,
    RowsHidden,
    RowsMissing,
    RowWithoutTime,
    RunIncomplete,
    RunNotQuarantined,
    RunNotReplayable,
    RunUnknown,
    StatementFailed,
    TableNotFound,
    TargetMismatch,
    ValueUnreadable,
    ValueUnstorable,
)
from nightshift.adapters.errors.models import (
    AdapterNotFound,
    AgreementTooLow,
    GoldenRowsDiffer,
    InvalidPredictions,
    JobsBroken,
    Leakage,
    LibraryNotInstalled,
    ModelError,
    ModelUntrusted,
    PredictionFailed,
    PredictionTimedOut,
    RejectsExceeded,
    SerializationFailed,
    SignatureMismatch,
    SignatureUndefined,
    VersionMismatch,
)
from nightshift.adapters.errors.root import (
    BackfillFailed,
    ConfigurationError,
    NightshiftError,
    RunTimedOut,
)
from nightshift.adapters.errors.store import (
    AliasMoved,
    BlobCorrupt,
    ModelNotFound,
    RecordInvalid,
    StoreAccessDenied,
    StoreError,
    StoreNotFound,
    StoreRefused,
    StoreUnsafe,
)
from nightshift.adapters.errors.transient import (
    DatabaseUnavailable,
    SnapshotEnded,
    SourceReplaced,
    StoreUnavailable,
    TransientError,
    WorkerLost,
)

__all__ = [
    "AdapterNotFound",
    "AgreementTooLow",
    "AliasMoved",
    "AlreadyPublished",
    "BackfillFailed",
    "BlobCorrupt",
    "ColumnNameReserved",
    "ColumnNotFound",
    "ColumnTypeUnsupported",
    "ConfigurationError",
    "DatabaseError",
    "DatabaseUnavailable",
    "GoldenRowsDiffer",
    "InvalidPredictions",
    "JobsBroken",
    "KeyNotUnique",
    "Leakage",
    "LedgerIncompatible",
    "LibraryNotInstalled",
    "ModelError",
    "ModelNotFound",
    "ModelUntrusted",
    "NightshiftError",
    "NothingToRollBackTo",
    "OwnershipLost",
    "PartitionBusy",
    "PredictionFailed",
    "PredictionTimedOut",
    "Quarantined",
    "RecordInvalid",
    "RejectsExceeded",
    "RowWithoutTime",
    "RowsHidden",
    "RowsMissing",
    "RunIncomplete",
    "RunNotQuarantined",
    "RunNotReplayable",
    "RunTimedOut",
    "RunUnknown",
    "SerializationFailed",
    "SignatureMismatch",
    "SignatureUndefined",
    "SnapshotEnded",
    "SourceReplaced",
    "StatementFailed",
    "StoreAccessDenied",
    "StoreError",
    "StoreNotFound",
    "StoreRefused",
    "StoreUnavailable",
    "StoreUnsafe",
    "TableNotFound",
    "TargetMismatch",
    "TransientError",
    "ValueUnreadable",
    "ValueUnstorable",
    "VersionMismatch",
    "WorkerLost",
]
