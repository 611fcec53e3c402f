"""A node of a deployment under test."""

import os
import re
import signal
import subprocess
import threading
import time


class Node:
    """One `cadre serve` process, or a script that becomes one, and what it has said so far."""

    def __init__(self, command, env=None):
        self.lines = []
        self.process = subprocess.Popen(
            [str(word) for word in command], env={**os.environ, **(env or {})},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)

    def log(self):
        return "".join(self.lines)

    def wait_for(self, pattern, seconds=60):
        deadline = time.time() + seconds
        while time.time() < deadline:
            if re.search(pattern, self.log()):
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError("no %r in\n%s" % (pattern, self.log()))

    def end(self, seconds=20):
        """The exit status, and the whole log in self.lines."""
        code = self.process.wait(seconds)
        self.reader.join(5)
        return code

    def ranks(self):
        out = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True).stdout
        return [int(pid) for pid in out.split()]

    def kill(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
