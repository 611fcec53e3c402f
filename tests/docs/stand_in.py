"""Stands in for a program that a page names (page.py): `cadre` itself, its other name `vllm`, uv, torchrun.

cadre: a server is started in the background and its line returns once it is ready, waits for other nodes, or has ended;
everything else becomes the program. `uv run X` is the command X of the wheel cadre-compat. torchrun starts the processes
of one host with its variables, where torch is not installed.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOES_ON = ("serve", "router", "rl", "inference")
SMALL = {"VLLM_CPU_KVCACHE_SPACE": "0.03125"}  # GiB a rank: pages start many ranks on small machines
WAITS = r"|waiting for (rank|the first)"  # for other nodes: the next line may start them


def goes_on(words):
    asked = re.search(r" (--help|-h|--dry-run|--dump-config)\b", " " + " ".join(words))
    return words[:1] == ["doctor"] and "--listen" in words or words[:1] and words[0] in GOES_ON and not asked


def ready(words):
    """What a server says once it is of use."""
    if words[0] == "doctor":
        return r"listening on port"
    if words[0] in ("rl", "inference"):
        return r"run ready after"
    return r"Connected all rings" if "--headless" in words else r"ready after|ready: http"


def ended(pid):
    try:
        return pathlib.Path("/proc/%d/stat" % pid).read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def tell_to_end(servers):
    """SIGTERM to (process, words, log)s, but not to nodes that their first node ends: both at once would be a race."""
    followers = [pid for pid, words, log in servers if "--headless" in words and "Connected all rings" in log]
    for pid, _, _ in servers:
        if pid not in followers:
            os.kill(pid, signal.SIGTERM)
    limit = time.monotonic() + 10
    while not all(ended(pid) for pid in followers) and time.monotonic() < limit:
        time.sleep(0.02)
    for pid in followers:
        if not ended(pid):
            os.kill(pid, signal.SIGTERM)


def end_earlier(state, block):
    """As Ctrl-C in the other terminals, before new servers take their ports."""
    earlier = []
    for path in state.glob("*.json"):
        record = json.loads(path.read_text())
        if record["block"] != block and not ended(record["pid"]):
            (state / str(record["pid"])).touch()
            earlier.append((record["pid"], record["words"], pathlib.Path(record["log"]).read_text(errors="replace")))
    tell_to_end(earlier)
    limit = time.monotonic() + 30
    while not all(ended(pid) for pid, _, _ in earlier) and time.monotonic() < limit:
        time.sleep(0.02)


def cadre(words):
    program = os.environ["CADRE_PAGE_BIN"]
    if not goes_on(words) or "CADRE_PAGE_INSIDE" in os.environ:  # what a server starts is its own affair
        os.execv(program, [program, *words])
    state, block = pathlib.Path(os.environ["CADRE_PAGE_STATE"]), os.environ.get("CADRE_PAGE_BLOCK", "")
    if not os.environ.get("CADRE_PAGE_BESIDE"):
        end_earlier(state, block)
    number = time.monotonic_ns()
    log = state / ("%d.log" % number)
    small = {} if "--gpu-memory-utilization" in words else SMALL  # a page that sizes memory means it
    # rl and inference start `cadre serve` by the path of the program that they are.
    with open(log, "w") as to:
        process = subprocess.Popen([program, *words], stdin=subprocess.DEVNULL, stdout=to, stderr=subprocess.STDOUT,
                                   start_new_session=True, env={**small, **os.environ, "CADRE_PAGE_INSIDE": "1"})
    record = {"pid": process.pid, "block": block, "words": words, "log": str(log)}
    kept = state / ("%d.part" % number)
    kept.write_text(json.dumps(record))
    while not ended(process.pid) and not re.search(ready(words) + WAITS, log.read_text(errors="replace")):
        time.sleep(0.02)
    if ended(process.pid):  # it is this line's own failure
        status = process.wait()
        sys.stdout.write(log.read_text(errors="replace"))
        sys.exit(status)
    kept.rename(state / ("%d.json" % number))


def uv(words):
    if words[:1] != ["run"]:
        sys.exit("stand_in.py knows of uv only `uv run`")
    sys.path.insert(0, str(ROOT / "python-compat"))
    import cadre_compat

    sys.argv = words[1:]
    {"rl": cadre_compat.rl, "inference": cadre_compat.inference, "vllm": cadre_compat.vllm}[words[1]]()


def torchrun(words):
    count, rest = 1, list(words)
    while rest and rest[0].startswith("--"):
        name, _, value = rest.pop(0).partition("=")
        if name.replace("_", "-") == "--nproc-per-node":
            count = int(value)
        elif name != "--standalone":
            sys.exit("stand_in.py knows of torchrun only --nproc_per_node=N and --standalone")
    sys.path.insert(0, str(ROOT / "tests"))
    from ports import free_port

    port = free_port()
    ranks = []
    for rank in range(count):
        env = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
               "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        ranks.append(subprocess.Popen([sys.executable, *rest], env=env))
    sys.exit(max(abs(process.wait()) for process in ranks))


if __name__ == "__main__":
    {"cadre": cadre, "vllm": cadre, "uv": uv, "torchrun": torchrun}[sys.argv[1]](sys.argv[2:])
