"""`neo serve`."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from neo.cli.console import make_parser
from neo.cli.model import add_engine_options, add_load_options, load_with_engine

if TYPE_CHECKING:
    from neo.inference.chat import ChatModel
    from neo.serving.settings import Settings


def serve_parser() -> ArgumentParser:
    parser = make_parser(
        "serve",
        "Answer over HTTP as OpenAI does, about pictures too, until a signal comes (docs/serving.md).\n\n"
        "  neo serve --model neo-demo --port 8000\n"
        "  neo serve --model NEO-2B-SFT --host 0.0.0.0 --api-key-file keys.txt --rate-limit 60",
        "[options]",
    )
    add_load_options(parser)
    add_engine_options(parser)
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all of this machine's")
    add("--replicas", type=int, default=1, help="more than one: so many processes with a model each, on Ray Serve")
    add("--port", type=int, default=8000, help="0 takes a free one, which the log names")
    add("--served-model-name", metavar="NAME", help="what requests call the model; by default --model's last part")
    add("--max-waiting", type=int, default=64, help="answers that may wait; further requests get 429")
    add("--request-timeout", type=float, default=300.0, metavar="S", help="seconds for a request in all")
    add("--max-body-bytes", type=int, default=32 * 2**20, metavar="N", help="largest request, pictures included")
    add("--max-images", type=int, default=16, metavar="N", help="most pictures of a request")
    add("--max-image-pixels", type=int, default=50_000_000, metavar="N", help="most pixels of them together")
    add(
        "--api-key-file", metavar="FILE", help="a key a line; one is then needed on all routes but /health and the page"
    )
    add("--rate-limit", type=int, default=0, metavar="N", help="answers a minute for each key, else address; 0: any")
    add("--trusted-proxies", metavar="IP,IP", help="whose X-Forwarded-For says who asks; by default nobody's")
    add("--allow-media-domain", metavar="HOST,HOST", help="fetch pictures over https from these; by default none are")
    add("--media-redirects", type=int, default=0, metavar="N", help="redirects followed while fetching")
    add("--allow-origin", metavar="URL,URL", help="web pages that may read the answers (CORS); by default none")
    return parser


def serve(options: Namespace) -> int:
    """`neo serve`"""
    for name in ("max_batch", "replicas"):
        if options[name] < 1:
            raise ValueError(f"--{name.replace('_', '-')} {options[name]} must be at least 1")
    try:
        from neo.serving import logs
        from neo.serving.admission import read_keys
        from neo.serving.settings import Settings

        keys = read_keys(options.api_key_file) if options.api_key_file else ()  # told before torch is imported
        from neo.serving.run import run
    except ModuleNotFoundError as error:
        raise ValueError(
            f"neo serve needs {error.name}: install the extra with pip install 'neo-vlm[serve]'"
        ) from error
    from neo.model import names

    settings = Settings(
        name=options.served_model_name or options.model.rstrip("/").rpartition("/")[2],
        max_waiting=options.max_waiting,
        request_timeout=options.request_timeout,
        max_body_bytes=options.max_body_bytes,
        max_images=options.max_images,
        max_image_pixels=options.max_image_pixels,
        api_keys=keys,
        rate_limit=options.rate_limit,
        media_domains=_listed(options.allow_media_domain),
        media_redirects=options.media_redirects,
        origins=_listed(options.allow_origin),
    )
    if not options.download:
        names.resolve(options.model, download=False)  # a slip of the name is told before anything is listened on
    logs.to_stderr()
    load = partial(load_with_engine, options)
    if options.replicas > 1:
        return _run_replicas(load, settings, options)
    return run(load, settings, options.host, options.port, options.max_batch, _listed(options.trusted_proxies))


def _run_replicas(load: "Callable[[], ChatModel]", settings: "Settings", options: Namespace) -> int:
    try:
        from neo.serving.replicas import run_replicas
    except ModuleNotFoundError as error:
        raise ValueError(
            f"--replicas needs {error.name}: install the extra with pip install 'neo-vlm[serve,scale]'"
        ) from error
    if options.trusted_proxies:
        raise ValueError("--trusted-proxies goes without --replicas: behind Ray's own proxy give keys instead")
    where = options.host, options.port
    return run_replicas(load, settings, *where, options.max_batch, options.replicas, options.device)


def _listed(words: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (words or "").split(",") if word.strip())
