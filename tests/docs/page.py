"""Runs the code blocks of a page, in order, as a reader would who types them.

    python tests/docs/page.py docs/guides/expert-parallel.md

bash blocks run as they are printed, in a folder that has the checkout's files and where new ones do no harm. Programs
that go on (`cadre serve`, `cadre router`, `cadre rl`, under whatever name) are started, and their line returns when they
are ready or wait for other nodes. A block that starts one ends those of the blocks before it, as Ctrl-C would; at the
end of the page all are ended, and must end well. python blocks are programs of their own. text blocks are what the
block before prints: each line is found, in order, in what it and the servers have said; `...` stands for anything.
console blocks are both: a line after `$ ` is run, the rest is its output.

What the page does not show stands in a comment before the block, `<!-- run: words -->`:

    beside        earlier servers go on
    exit=N        the block ends with status N (otherwise 0)
    ended=N       a server of the page ends by itself meanwhile, with status N
    file=NAME     the block is this file, for the blocks after it
    skip=REASON   the block is not run; the last word, up to the end of the comment

`<!-- check` ... `-->` holds bash lines that a reader does not see; the file `said` is what the block before has printed,
$CADRE_PAGE_STATE has a file about each server.
"""

import ctypes
import dataclasses
import json
import os
import pathlib
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time

from stand_in import SMALL, ready, tell_to_end

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("CADRE_BIN", ROOT / "build/release/cadre")).resolve()
HERE = pathlib.Path(__file__).resolve().parent
# What pages write for hosts; test_pages.py gives them to this host's interface eth0, or all become the loopback.
ADDRESSES = ["192.168.1.100", "192.168.1.101", "10.1.59.30", "10.1.60.57", "10.0.0.1", "10.0.0.2"]
NAMES = ["cadre", "vllm", "uv", "torchrun"]  # what stand_in.py stands in for
BLOCK_SECONDS = 90
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: servers outlive the line that starts them, and their status is wanted


@dataclasses.dataclass
class Block:
    line: int
    kind: str  # bash, python, text, console, check, file
    text: str
    words: dict
    where: str = ""


class Wrong(Exception):
    pass


def blocks_of(page):
    """The fenced blocks and checks of a page; one that names no language is text."""
    found, words, lines = [], {}, page.read_text().splitlines()
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        start = number
        if line == "<!-- check":
            while lines[number] != "-->":
                number += 1
            found.append(Block(start + 1, "check", "\n".join(lines[start:number]) + "\n", words))
            words, number = {}, number + 1
        elif comment := re.fullmatch(r"<!-- run: (.*?) ?-->", line):
            words = read_words(comment.group(1), "%s:%d" % (page.name, number))
        elif fence := re.fullmatch(r"```(\w*)", line):
            while lines[number] != "```":
                number += 1
            kind = fence.group(1) or "text"
            if kind == "text" and re.match(r"\$ ", lines[start] if start < number else ""):
                kind = "console"
            found.append(Block(start + 1, "file" if "file" in words else kind, "\n".join(lines[start:number]) + "\n", words))
            words, number = {}, number + 1
        elif line.strip() and words:
            raise Wrong("%s:%d: words for no block" % (page.name, number))
    for block in found:
        block.where = "%s:%d" % (page.name, block.line)
    return found


def read_words(text, where):
    text, _, reason = text.partition("skip=")
    words = {"skip": reason} if reason else {}
    for word in text.split():
        name, _, value = word.partition("=")
        if name not in ("beside", "exit", "ended", "file"):
            raise Wrong("%s: '%s' is no word for a block" % (where, word))
        words[name] = value
    return words


def wants(line):
    """An expected line as a pattern; None if anything will do."""
    parts = [re.sub(r"(\\?\s)+", r"\\s+", re.escape(part.strip())) for part in line.split("...")]
    return None if not any(parts) else re.compile(r"\s*.*?\s*".join(parts))


def missing(expected, said):
    """The first expected line that is not found after those before it, or None."""
    lines = iter(said.splitlines())
    for line in expected.splitlines():
        pattern = wants(line)
        if pattern and not any(pattern.search(one) for one in lines):
            return line
    return None


