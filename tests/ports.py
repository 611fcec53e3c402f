"""Ports for what tests start and others must know beforehand; where nobody must, port 0 is better."""

import random
import socket

# Below those that Linux gives to clients: nobody's own end of a connection takes one before the server has it.
_RANGE = range(20000, 32768)
_given = set()


def free_port():
    while True:
        port = random.choice(_RANGE)
        if port in _given:
            continue
        with socket.socket() as s:
            try:
                s.bind(("0.0.0.0", port))
            except OSError:
                continue
        _given.add(port)
        return port
