"""Who may ask LIT: requests of all kinds to a guarded application that says what it was asked."""

import pytest

from interp_kit.lit.guard import guarded, local_page

TOKEN = "s3cret-of_this-start"
HOST = {"HTTP_HOST": "127.0.0.1:5432"}


def asked(path, method="GET", proxied=False, web_fonts=False, **headers):
    """(status, headers, body) of one request."""
    said = {}

    def app(environ, start):
        start("200 OK", [("Content-Type", "text/plain")])
        return [f"{environ['SCRIPT_NAME']} {environ['PATH_INFO']} {environ.get('QUERY_STRING', '')}".encode()]

    def start(status, headers, *_):
        said.update(status=int(status.split()[0]), headers=dict(headers))

    environ = {"PATH_INFO": path, "SCRIPT_NAME": "", "REQUEST_METHOD": method, "QUERY_STRING": "a=1"} | headers
    body = b"".join(guarded(app, TOKEN, proxied, web_fonts)(environ, start)).decode()
    return said["status"], said["headers"], body


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("/", "/"),
        ("", "/"),
        ("/main.js", "/main.js"),
        ("/static/favicon.png", "/static/favicon.png"),
        ("/a//b", "/a//b"),
    ],
)
def test_what_is_asked_under_the_secret_is_answered(path, inside):
    status, headers, body = asked(f"/{TOKEN}{path}", **HOST)
    assert (status, body) == (200, f"/{TOKEN} {inside} a=1")
    assert headers["Referrer-Policy"] == "no-referrer" and "default-src 'self'" in headers["Content-Security-Policy"]
    assert "Content-Security-Policy" not in asked(f"/{TOKEN}/", web_fonts=True, **HOST)[1]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/main.js",
        "/wrong/",
        f"/{TOKEN}x/",
        f"/{TOKEN[:-1]}/",
        f"//{TOKEN}/",
        f"/x/{TOKEN}/",
        "/ü/",
        "/get_info",
    ],
)
def test_without_the_secret_nothing_is(path):
    status, headers, body = asked(path, **HOST)
    assert status == 403 and "not the whole address of LIT" in body and TOKEN not in body


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:9", "localhost:5432", "LOCALHOST", "[::1]:5432"])
def test_names_of_this_machine_are_taken(host):
    assert asked(f"/{TOKEN}/", HTTP_HOST=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:5432", "127.0.0.1.evil.example", "localhost.evil.example", "127.0.0.1@evil.example",
     "", "[", "10.0.0.1", "0.0.0.0", "127.0.0.2"],
)  # fmt: skip
def test_another_name_that_leads_here_is_not(host):
    """As when a page has its own name lead to this machine; also with the secret."""
    status, _, body = asked(f"/{TOKEN}/", HTTP_HOST=host)
    assert status == 403 and "LIT answers to 127.0.0.1 and localhost" in body
    assert asked(f"/{TOKEN}/")[0] == 403


def test_behind_a_notebook_server_the_name_is_the_servers_and_the_secret_stays():
    assert asked(f"/{TOKEN}/", proxied=True, HTTP_HOST="hub.example.org")[0] == 200
    assert asked("/", proxied=True, HTTP_HOST="hub.example.org")[0] == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"HTTP_ORIGIN": "http://127.0.0.1:5432"}, 200),
        ({"HTTP_ORIGIN": "http://127.0.0.1:5432", "HTTP_SEC_FETCH_SITE": "same-origin"}, 200),
        ({"HTTP_ORIGIN": "http://evil.example"}, 403),
        ({"HTTP_ORIGIN": "http://127.0.0.1:8888"}, 403),
        ({"HTTP_ORIGIN": "http://localhost:5432"}, 403),
        ({"HTTP_ORIGIN": "null"}, 403),
        ({"HTTP_ORIGIN": ""}, 403),
        ({"HTTP_ORIGIN": "http://["}, 403),
        ({"HTTP_SEC_FETCH_SITE": "cross-site"}, 403),
        ({"HTTP_SEC_FETCH_SITE": "same-site"}, 403),
    ],
)
def test_requests_that_do_something_come_from_its_own_page(method, headers, status):
    assert asked(f"/{TOKEN}/get_preds", method, **HOST, **headers)[0] == status


def test_behind_a_notebook_server_posts_come_from_its_name():
    hub = {"HTTP_HOST": "hub.example.org", "proxied": True}
    assert asked(f"/{TOKEN}/get_preds", "POST", HTTP_ORIGIN="https://hub.example.org", **hub)[0] == 200
    assert asked(f"/{TOKEN}/get_preds", "POST", HTTP_ORIGIN="https://hub.example.org:443", **hub)[0] == 200
    assert asked(f"/{TOKEN}/get_preds", "POST", HTTP_ORIGIN="https://evil.example", **hub)[0] == 403


def test_a_page_loses_what_it_would_ask_the_web_for():
    page = (
        '<link href="https://fonts.example/css?a|b&c" rel="stylesheet">\n<script src=//cdn.example/x.js></script>'
        '<link rel="shortcut icon" href="static/favicon.png"><script src="main.js"></script>'
        "<LINK REL=stylesheet HREF='http://fonts.example'><a href='https://kept.example'>read on</a>"
    )
    kept = local_page(page)
    assert "fonts.example" not in kept and "cdn.example" not in kept
    assert "static/favicon.png" in kept and 'src="main.js"' in kept and "kept.example" in kept
