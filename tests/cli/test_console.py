import io
import logging

import pytest

from neo.cli.console import ToStderr


def test_messages_go_where_stderr_is_at_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    handler, bar = ToStderr(), io.StringIO()
    monkeypatch.setattr("sys.stderr", bar)
    handler.handle(logging.makeLogRecord({"msg": "saved"}))
    assert bar.getvalue() == "saved\n"
