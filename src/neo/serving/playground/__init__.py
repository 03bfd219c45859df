"""The web page at /: its files, as they are, and the headers that keep everything else out of it."""

from pathlib import Path

from fastapi import FastAPI
from starlette.responses import Response

FOLDER = Path(__file__).parent
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
FILES = {
    "/" if path.name == "index.html" else f"/playground/{path.name}": path
    for path in sorted(FOLDER.iterdir())
    if path.suffix in TYPES
}
"""Route to file. They hold nothing secret, so that none of them needs a key; what the page asks for does."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def add_routes(app: FastAPI) -> None:
    """Serve the page; no part of the OpenAPI document."""
    for route, path in FILES.items():
        _add(app, route, path.read_bytes(), TYPES[path.suffix])


def _add(app: FastAPI, route: str, content: bytes, kind: str) -> None:
    @app.get(route, include_in_schema=False)
    async def file() -> Response:
        return Response(content, media_type=kind, headers=HEADERS)
