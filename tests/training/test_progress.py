import logging

import pytest

from neo.training import progress
from neo.training.progress import RunProgress, in_words

LINE = {"loss": 1.5, "tokens_per_second": 12345.6, "mfu": None}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test sets, in its one entry."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def run(steps: int, done: int, clock: list[float], quiet: bool = False) -> None:
    with RunProgress("sft", steps, done, quiet) as bar:
        for number in range(done, steps):
            clock[0] += 60.0 if number == done else 2.0  # the first one compiles
            bar.advance(LINE if number % 5 == 4 else None)


def test_lines_and_how_long_it_will_take(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run(40, 10, clock)
    said = [record.message for record in caplog.records]
    assert said[0] == "step 15/40  loss 1.5000  tokens/s 12,346"
    assert said[1].startswith("24 steps to go at about 2 s each: 48 s, until about ")
    assert len(said) == 7


def test_a_run_of_a_few_steps_foretells_nothing(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run(4, 0, clock)
    assert not caplog.records


def test_other_ranks_say_nothing(
    clock: list[float], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run(20, 0, clock, quiet=True)
    assert not caplog.records
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (45.2, "45 s"),
        (90, "2 min"),
        (3600 * 3.35, "3 h 21 min"),
        (86400 * 2 + 3600 * 4, "2 d 4 h"),
        (3600, "1 h 0 min"),
    ],
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
