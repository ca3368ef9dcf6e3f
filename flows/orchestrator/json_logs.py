"""Log records as lines of JSON, for log collectors.

Prefect configures the logging of each process it starts; variables can change any part of it:

    PREFECT_LOGGING_FORMATTERS_JSON_CLASS=nightshift.flows.orchestrator.json_logs.JsonLine
    PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER=json

Prefect's own JSON formatter does not put a message's arguments into it.
"""

import json
import logging
from datetime import UTC, datetime
from typing import Any, Literal

_OF_RUN = ("flow_run_id", "flow_run_name", "flow_name", "task_run_id", "task_run_name", "task_name")
"""What Prefect adds to the records of a run."""


class JsonLine(logging.Formatter):
    """One record as one line: time, level, logger, message, the run's names, exception."""

    def __init__(
        self,
        fmt: str | None = None,
        datefmt: str | None = None,
        style: Literal["%", "{", "$"] = "%",
        **_: Any,
    ) -> None:
        """Takes what `logging.config` gives to each formatter; there is nothing to choose."""
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in _OF_RUN:
            value = getattr(record, name, None)
            if value not in {None, "<unknown>"}:
                line[name] = str(value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
