"""The bar that generate() draws: tqdm's where it is installed, else one like it."""

import sys
import time


class Bar:
    """As much of tqdm as generate() needs, on stderr, at most ten times a second."""

    def __init__(self, total=0, desc="", postfix="", dynamic_ncols=True, file=None):
        del dynamic_ncols
        self.total, self.desc, self.postfix, self.n = total, desc, postfix, 0
        self.file = sys.stderr if file is None else file
        self.format_dict = {"elapsed": 0.0}
        self._start, self._drawn = time.monotonic(), 0.0
        self._draw()

    def update(self, count=1):
        self.n += count
        self.format_dict["elapsed"] = time.monotonic() - self._start
        if self.n >= self.total or time.monotonic() - self._drawn > 0.1:
            self._draw()

    def refresh(self):
        self._draw()

    def close(self):
        self._draw()
        self._write("\n")

    def _draw(self):
        self._drawn = time.monotonic()
        spent = max(self._drawn - self._start, 1e-9)
        share = self.n / self.total if self.total else 1.0
        rate = self.n / spent
        left = (self.total - self.n) / rate if rate > 0 else 0.0
        bar = "█" * int(share * 10) + " " * (10 - int(share * 10))
        times = "%02d:%02d<%02d:%02d" % (*divmod(int(spent), 60), *divmod(int(left), 60))
        self._write(f"\r{self.desc}: {share:4.0%}|{bar}| {self.n}/{self.total} [{times}, {rate:.2f}it/s, {self.postfix}]")

    def _write(self, text):
        try:
            self.file.write(text)
            self.file.flush()
        except (OSError, ValueError, UnicodeError):
            pass  # a bar is not worth an answer


def make(use_tqdm, total):
    """A bar for ``total`` prompts, or None. ``use_tqdm``: True, False, or a class with tqdm's interface."""
    if not use_tqdm or not total:
        return None
    kind = use_tqdm if callable(use_tqdm) else None
    if kind is None:
        try:
            from tqdm.auto import tqdm as kind
        except ImportError:
            kind = Bar
    return kind(total=total, desc="Processed prompts", dynamic_ncols=True, postfix=speed(0, 0))


def speed(tokens_in, tokens_out):
    """The words behind the bar."""
    return f"est. speed input: {tokens_in:.2f} toks/s, output: {tokens_out:.2f} toks/s"
