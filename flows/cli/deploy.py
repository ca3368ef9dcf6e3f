"""What runs jobs by itself: deploy, serve, up."""

from typing import TYPE_CHECKING, Annotated

import typer

from nightshift.flows.cli import terminal
from nightshift.flows.cli.terminal import AsJson

if TYPE_CHECKING:
    import sqlalchemy as sa


def deploy(
    work_pool: Annotated[
        str | None,
        typer.Option(help="The work pool whose workers run the flows; else `nightshift serve`."),
    ] = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove deployments whose job file is gone.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Register each job with Prefect: its schedule, its triggers, its forms in the UI.

    Unchanged jobs, late runs and the deployments of other projects are left alone; a job whose name
    another project uses is refused. A wrong job file does not stop the others. `nightshift up` and
    `nightshift serve` do this by themselves.

    Example: `nightshift deploy --work-pool kubernetes`
    """
    from dataclasses import asdict

    api = _required_api()
    from nightshift.flows.operations.deployments import check_work_pool, wanted_deployments
    from nightshift.flows.operations.deployments import deploy as deploy_all

    if work_pool is not None:
        check_work_pool(work_pool)
    wanted = wanted_deployments(work_pool)
    outcomes = []
    for deployed in deploy_all(wanted.deployments, remove):
        outcomes.append(deployed)
        if not as_json:
            terminal.console.print(f"{deployed.outcome:<10} {deployed.name}")
    if as_json:
        wrong = [{"name": name, "outcome": "wrong"} for name in wanted.wrong]
        terminal.print_json([*map(asdict, outcomes), *wrong])
    else:
        if any(outcome.outcome == "gone" for outcome in outcomes):
            terminal.console.print(
                "`nightshift deploy --remove` removes deployments whose job is gone."
            )
        if any(outcome.outcome == "unchanged" for outcome in outcomes):
            terminal.console.print(
                "Other changes of a job file take effect when its next run starts."
            )
        where = f"workers of the pool {work_pool}" if work_pool else "`nightshift serve`"
        terminal.console.print(f"At {api.removesuffix('/api')}, run by {where}")
    for error in wanted.wrong.values():
        terminal.say_error(str(error))
    if wanted.wrong:
        raise typer.Exit(2)


def serve(
    limit: Annotated[int, typer.Option(min=1, help="How many flow runs at once.")] = 4,
) -> None:
    """Register the jobs with Prefect and run what is scheduled, triggered or started in the UI.

    Runs until Ctrl-C. Added and changed job files are picked up. What fell due while nothing was
    serving is late; each job's `catchup` decides about it.

    Example: `nightshift serve`
    """
    api = _required_api()
    from nightshift.flows.operations.serving import serve_jobs

    terminal.console.print(f"Prefect UI  {api.removesuffix('/api')}")
    terminal.console.print("Press Ctrl-C to stop.")
    serve_jobs(limit, terminal.say)
    terminal.console.print("\nStopped.")


def _required_api() -> str:
    """The Prefect API that other processes use, too. Raises ConfigurationError without one."""
    from nightshift.adapters.errors import ConfigurationError
    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.orchestrator.access import require_access
    from nightshift.flows.orchestrator.server import known_api

    api = known_api(load_settings().state_dir)
    if api is None:
        remedy = "Start one with `nightshift up`, or name one in PREFECT_API_URL."
        raise ConfigurationError("Prefect", "", "there is no Prefect server", remedy)
    return require_access(api)


def up(
    port: Annotated[int, typer.Option(help="The port of the Prefect server and its UI.")] = 4200,
) -> None:
    """Start the local services and keep them running until Ctrl-C.

    These are the embedded database, if the settings use it, a Prefect server with its UI, and the
    process that runs what is scheduled, triggered or started in the UI. Other nightshift commands
    in this project use them while they run.

    Example: `nightshift up`
    """
    import signal

    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.orchestrator.server import announce, prefect_api, running_api

    settings = load_settings()
    running = running_api(settings.state_dir)
    if running is not None:
        terminal.console.print(f"Already running: {running.removesuffix('/api')}")
        return
    for ending in (signal.SIGINT, signal.SIGTERM):  # a shell's background job ignores INT
        signal.signal(ending, signal.default_int_handler)
    try:
        with prefect_api(settings.state_dir, port) as ready:
            target = settings.target_url()
            database = _describe_database(target)
            url = ready()
            with announce(settings.state_dir, url):
                from nightshift.flows.operations.serving import serve_jobs

                ui = url.removesuffix("/api")
                terminal.console.print(f"Prefect UI  {ui}")
                terminal.console.print(f"Backfill    {ui}/deployments, then Run > Custom run")
                terminal.console.print(f"Database    {database}")
                terminal.console.print("Press Ctrl-C to stop.")
                serve_jobs(4, terminal.say)
    except KeyboardInterrupt:
        pass
    terminal.console.print("\nStopped.")


def _describe_database(url: "sa.URL") -> str:
    """A URL that other programs take; of a socket, GUI clients do not."""
    text = url.set(drivername=url.get_backend_name()).render_as_string()
    is_socket = str(url.query.get("host", "")).startswith("/")
    return f"{text}  (a socket: for psql and drivers, not for GUI clients)" if is_socket else text
