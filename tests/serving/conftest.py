"""A server with the small model, on a free port, in a thread of the tests' own process."""

import contextlib
from collections.abc import Callable, Iterator

import pytest
from openai import OpenAI
from serving_tools import ROOT, Served, data_url, served, until

import neo
from neo.inference.chat import ChatModel
from neo.inference.engine import Engine
from neo.serving.settings import Settings


@pytest.fixture(scope="session")
def demo() -> ChatModel:
    return neo.load_model("neo-demo", device="cpu")


@pytest.fixture(scope="session")
def fresh(demo: ChatModel) -> Callable[..., Callable[[], ChatModel]]:
    """`fresh(**engine options)`: loads the small model with an engine of its own."""

    def fresh(**options: int) -> Callable[[], ChatModel]:
        def load() -> ChatModel:
            model = ChatModel(demo.model, demo.processor, demo.name)
            model.engine = Engine(demo.model, demo.processor, **{"cache_memory": 2**26, **options})
            return model

        return load

    return fresh


@pytest.fixture(scope="session")
def serve(fresh: Callable[..., Callable[[], ChatModel]]) -> Callable[..., contextlib.AbstractContextManager[Served]]:
    """`with serve(name=value of Settings, ...) as served`: a server of its own that is ready."""

    @contextlib.contextmanager
    def serve(max_batch: int = 16, **settings: object) -> Iterator[Served]:
        with served(fresh(max_batch=max_batch), Settings(**settings), max_batch) as running:
            until(lambda: running.http.get("/health").status_code == 200)
            yield running

    return serve


@pytest.fixture(scope="session")
def common(serve: Callable[..., contextlib.AbstractContextManager[Served]]) -> Iterator[Served]:
    """One server with the usual settings that tests share."""
    with serve() as running:
        yield running


@pytest.fixture(scope="session")
def client(common: Served) -> OpenAI:
    return common.openai()


@pytest.fixture(scope="session")
def stars() -> str:
    """A picture of stars, as a data: address."""
    return data_url(ROOT / "examples" / "images" / "stars.png")


@pytest.fixture(scope="session")
def circle() -> str:
    """A picture of a red circle."""
    return data_url(ROOT / "examples" / "images" / "circle.png")
