"""`nightshift init`: a project, or a job file for a table, from nothing; `nightshift validate`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from nightshift.flows.cli import terminal
from nightshift.flows.cli.terminal import AsJson


def init(
    folder: Annotated[Path | None, typer.Argument(help="The project's folder; else this one.")] = (
        None
    ),
    database: Annotated[
        str | None,
        typer.Option(
            help="Where predictions are kept, and the source tables are: a SQLAlchemy URL without "
            "its password; else `embedded`, a PostgreSQL in the project."
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(help="Where models are kept: s3://bucket/prefix; else a folder of it."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="The project's name on a Prefect server; else that of its folder."),
    ] = None,
    job: Annotated[str | None, typer.Option(help="Write config/jobs/JOB.yaml, too.")] = None,
    table: Annotated[str | None, typer.Option(help="The table that the job scores.")] = None,
    key: Annotated[
        list[str] | None, typer.Option(help="The column that identifies a row; may be repeated.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The job's model; else the champion of the job's name.")
    ] = None,
    time_column: Annotated[
        str | None, typer.Option(help="When a row happened; then it is scored day by day.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a project: settings, a key that signs models and is trusted, an example of a job.

    With `--job`, write a job file for a table, too. Nothing is overwritten; what is there already
    is named. Private keys, secrets and state are kept out of git.

    Example: `nightshift init --database postgresql://me@db.example.com/shop`
    """
    from nightshift.adapters.errors import ConfigurationError
    from nightshift.flows.config import scaffold
    from nightshift.flows.config.settings import Settings, settings_file

    config = settings_file().parent if folder is None else folder / "config"
    root = config.parent if config.name == "config" else config
    given = {"--database": database, "--store": store, "--name": name}
    option = next((option for option, value in given.items() if value is not None), None)
    if option is not None and (config / "nightshift.yaml").exists():
        problem = f"{config / 'nightshift.yaml'} is there already"
        raise ConfigurationError(option, "", problem, "Change the setting in that file.")
    database, store, name = database or "embedded", store or ".nightshift/store", name or ""
    content = {"database": {"url": database}, "store": {"url": store}, "project": name}
    _refuse(Settings, content, {"root": root.absolute()}, _SETTING_OPTIONS)
    written_job = None if job is None else _describe_job(job, table, key, model, time_column)
    done = scaffold.write_project(root, config, database, store, name)
    if job is not None and written_job is not None:
        scaffold.write_job(config, job, written_job, done)
    if as_json:
        terminal.print_json({"created": done.created, "kept": done.kept})
        return
    for word, paths in (("Created", done.created), ("Kept   ", done.kept)):
        for path in paths:
            terminal.say(f"{word}  {path}")
    terminal.say(_next_steps(root, job))


def validate(as_json: AsJson = False) -> None:
    """Check the settings and all job files, without connecting to anything.

    Lists every problem of every file; exit code 2 if there is one.

    Example: `nightshift validate`
    """
    from nightshift.flows.config.job import job_names, read_job
    from nightshift.flows.config.settings import read_settings, settings_file

    jobs = job_names()
    found: list[Any] = [read_settings(), *map(read_job, jobs)]
    problems = [problem for result in found if isinstance(result, list) for problem in result]
    if as_json:
        fields = ("place", "field", "problem", "remedy")
        terminal.print_json([{name: getattr(each, name) for name in fields} for each in problems])
    else:
        for problem in problems:
            terminal.say_error(str(problem))
        terminal.say(f"Checked {settings_file()} and the jobs: {', '.join(jobs) or 'none'}.")
        terminal.say(f"Problems: {len(problems) or 'none'}.")
    if problems:
        raise typer.Exit(2)


_SETTING_OPTIONS = {"database.url": "--database", "store.url": "--store", "project": "--name"}
_JOB_OPTIONS = {
    "name": "--job",
    "model": "--model",
    "source.table": "--table",
    "source.key": "--key",
    "source.time_column": "--time-column",
}


def _describe_job(
    name: str, table: str | None, key: list[str] | None, model: str | None, time_column: str | None
) -> dict[str, Any]:
    """The content of the job's file. Raises ConfigurationError, naming the option."""
    from nightshift.adapters.errors import ConfigurationError
    from nightshift.flows.config.job import Job, is_job_name

    if not is_job_name(name):
        problem = "a job's name has letters, digits, '_', '-' and '.' only"
        raise ConfigurationError("--job", "", problem, "Choose another name.")
    for option, value in (("--table", table), ("--key", key)):
        if not value:
            problem = "a job needs a table and the columns that identify its rows"
            raise ConfigurationError(option, "", problem, "Write --table TABLE --key COLUMN.")
    schema, _, short = str(table).rpartition(".")
    source: dict[str, Any] = {"schema": schema, "table": short, "key": key}
    if key is not None and len(key) == 1:
        source["key"] = key[0]
    if not schema:
        del source["schema"]
    content = {
        "model": model or f"{name}@champion",
        "source": source,
        "target": {"table": f"{name}_predictions".replace("-", "_").replace(".", "_")},
    }
    if time_column is not None:
        source["time_column"] = time_column
        content["partition_by"] = "day"
    _refuse(Job, content, None, _JOB_OPTIONS)
    return content


def _refuse(model: Any, content: dict[str, Any], context: Any, options: dict[str, str]) -> None:
    """Raises ConfigurationError for a wrong value, naming the option that it came from."""
    import pydantic

    from nightshift.adapters.errors import ConfigurationError
    from nightshift.flows.config.validation import describe_problems

    try:
        model.model_validate(content, context=context)
    except pydantic.ValidationError as error:
        first = describe_problems(error, model, lambda _: "")[0]
    else:
        return
    place = options.get(first.field, first.field)
    raise ConfigurationError(place, "", first.problem, first.remedy)


def _next_steps(root: Path, job: str | None) -> str:
    steps = []
    if root.resolve() != Path.cwd():
        steps.append(f"cd {root}")
    if job is None:
        steps += [
            "nightshift register churn.joblib --name churn --sample train.parquet "
            "--promote champion",
            "nightshift init --job churn --table customers --key customer_id",
        ]
    steps += [f"nightshift run {job or 'churn'}", "nightshift up"]
    return "\nNext:\n" + "\n".join(f"  {step}" for step in steps)
