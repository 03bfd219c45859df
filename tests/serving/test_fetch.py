"""Pictures from the web: which addresses are fetched, from which machines, how much and how long."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest
import trustme
from serving_tools import ROOT, data_url

from neo.serving import fetch
from neo.serving.fetch import Allowance, Fetcher, is_public, public_address
from neo.serving.media import MediaError

FILE = b"\x89PNG" + b"x" * 5000
STARS = (ROOT / "examples" / "images" / "stars.png").read_bytes()


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
     "224.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1%eth0", "fc00::1", "fd00:ec2::254",
     "fec0::1", "ff02::1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "2002:7f00:1::", "64:ff9b::7f00:1", "2001:0:1::1",
     "2001:db8::1", "::10.0.0.1", "::7f00:1", "64:ff9b:1::a00:1"],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111"])
def test_addresses_that_are(address: str) -> None:
    assert is_public(address)


def answers(*addresses: str) -> Callable:
    return lambda *args, **kwargs: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 443)) for one in addresses]


def test_a_host_with_one_address_inside_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", answers("8.8.8.8", "10.0.0.1"))
    with pytest.raises(MediaError) as error:
        public_address("pictures.example", "picture 1")
    assert error.value.detail == "picture 1 cannot be fetched"
    monkeypatch.setattr(socket, "getaddrinfo", answers("8.8.8.8", "1.1.1.1"))
    assert public_address("pictures.example", "picture 1") == "8.8.8.8"


@pytest.mark.parametrize(
    "url",
    [
        "http://pictures.example/a.png",
        "https://other.example/a.png",
        "https://pictures.example:8443/a.png",
        "https://user:word@pictures.example/a.png",
        "https://pictures.example.evil.example/",
        "https://pictures.example@evil.example/",
        "https://evil.example/#pictures.example",
        "https://pictures.example:x/",
        "https://127.0.0.1/",
        "https://[::1",
        "https://",
        "//pictures.example/",
        "ftp://pictures.example/a",
        "file:///etc/passwd",
    ],
)
def test_addresses_that_are_never_fetched(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: pytest.fail("looked up"))
    fetcher = Fetcher(("pictures.example",), seconds=1)
    with pytest.raises(MediaError) as error:
        asyncio.run(fetcher.fetch(url, "picture 1", Allowance(10)))
    assert error.value.status_code == 400
    assert "example" not in error.value.detail


def test_nothing_is_fetched_where_no_host_was_named() -> None:
    with pytest.raises(MediaError, match="only data: addresses"):
        Fetcher((), seconds=1).check("https://pictures.example/a.png", "picture 1")


hung_up = threading.Event()
"""Whoever was sent byte after byte did not stay to the end."""


def drip(send: Callable[[bytes], object]) -> None:
    try:
        for _ in range(600):
            send(b"x")
            time.sleep(0.05)
    except OSError:
        hung_up.set()


class Pictures(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        where = {
            "/moved": "/a.png",
            "/away": "https://inside.example/a.png",
            "/loop": "/loop",
            "/down": "http://pictures.example/",
        }
        if self.path in where:
            self.send_response(302)
            self.send_header("Location", where[self.path])
            self.end_headers()
            return
        if self.path == "/head":
            drip(self.wfile.write)
            return
        self.send_response(404 if self.path == "/none" else 200)
        self.end_headers()
        if self.path == "/slow":
            for _ in range(100):
                self.wfile.write(b"x")
                time.sleep(0.05)
        self.wfile.write({"/large": FILE * 100, "/stars.png": STARS}.get(self.path, FILE))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def port(authority: trustme.CA) -> Iterator[int]:
    """A web server for pictures.example and inside.example on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("pictures.example", "inside.example").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # clients that hang up
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture
def fetcher(port: int, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fetcher]:
    """Fetchers to which 127.0.0.1 is the internet and 127.0.0.2 is inside."""
    names = {"pictures.example": "127.0.0.1", "inside.example": "127.0.0.2"}
    monkeypatch.setattr(fetch, "PORT", port)
    monkeypatch.setattr(fetch, "is_public", "127.0.0.1".__eq__)
    monkeypatch.setattr(fetch, "_look_up", lambda host: [names[host]])

    def fetcher(**options: int) -> Fetcher:
        made = Fetcher(tuple(names), **{"seconds": 5, **options})
        authority.configure_trust(made.tls)
        return made

    return fetcher


def get(fetcher: Fetcher, path: str, host: str = "pictures.example") -> bytes:
    return asyncio.run(fetcher.fetch(f"https://{host}{path}", "picture 1", Allowance(100_000)))


def test_a_picture_is_fetched(fetcher: Callable[..., Fetcher]) -> None:
    assert get(fetcher(), "/a.png?size=1") == FILE
    assert get(fetcher(), "/a.png", "PICTURES.example") == FILE


def test_redirects_are_off_and_checked_where_they_are_on(fetcher: Callable[..., Fetcher]) -> None:
    for path in ("/moved", "/away", "/loop"):
        with pytest.raises(MediaError, match="leads on"):
            get(fetcher(), path)
    assert get(fetcher(redirects=1), "/moved") == FILE
    with pytest.raises(MediaError, match="cannot be fetched"):  # the address of inside.example is not public
        get(fetcher(redirects=3), "/away")
    with pytest.raises(MediaError, match="only plain https"):
        get(fetcher(redirects=3), "/down")
    with pytest.raises(MediaError, match="leads on"):
        get(fetcher(redirects=3), "/loop")


