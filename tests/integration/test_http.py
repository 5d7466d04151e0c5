"""Metrics endpoints that answer, refuse, drip, lead elsewhere or say too much."""

from __future__ import annotations

import base64
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler

import pytest

from perfctl.errors import CommandFailed, ConnectionLost, Denied, NoAnswer, PerfctlError, Unreachable
from perfctl.servers.http import get, shown
from tests.fix_http import Endpoint, says


def test_an_answer_and_the_password_that_it_took(endpoint: Endpoint) -> None:
    endpoint.answers["/metrics"] = says("hits 1 ü")
    url = endpoint.url.replace("//", "//user:p%40ss@") + "/metrics?token=secret"
    assert get(url, 10) == "hits 1 ü"
    assert endpoint.authorizations == ["Basic " + base64.b64encode(b"user:p@ss").decode()]
    assert shown(url) == endpoint.url + "/metrics"


def test_a_redirect_is_followed_and_somebody_else_is_not_told_the_password(endpoint: Endpoint) -> None:
    other = Endpoint()
    try:
        other.answers["/there"] = says("found")
        endpoint.answers["/here"] = says("", 302, Location="/next")
        endpoint.answers["/next"] = says("", 307, Location=other.url + "/there")
        assert get(endpoint.url.replace("//", "//user:pw@") + "/here", 10) == "found"
        assert [each is not None for each in endpoint.authorizations] == [True, True]
        assert other.authorizations == [None]
    finally:
        other.close()


@pytest.mark.parametrize("where", ["file:///etc/hostname", "ftp://127.0.0.1/x", "gopher://127.0.0.1:1/", "http://[/"])
def test_a_redirect_to_no_web_address_is_not_followed(endpoint: Endpoint, where: str) -> None:
    endpoint.answers["/"] = says("", 302, Location=where)
    with pytest.raises(Unreachable, match=r"leads to|no address"):
        get(endpoint.url, 10)


def test_a_redirect_in_a_circle_ends(endpoint: Endpoint) -> None:
    endpoint.answers["/"] = says("", 302, Location="/")
    with pytest.raises(Unreachable, match="more than 5 times"):
        get(endpoint.url + "/", 10)
    assert len(endpoint.authorizations) == 6


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, Denied), (403, Denied), (404, CommandFailed), (429, Unreachable), (500, Unreachable), (503, Unreachable)],
)
def test_a_status_is_an_error_of_its_kind(endpoint: Endpoint, status: int, error: type[PerfctlError]) -> None:
    endpoint.answers["/m"] = says("canary", status)
    with pytest.raises(error) as caught:
        get(endpoint.url.replace("//", "//user:canary@") + "/m?canary", 10)
    assert str(status) in caught.value.message
    assert "canary" not in caught.value.message


def test_an_answer_that_is_too_large(endpoint: Endpoint) -> None:
    endpoint.answers["/"] = says("x" * (5 << 20))
    with pytest.raises(Unreachable, match="more than 4 MB"):
        get(endpoint.url, 30)


@pytest.mark.parametrize("head", ["Content-Length: 100", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("body", [b"", b"5\r\nhits \r\n"])
def test_an_answer_that_breaks_off_is_no_answer(endpoint: Endpoint, head: str, body: bytes) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode() + body)

    endpoint.answers["/"] = answer
    with pytest.raises(ConnectionLost, match="breaks off"):
        get(endpoint.url, 10)


@pytest.mark.parametrize("charset", ["idna", "utf-8", "undefined", "nonsense", "punycode"])
def test_text_of_any_charset_and_with_a_mark_before_it(endpoint: Endpoint, charset: str) -> None:
    endpoint.answers["/"] = says("\ufeffhits..1 \u00fc", 200, **{"Content-Type": f"text/plain; charset={charset}"})
    assert get(endpoint.url, 10) == "hits..1 ü"


def test_a_password_of_any_bytes(endpoint: Endpoint) -> None:
    endpoint.answers["/"] = says("")
    get(endpoint.url.replace("//", "//user:%ff%3A@"), 10)
    assert endpoint.authorizations == ["Basic " + base64.b64encode(b"user:\xff:").decode()]


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"HTTP/1.1 200 OK\r\nX-Long: "]
)
def test_a_server_that_drips_does_not_hold_anybody(endpoint: Endpoint, head: bytes) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(head)
        while not endpoint.over.wait(0.05):
            try:
                handler.wfile.write(b"x")
            except OSError:
                return

    endpoint.answers["/"] = drip
    began = time.monotonic()
    with pytest.raises(NoAnswer):
        get(endpoint.url, 0.5)
    assert time.monotonic() - began < 20


def test_a_server_that_says_nothing() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        with pytest.raises(NoAnswer):
            get(f"http://127.0.0.1:{deaf.getsockname()[1]}/", 0.3)


def test_nobody_listens_and_no_such_name() -> None:
    with pytest.raises(Unreachable, match="Connection refused"):
        get("http://user:canary@127.0.0.1:1/", 10)
    with pytest.raises(Unreachable) as caught:
        get("http://user:canary@no-such-host.invalid/", 20)
    assert "canary" not in str(caught.value)


def test_no_tls_where_plain_text_is_spoken(endpoint: Endpoint) -> None:
    endpoint.answers["/"] = says("hello")
    with pytest.raises(Unreachable, match="no TLS"):
        get(endpoint.url.replace("http:", "https:"), 10)


def test_a_server_of_something_else() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def answer() -> None:
            link, _ = listening.accept()
            with link:
                link.recv(1000)
                link.sendall(b"-ERR unknown command\r\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(Unreachable, match="does not speak HTTP"):
            get(f"http://127.0.0.1:{listening.getsockname()[1]}/", 10)
