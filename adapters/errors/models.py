"""What can go wrong with a model: its adapter, its bytes, its signature, its predictions."""

from nightshift.adapters.errors.root import NightshiftError


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
            f"Install it with: pip install 'nightshift-batch[{self.extra}]'"
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
            "Fix the model, or the rows it was given; readers see what they saw before."
        )


class PredictionTimedOut(ModelError):
    def __init__(self, model: str, place: str, seconds: float, why: str) -> None:
        super().__init__(model, place, seconds, why)
        self.model, self.place, self.seconds, self.why = model, place, seconds, why

    def __str__(self) -> str:
        return (
            f"{self.model} did not predict {self.place} within {self.seconds:g} s, the job's "
            f"predict_timeout, and the run stopped because {self.why}. Run it again to go on, with "
            "a longer predict_timeout or a smaller chunk_rows, or fix the model."
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
        examples = "".join(f"; {key}: {error}" for key, error in self.examples[:3])
        return (
            f"{self.model} could not score {self.rejects:,} of {self.rows:,} rows, and max_rejects "
            f"is {self.budget}{examples}. Fix these rows or the model, or raise max_rejects; "
            "readers see what they saw before."
        )


class InvalidPredictions(ModelError):
    def __init__(self, expected: str, found: str) -> None:
        super().__init__(expected, found)
        self.expected, self.found = expected, found

    def __str__(self) -> str:
        return (
            f"predict_batch should have returned {self.expected}, but returned {self.found}. "
            "Fix predict_batch and register a new version."
        )


class GoldenRowsDiffer(ModelError):
    def __init__(self, model: str, problem: str, versions: tuple[str, ...]) -> None:
        super().__init__(model, problem, versions)
        self.model, self.problem, self.versions = model, problem, versions

    def __str__(self) -> str:
        changed = ", ".join(self.versions) or "the library versions are the same"
        return (
            f"{self.model} gives different predictions than when it was registered: "
            f"{self.problem}; {changed}. Nothing was scored. Install the recorded "
            "versions, or register it again."
        )


class VersionMismatch(ModelError):
    def __init__(self, model: str, versions: tuple[str, ...]) -> None:
        super().__init__(model, versions)
        self.model, self.versions = model, versions

    def __str__(self) -> str:
        return (
            f"{self.model} was registered with other library versions: {', '.join(self.versions)}. "
            "Install the recorded versions, register it again, or set trust.version_mismatch to "
            "'warn', or to 'allow' for another major version."
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
        reasons = " ".join(f"{job}: {problem}" for job, problem in self.jobs)
        return (
            f"{self.model} was not made {self.alias!r}, because jobs that use that alias could "
            f"not run with it. {reasons} Fix them first, or promote it anyway with --force."
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
        look = "Score it alongside first, as the job's challenger"
        if self.run_id is not None:
            look = f"`nightshift report {self.run_id}` shows how they differ"
        return (
            f"{self.model} was not made {self.alias!r}: job {self.job!r} requires agreement "
            f"with its champion in {100 * self.level:.6g}% of the rows, and {self.problem}. "
            f"{look}; or promote it anyway with --force."
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
