"""`neo serve` under load, against a naive server that answers one request at a time (benchmarks/naive_server.py).

    python benchmarks/serving.py
    python benchmarks/serving.py --concurrency 1 4 --requests 20
    python benchmarks/serving.py --model random --answer-tokens 96 --concurrency 1 16 --shares --requests 24
    python benchmarks/serving.py --save

Each server is a process of its own and gets the same requests: one drawn picture each, of mixed sizes, none twice, and
a question. First a number of askers who ask again as soon as they are answered (`askers`), then arrivals at random, as
a Poisson process, at half and at 0.8 of what `neo serve` has answered at the most (`arrivals`). The naive server gives
whole answers, so that its first token is its last. A request is lost if it was neither answered to its end nor refused
with a status. The memory is that of the server's process, after a warm-up and behind each row.

The model `random` has random weights in float32, of the sizes of benchmarks/inference.py but for a small vocabulary,
scales pictures to 64 tokens as neo-demo does, and says as much as it may: a word is more work than passing it on.
"""

import asyncio
import base64
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2
import numpy as np
import torch
from inference import build
from PIL import Image, ImageDraw
from report import make_parser, processor, save
from rich.console import Console
from rich.table import Table

from neo.model import names
from neo.processing.processor import NeoProcessor

SERVERS = ("neo", "naive")
CONCURRENCY = (1, 2, 4, 8, 16, 32, 64)
SIDES = (96, 160, 256, 384, 512, 768, 1024)
QUESTIONS = (
    "What color is the circle?",
    "How many circles are there?",
    "Describe the image.",
    "Extract the receipt as JSON.",
)
SHARES = (0.5, 0.8)
"""Rates of the random arrivals, of the most that was answered."""
ANSWER_TOKENS = 32
RANDOM = "random"
WARM_UP = 8
START_SECONDS = 300


