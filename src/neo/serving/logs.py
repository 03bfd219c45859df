"""The log: one JSON object a line, on stderr. It has sizes, counts and times, never what was asked, shown or said."""

import json
import logging
import re
import time
import uuid
from typing import Any

requests = logging.getLogger("neo.serving.requests")
"""One line for each request."""

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id(given: str) -> str:
    """What the asker calls the request, if it is short and plain, or a new id."""
    return given if _ID.fullmatch(given) else uuid.uuid4().hex


class JsonLines(logging.Formatter):
    """A record with its `fields` as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


def to_stderr() -> None:
    """Let every logger of the process write such lines; for a process that is the server."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    for noisy in ("httpx", "transformers"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
