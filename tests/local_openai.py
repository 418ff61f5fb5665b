"""An OpenAI-compatible server on this machine, for tests: it answers what a function says.

The function gets the messages and returns the answer's text; or, for a server with more to say, it takes the whole
request and returns the whole body (`local_openai(whole=...)`), or a list of bodies, which are streamed. A tuple
(status, body) is an error's, and bytes are sent as they are. `refuses` makes a server that does not take some options.
"""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def local_openai(answer=None, fail_first=0, whole=None):
    """Yields (base_url, requests so far). The first `fail_first` requests get a 429."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append({"path": self.path, "key": self.headers["Authorization"], **request})
            failing = len(seen) <= fail_first
            if failing:
                body = {"error": {"message": "slow down"}}
            else:
                body = whole(self.path, request) if whole else completion(request, answer(request["messages"]))
            status, body = body if isinstance(body, tuple) else (429 if failing else 200, body)
            streamed = isinstance(body, list)
            data = body if isinstance(body, bytes) else events(body) if streamed else json.dumps(body).encode()
            self.send_response(status)
            kind = "text/event-stream" if streamed else "application/json"
            for name, value in (("Content-Type", kind), ("Content-Length", str(len(data)))):
                self.send_header(name, value)
            if failing:
                self.send_header("retry-after-ms", "1")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        server.server_close()


def completion(request, text):
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": request["model"], "choices": [choice]}


def refuses(*options, status=400, message="Unsupported parameter: '{}' is not supported with this model."):
    """`whole` of a server that refuses requests with one of the options, naming it, and else answers "an answer"."""

    def whole(path, request):
        for option in options:
            if option in request:
                return status, {"error": {"message": message.format(option), "param": option}}
        return completion(request, "an answer")

    return whole


def ends(reason, content="an answer", **message):
    """`whole` of a server whose answers end for that reason, with that content."""

    def whole(path, request):
        body = completion(request, content)
        body["choices"][0] |= {"finish_reason": reason}
        body["choices"][0]["message"] |= message
        return body

    return whole


def events(bodies):
    """Server-sent events; those of the Responses API are named after their type."""
    names = (f"event: {body['type']}\n" if "type" in body else "" for body in bodies)
    return "".join(f"{name}data: {json.dumps(body)}\n\n" for name, body in zip(names, bodies)).encode()