def request_body(model: str, number: int, answer_tokens: int = ANSWER_TOKENS) -> dict:
    """The request of this number, the same in every run."""
    draw = random.Random(number)
    width, height = draw.choice(SIDES), draw.choice(SIDES)
    image = Image.new("RGB", (width, height), "white")
    for _ in range(draw.randint(1, 5)):
        x, y, size = draw.randrange(width), draw.randrange(height), draw.randint(8, 64)
        ImageDraw.Draw(image).ellipse((x, y, x + size, y + size), fill=tuple(draw.randbytes(3)))
    file = BytesIO()
    image.save(file, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": draw.choice(QUESTIONS)}]
    messages = [{"role": "user", "content": content}]
    return {"model": model, "messages": messages, "max_tokens": answer_tokens, "stream": True}


async def ask(client: httpx2.AsyncClient, body: dict) -> dict:
    """How one request ended, after how many seconds, and when its first token came."""
    began = time.perf_counter()
    first, finished, outcome = None, False, "lost"
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != 200:
                return {"outcome": "refused", "first": None, "seconds": time.perf_counter() - began}
            async for line in response.aiter_lines():
                if line == "data: [DONE]":
                    outcome = "answered" if finished else "lost"  # an error is an event before it
                elif line and (choices := json.loads(line.removeprefix("data: ")).get("choices")):
                    if first is None and choices[0]["delta"].get("content"):
                        first = time.perf_counter() - began
                    finished = finished or choices[0].get("finish_reason") is not None
    except httpx2.TransportError as error:
        print(f"lost: {type(error).__name__}", file=sys.stderr)
    seconds = time.perf_counter() - began
    return {"outcome": outcome, "first": first or seconds, "seconds": seconds}


async def by_askers(client: httpx2.AsyncClient, bodies: list[dict], askers: int) -> list[dict]:
    """So many askers share the requests; each asks again when it is answered."""
    left = iter(bodies)

    async def asker() -> list[dict]:
        return [await ask(client, body) for body in left]

    return [one for done in await asyncio.gather(*(asker() for _ in range(askers))) for one in done]


async def at_random(client: httpx2.AsyncClient, bodies: list[dict], rate: float) -> list[dict]:
    """Requests arrive as a Poisson process of so many a second, whether others are answered or not."""

    async def arrivals() -> AsyncIterator[dict]:
        draw = random.Random(0)
        for body in bodies:
            await asyncio.sleep(draw.expovariate(rate))
            yield body

    return await asyncio.gather(*[asyncio.create_task(ask(client, body)) async for body in arrivals()])


def measured(server: str, url: str, load: str, count: float, bodies: list[dict]) -> dict:
    """One row: all requests through `by_askers` or `at_random`."""

    async def run() -> list[dict]:
        async with httpx2.AsyncClient(base_url=url, timeout=600, limits=httpx2.Limits(max_connections=None)) as client:
            return await {"askers": by_askers, "arrivals": at_random}[load](client, bodies, count)

    began = time.perf_counter()
    done = asyncio.run(run())
    seconds = time.perf_counter() - began
    answered = [one for one in done if one["outcome"] == "answered"]
    row = {"server": server, "load": load, "count": count, "requests": len(done)}
    row |= {outcome: sum(one["outcome"] == outcome for one in done) for outcome in ("answered", "lost", "refused")}
    row["requests_per_s"] = len(answered) / seconds
    for name, key in (("first_token", "first"), ("total", "seconds")):
        times = [one[key] for one in answered] or [float("nan")]
        row |= {f"{name}_p{p}_s": float(np.percentile(times, p)) for p in (50, 95, 99)}
    print(f"{server}, {count} {load}: {row['requests_per_s']:.3g} requests/s", file=sys.stderr)
    return row


@contextmanager
def running(server: str, model: str) -> Iterator[tuple[str, int]]:
    """The address and the process of a server that is ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    program = {
        "neo": ["-m", "neo", "serve", "--model", model, "--port", port],
        "naive": [str(Path(__file__).with_name("naive_server.py")), model, port],
    }
    command = [sys.executable, *program[server]]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START_SECONDS
    try:
        while not ready(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the server does not start; try it: {' '.join(command)}")
            time.sleep(0.2)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait()


def ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health").status_code == 200
    except httpx2.TransportError:
        return False


def memory_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def random_model(folder: Path) -> str:
    """A checkpoint with random weights, and neo-demo's words and tokens a picture."""
    processor = NeoProcessor.from_pretrained(names.resolve("neo-demo", download=False))
    model = build(torch.float32, "sdpa", len(processor.tokenizer))
    model.config.update(processor.ids.config_fields())
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def measure(
    server: str,
    model: str,
    concurrency: list[int],
    shares: list[float],
    requests: int,
    answer_tokens: int,
    most: float | None,
) -> tuple[list, dict]:
    """Rows of a server, and its memory. Random arrivals are `shares` of `most` requests a second, its own if None."""
    name = model.rstrip("/").rpartition("/")[2]
    numbers = iter(range(10**9))

    def bodies(count: int) -> list[dict]:
        return [request_body(name, next(numbers), answer_tokens) for _ in range(count)]

    with running(server, model) as (url, pid):

        def row(load: str, count: float) -> dict:
            one = measured(server, url, load, count, bodies(max(requests, int(count))))
            return one | {"memory_mib": memory_mib(pid)}

        measured(server, url, "askers", 2, bodies(WARM_UP))
        before = memory_mib(pid)
        rows = [row("askers", count) for count in concurrency]
        most = most or max(one["requests_per_s"] for one in rows)
        rows += [row("arrivals", float(f"{share * most:.3g}")) for share in shares]
        return rows, {"server": server, "before_mib": before, "after_mib": rows[-1]["memory_mib"]}


def show(rows: list[dict], memory: list[dict]) -> None:
    table = Table(title=f"{processor()}, {len(os.sched_getaffinity(0))} cores")
    times = [f"{name}_p{p}_s" for name in ("first_token", "total") for p in (50, 95, 99)]
    heads = ("server", "askers or arrivals a second", "answered", "lost", "refused", "requests/s")
    for head in (*heads, *(one.removesuffix("_s").replace("_", " ") for one in times), "MiB"):
        table.add_column(head, justify="right")
    for row in rows:
        load = f"{row['count']} {row['load']}"
        counts = [str(row[key]) for key in ("answered", "lost", "refused")]
        table.add_row(
            row["server"], load, *counts, *(f"{row[key]:.3g}" for key in ("requests_per_s", *times, "memory_mib"))
        )
    console = Console(width=160)
    console.print(table)
    for one in memory:
        console.print(f"{one['server']}: {one['before_mib']:.0f} MiB before, {one['after_mib']:.0f} MiB after")


def main() -> None:
    parser = make_parser(__doc__, "serving_MODEL_cpu")
    parser.add_argument("--model", default="neo-demo")
    parser.add_argument("--servers", nargs="+", default=list(SERVERS), choices=SERVERS)
    parser.add_argument("--concurrency", nargs="+", type=int, default=list(CONCURRENCY))
    parser.add_argument(
        "--shares", nargs="*", type=float, default=list(SHARES), help="of the most answered, as arrivals"
    )
    parser.add_argument("--requests", type=int, default=200, help="of each row")
    parser.add_argument("--answer-tokens", type=int, default=ANSWER_TOKENS, help="most tokens of an answer")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server ends, too
    rows, memory, most = [], [], None
    with TemporaryDirectory() as folder:
        model = random_model(Path(folder) / RANDOM) if args.model == RANDOM else args.model
        loads = args.concurrency, args.shares, args.requests, args.answer_tokens
        for server in args.servers:
            more, used = measure(server, model, *loads, most)
            most = most or max(row["requests_per_s"] for row in more)
            rows += more
            memory.append(used)
    show(rows, memory)
    if args.save:
        about = {"cores": len(os.sched_getaffinity(0)), "model": args.model, "answer_tokens": args.answer_tokens}
        save(f"serving_{args.model}_cpu", about | {"memory": memory, "rows": rows})


if __name__ == "__main__":
    main()
