"""The root of the errors, and those of a project and of its flows."""


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
        reasons = "; ".join(f"{partition}: {reason}" for partition, reason in self.failures[:5])
        more = f"; and {len(self.failures) - 5} more" if len(self.failures) > 5 else ""
        return (
            f"{len(self.failures)} of {self.partitions} partitions failed. {reasons}{more} "
            f"({self.job}; run it again with `reprocess: failed`, to score only these)"
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