def test_an_address_inside_is_not_connected_to(fetcher: Callable[..., Fetcher]) -> None:
    with pytest.raises(MediaError, match="cannot be fetched"):
        get(fetcher(), "/a.png", "inside.example")


def test_the_looked_up_address_is_the_one_connected_to(fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter([["127.0.0.1"], ["127.0.0.2"]])  # the name means another machine the second time
    monkeypatch.setattr(fetch, "_look_up", lambda host: next(said))
    assert get(fetcher(), "/a.png") == FILE


def test_the_certificate_must_be_the_host_s(fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_look_up", lambda host: ["127.0.0.1"])
    made = fetcher()
    made.hosts.add("else.example")
    with pytest.raises(MediaError, match="cannot be fetched"):
        get(made, "/a.png", "else.example")
    made.tls = ssl.create_default_context()  # which does not know our authority
    with pytest.raises(MediaError, match="cannot be fetched"):
        get(made, "/a.png")


def test_limits_of_bytes_and_time(fetcher: Callable[..., Fetcher]) -> None:
    with pytest.raises(MediaError) as large:
        get(fetcher(), "/large")
    assert large.value.status_code == 413
    for path, seconds in (("/slow", 0.3), ("/none", 5)):
        with pytest.raises(MediaError, match="cannot be fetched"):
            get(fetcher(seconds=seconds), path)


def test_a_head_that_comes_byte_by_byte_is_broken_off(fetcher: Callable[..., Fetcher]) -> None:
    hung_up.clear()
    with pytest.raises(MediaError, match="cannot be fetched"):
        fetcher(seconds=0.3)._fetch("https://pictures.example/head", "picture 1", Allowance(100_000))
    assert hung_up.wait(10)


def test_a_handshake_that_comes_byte_by_byte_is_broken_off(fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    def talk() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 KiB
            drip(connection.sendall)

    hung_up.clear()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setattr(fetch, "PORT", listening.getsockname()[1])
        talking = threading.Thread(target=talk)
        talking.start()
        with pytest.raises(MediaError, match="cannot be fetched"):
            fetcher(seconds=0.3)._fetch("https://pictures.example/", "picture 1", Allowance(100_000))
        talking.join()
    assert hung_up.is_set()


def test_a_name_that_is_looked_up_for_long_is_not_waited_for(fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    found = threading.Event()
    monkeypatch.setattr(fetch, "_look_up", lambda host: found.wait() and [])

    async def fetched() -> None:
        try:
            await fetcher(seconds=0.1).fetch("https://pictures.example/a.png", "picture 1", Allowance(100_000))
        finally:
            found.set()

    with pytest.raises(MediaError, match="cannot be fetched"):
        asyncio.run(fetched())


def test_the_time_of_a_picture_begins_when_it_has_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """One place, which a look-up that hangs keeps longer than the next picture may take."""
    hangs = threading.Event()

    def fetched(fetcher: Fetcher, url: str, *_: object) -> bytes:
        if url.endswith("slow.png"):
            hangs.wait()
        return FILE

    monkeypatch.setattr(Fetcher, "_fetch", fetched)
    made = Fetcher(("pictures.example",), seconds=0.1, at_once=1)

    async def both() -> bytes:
        slow, quick = (
            asyncio.create_task(made.fetch(f"https://pictures.example/{name}.png", "picture 1", Allowance(100_000)))
            for name in ("slow", "quick")
        )
        with pytest.raises(MediaError, match="cannot be fetched"):
            await slow
        await asyncio.sleep(0.2)
        assert not quick.done()
        hangs.set()
        return await quick

    assert asyncio.run(both()) == FILE


def test_the_pictures_of_a_request_share_their_bytes(fetcher: Callable[..., Fetcher]) -> None:
    made, allowance = fetcher(), Allowance(2 * len(FILE))
    for _ in range(2):
        assert made._fetch("https://pictures.example/a.png", "picture 1", allowance) == FILE
    with pytest.raises(MediaError, match=r"with picture 3 .* more than 10008 bytes"):
        made._fetch("https://pictures.example/a.png", "picture 3", allowance)


def test_an_allowed_address_in_a_question(serve, fetcher, authority: trustme.CA) -> None:
    with serve(media_domains=("pictures.example",), max_body_bytes=6000) as served:
        authority.configure_trust(served.server.answering.fetcher.tls)

        def ask(*urls: str) -> httpx2.Response:
            content = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
            content.append({"type": "text", "text": "How many stars are there?"})
            body = {"model": "neo-demo", "messages": [{"role": "user", "content": content}]}
            return served.http.post("/v1/chat/completions", json=body)

        fetched, given = ask("https://pictures.example/stars.png"), ask(data_url(STARS))
        assert fetched.status_code == 200
        assert fetched.json()["choices"] == given.json()["choices"]
        for urls, status, code in (
            (["https://pictures.example/none"], 422, "image_fetch"),
            (["https://pictures.example/a.png"], 415, "image_format"),
            (["https://inside.example/stars.png"], 400, "image_address"),
            (["https://pictures.example/stars.png"] * 9, 413, "image_size"),  # of 711 bytes
        ):
            refused = ask(*urls)
            assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
            assert "example" not in refused.text
