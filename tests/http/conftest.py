"""Starts the server under test and hands out its address.

CADRE_BIN names the program (default build/release/cadre): it is started as `serve models/demo --port 0`. Where it is
not there, the tests marked `model` are skipped by name and the others run against serve_fake (CADRE_FAKE, default
build/release/tests/http/serve_fake). CADRE_URL skips the start and names a server that runs already.
"""

import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import httpx
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("CADRE_BIN", ROOT / "build/release/cadre"))
FAKE = pathlib.Path(os.environ.get("CADRE_FAKE", ROOT / "build/release/tests/http/serve_fake"))
MODEL = os.environ.get("CADRE_MODEL", str(ROOT / "models/demo"))
READY_SECONDS = 60


class Server:
    """A running server: `url`, `model` (its first name), `process` (None if it is not ours)."""

    def __init__(self, command=None, url=None):
        self.process = None
        self.lines = []
        self.url = url
        if command is not None:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
            self._ready = threading.Event()
            threading.Thread(target=self._read, daemon=True).start()
            if not self._ready.wait(READY_SECONDS):
                self.process.kill()
                raise RuntimeError("no ready line from %s:\n%s" % (command, "".join(self.lines)))
        self.model = httpx.get(self.url + "/v1/models").json()["data"][0]["id"] if command is None or "--api-key" not in command else None

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)
            found = re.search(r"(https?)://([\w.\-\[\]]+):(\d+)", line)
            if found and self.url is None and "ready" in line.lower():
                host = "127.0.0.1" if found.group(2) in ("0.0.0.0", "localhost") else found.group(2)
                self.url = "%s://%s:%s" % (found.group(1), host, found.group(3))
                self._ready.set()
        self._ready.set()

    def stop(self, how=signal.SIGTERM, seconds=15):
        if self.process is None:
            return 0
        self.process.send_signal(how)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def command(*flags, fake=False):
    if fake or not BIN.exists():
        if not FAKE.exists():
            pytest.skip("neither %s nor %s is built" % (BIN, FAKE))
        return [str(FAKE), MODEL, "--port", "0", *flags]
    return [str(BIN), "serve", MODEL, "--port", "0", *flags]


@pytest.fixture(scope="session")
def server():
    if "CADRE_URL" in os.environ:
        yield Server(url=os.environ["CADRE_URL"])
        return
    running = Server(command())
    yield running
    assert running.stop() == 0, "".join(running.lines)


@pytest.fixture
def start():
    """start(*flags, fake=False) -> a Server of the test's own."""
    if "CADRE_URL" in os.environ:
        pytest.skip("CADRE_URL is set: no servers are started")
    running = []

    def make(*flags, fake=False):
        running.append(Server(command(*flags, fake=fake)))
        return running[-1]

    yield make
    for one in running:
        if one.process.poll() is None:
            one.stop()


@pytest.fixture(scope="session")
def client(server):
    import openai

    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)


def pytest_configure(config):
    config.addinivalue_line("markers", "model: needs the real program and a model (CADRE_BIN)")


def pytest_collection_modifyitems(items):
    if BIN.exists() or "CADRE_URL" in os.environ:
        return
    for item in items:
        if "model" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="%s is not built" % BIN))