class Server:
    def __init__(self, record):
        self.pid, self.log, self.words = record["pid"], pathlib.Path(record["log"]), record["words"]
        self.status = None  # its exit status, once it has ended
        self.over = False  # it has, and that was right
        self.seen = 0

    def __str__(self):
        return "cadre " + " ".join(self.words)

    def ready(self):
        """A router is once its workers are."""
        workers = sum(word.count("http://") for word in self.words) if self.words[0] == "router" else 0
        return re.search(ready(self.words), self.text()) and self.text().count(" is healthy") >= workers

    def waits_for_another(self):
        return re.search("waiting for", self.text().rstrip().rpartition("\n")[2])

    def good_ends(self):
        """The statuses that are right after SIGTERM."""
        return [0, 128 + signal.SIGTERM, -signal.SIGTERM][:1 if self.words[0] != "doctor" and self.ready() else 3]

    def text(self):
        return self.log.read_text(errors="replace")

    def poll(self):
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def end(self, seconds=30):
        limit = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < limit:
            time.sleep(0.02)
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.status = -9
        return self.status


class Page:
    def __init__(self, folder, real):
        self.folder, self.real = folder, real  # real: the addresses of pages are this host's
        self.servers = []
        self.known = set()  # their processes, and those of servers that have been ended
        self.said = ""  # by the last block
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
        (folder / "bin").mkdir()
        (folder / "state").mkdir()
        for name in NAMES:
            (folder / "bin" / name).write_text("#!/bin/sh\nexec %s %s %s \"$@\"\n" % (
                shlex.quote(sys.executable), shlex.quote(str(HERE / "stand_in.py")), name))
            (folder / "bin" / name).chmod(0o755)
        for path in ROOT.iterdir():
            if not path.name.startswith(".") and path.name not in ("build", "outputs"):
                (folder / path.name).symlink_to(path)
        release = folder / "build/release"
        release.mkdir(parents=True)
        for path in BIN.parent.iterdir():
            (release / path.name).symlink_to(folder / "bin/cadre" if path.name in ("cadre", "vllm") else path)

    def environment(self):
        env = {key: value for key, value in os.environ.items() if not re.match("VLLM_|NCCL_|GLOO_|CADRE_ARGS", key)}
        env.update(
            PATH="%s:%s:%s" % (self.folder / "bin", pathlib.Path(sys.executable).parent, env["PATH"]),
            PYTHONPATH=str(BIN.parent / "python"),
            CADRE=str(self.folder / "bin/cadre"),  # of scripts/launch_*.sh
            CADRE_BIN=str(self.folder / "bin/cadre"),  # of the commands rl, inference and vllm
            CADRE_PAGE_BIN=str(BIN), CADRE_PAGE_STATE=str(self.folder / "state"),
        )
        return env

    def adapt(self, text):
        if self.real:
            return text
        for address in ADDRESSES:
            text = text.replace(address, "127.0.0.1")
        return text.replace("eth0", "lo")

    def run(self, block):
        if "skip" in block.words:
            return
        if block.kind == "file":
            (self.folder / block.words["file"]).write_text(self.adapt(block.text))
        elif block.kind in ("bash", "sh", "check"):
            self.bash(block, block.text)
        elif block.kind == "console":
            for command, expected in console(block.text):
                self.bash(block, command)
                self.compare(block, expected)
        elif block.kind == "python":
            self.python(block)
        elif block.kind == "text":
            self.compare(block, block.text)
        else:
            raise Wrong("%s: a block of '%s' is neither run nor a file" % (block.where, block.kind))

    def execute(self, block, words, **more):
        env = {**self.environment(), **more}
        self.servers = [server for server in self.servers if not server.over]
        for server in self.servers:
            server.seen = len(server.text())
        process = subprocess.Popen(words, cwd=self.folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True)
        try:
            self.said, _ = process.communicate(timeout=BLOCK_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.stdout.close()
            raise Wrong("%s: not done after %d s" % (block.where, BLOCK_SECONDS)) from None
        if block.kind != "check":
            (self.folder / "said").write_text(self.said)
        self.find_servers(block)
        wanted = int(block.words.get("exit", 0))
        if process.returncode != wanted:
            raise Wrong("%s: ended with status %d, not %d:\n%s" % (block.where, process.returncode, wanted, self.everything()))

    def bash(self, block, text):
        more = {"CADRE_PAGE_BLOCK": str(block.line), "CADRE_PAGE_BESIDE": "1" if "beside" in block.words else ""}
        if block.kind == "check":
            more["CADRE_PAGE_BESIDE"] = "1"
        self.execute(block, ["bash", "-c", "set -e\n" + self.adapt(text) + "\nwait\n"], **more)

    def python(self, block):
        path = self.folder / ("block_%d.py" % block.line)
        path.write_text(self.adapt(block.text))
        vllm = re.search(r"^\s*(from|import) vllm", block.text, re.M)
        self.execute(block, [sys.executable, *(["-m", "cadre.compat"] if vllm else []), str(path)], CADRE_BIN=str(BIN), **SMALL)

    def find_servers(self, block):
        """Takes note of the servers that the block has started, and waits until all are ready."""
        for path in sorted((self.folder / "state").glob("*.json")):
            record = json.loads(path.read_text())
            if record["pid"] not in self.known:
                self.servers.append(Server(record))
                self.known.add(record["pid"])
        begin = time.monotonic()
        while waiting := [server for server in self.servers if server.poll() is None and not server.ready()]:
            seconds = time.monotonic() - begin
            if seconds > 2 and all(server.waits_for_another() for server in waiting):
                break  # for a node that a later block starts
            if seconds > BLOCK_SECONDS:
                raise Wrong("%s: not ready: %s\n%s" % (block.where, waiting[0], waiting[0].text()))
            time.sleep(0.02)
        self.check_servers(block)

    def check_servers(self, block):
        stopped = {int(path.name) for path in (self.folder / "state").glob("[0-9]*") if path.suffix == ""}
        limit = time.monotonic() + 20
        while "ended" in block.words and time.monotonic() < limit:
            if any(server.poll() is not None and not server.over for server in self.servers):
                break
            time.sleep(0.02)
        for server in self.servers:
            if server.pid in stopped:
                server.end()
            if server.poll() is None or server.over:
                continue
            wanted = server.good_ends() if server.pid in stopped else [int(block.words.get("ended", 0))]
            if server.status not in wanted or (server.pid not in stopped and "ended" not in block.words):
                raise Wrong("%s: %s has ended with status %d:\n%s" % (block.where, server, server.status, server.text()))
            server.over = True

    def everything(self):
        return self.said + "".join(server.text()[server.seen:] for server in self.servers)

    def compare(self, block, expected):
        expected = self.adapt(expected)
        limit = time.monotonic() + 15
        while (line := missing(expected, self.everything())) is not None:
            if time.monotonic() > limit or all(server.over for server in self.servers):
                raise Wrong("%s: the output has no line like\n  %s\n(in this place). It is:\n%s"
                            % (block.where, line, self.everything()))
            time.sleep(0.05)

    def close(self):
        """Ends all servers; those that end badly."""
        running = [server for server in self.servers if server.poll() is None]
        tell_to_end([(server.pid, server.words, server.text()) for server in running])
        bad = []
        for server in running:
            if server.end() not in server.good_ends():
                bad.append("%s ended with status %d:\n%s" % (server, server.status, server.text()))
        return bad


def console(text):
    """(command, output) of each `$ ` of a block."""
    found = []
    for line in text.splitlines(keepends=True):
        if line.startswith("$ "):
            found.append([line[2:], ""])
        elif found and found[-1][0].endswith("\\\n") and not found[-1][1]:
            found[-1][0] += line
        else:
            found[-1][1] += line
    return found


def has_addresses():
    """Whether this host is one made for pages."""
    with socket.socket() as one:
        try:
            one.bind((ADDRESSES[0], 0))
        except OSError:
            return False
    return True


def run_page(path):
    """What is wrong with the page, as texts."""
    with tempfile.TemporaryDirectory(prefix="cadre-page-") as folder:
        page, wrong = Page(pathlib.Path(folder), has_addresses()), []
        try:
            for block in blocks_of(path):
                begin = time.monotonic()
                page.run(block)
                print("%s: %s, %.1f s" % (block.where, block.kind if "skip" not in block.words else "not run",
                                          time.monotonic() - begin), flush=True)
        except Wrong as error:
            wrong.append(str(error))
        finally:
            wrong += page.close()
        return wrong


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # not before the servers
    faults = run_page(pathlib.Path(sys.argv[1]).resolve())
    print("\n".join(faults))
    sys.exit(1 if faults else 0)
