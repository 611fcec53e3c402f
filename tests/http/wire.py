"""A wire between two servers that can stop in the middle: a proxy of a TCP port."""

import contextlib
import socket
import threading

# Within a host decode would map prefill's memory; with another name of its Unix socket it uses the wire.
NEAR, NOWHERE = b"@cadre-handoff-", b"@cadre-nowhere-"


class Wire:
    """Carries connections to `host`:`port`. The first one stops after `limit` bytes from there (None: never): `held` is set,
    and nothing more comes from there until `release`. What goes there, and connections that are made later, pass."""

    def __init__(self, port, limit=None, host="127.0.0.1"):
        self.to = host, port
        self.limit = limit
        self.passed = 0
        self.held, self.go = threading.Event(), threading.Event()
        self.lock = threading.Lock()
        self.sockets = []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.close()
        self.cut()

    def release(self):
        self.go.set()

    def cut(self):
        """Ends all connections on both sides; those that come later are carried again."""
        with self.lock:
            sockets, self.sockets = self.sockets, []
        for s in sockets:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
        self.go.set()

    def wait(self, seconds=30):
        assert self.held.wait(seconds), "only %d bytes have passed" % self.passed

    def _accept(self):
        while True:
            try:
                near, _ = self.server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self.to, timeout=10)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self.lock:
                self.sockets += [near, far]
            threading.Thread(target=self._carry, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near, True), daemon=True).start()

    def _carry(self, source, sink, counted):
        with contextlib.suppress(OSError):
            while data := source.recv(16384):
                if counted:
                    data = data.replace(NEAR, NOWHERE)
                    self.passed += len(data)
                    if self.limit is not None and self.passed >= self.limit and not self.held.is_set():
                        self.held.set()
                        self.go.wait()
                sink.sendall(data)
        for s in (source, sink):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
