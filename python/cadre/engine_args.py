"""Keywords -> flags of ``cadre serve``: the same table, names with ``_``."""

import argparse
import dataclasses
import functools
import json
import os
import shutil

from . import _engine
from ._names import nearest
from .errors import NotFoundError

# Flags of the HTTP server that LLM(...) and AsyncEngineArgs(...) know too.
_NO_EFFECT = {
    "disable_log_stats": "there is no periodic line with statistics here; see get_metrics()",
    "enable_log_requests": "requests are not logged",
    "disable_log_requests": "requests are not logged",
}
_FRONT = {"chat_template", "chat_template_content_format", "default_chat_template_kwargs"}
_NODES = ("data_parallel_size_local", "data_parallel_rank", "data_parallel_start_rank", "headless", "nnodes", "node_rank")


@functools.lru_cache(maxsize=None)
def flags():
    """{keyword: row of the table}; a row has name, type, kind, default and text."""
    rows = {}
    for row in _engine.engine_flags():
        for name in (row["name"], row["alias"]):
            if name:
                rows.setdefault(name.replace("-", "_"), row)
    return rows


def _json(name, value):
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    try:
        return json.dumps(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: {error}; it takes values that JSON can hold") from None


def _text(name, value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list, tuple)) or dataclasses.is_dataclass(value):
        return _json(name, value)
    text = os.fspath(value) if hasattr(value, "__fspath__") else str(value)
    return text[len("torch.") :] if text.startswith("torch.") else text


def words_of(settings):
    """The words after ``cadre serve`` for a dict of keywords. None leaves a flag at its default."""
    words = [f"--model={_text('model', settings['model'])}"]
    for key, value in settings.items():
        if key == "model" or value is None:
            continue
        row = flags().get(key)
        flag, kind = "--" + (row["name"] if row else key.replace("_", "-")), row["type"] if row else "str"
        if kind in ("true", "bool"):
            if not isinstance(value, (bool, int)):
                raise TypeError(f"{key} is {value!r}; it takes True or False")
            if value or kind == "bool":
                words.append(flag if value else "--no-" + flag[2:])
        elif kind == "words":
            items = [value] if isinstance(value, str) else list(value)
            words += [flag, *map(str, items)] if items else []
        elif kind == "appended":
            words += [f"{flag}={item}" for item in ([value] if isinstance(value, str) else value)]
        elif kind in ("json", "list") and not isinstance(value, str):
            words.append(f"{flag}={_json(key, value)}")
        else:
            words.append(f"{flag}={_text(key, value)}")
    return words


def _number(settings, key):
    value = settings.get(key) or os.environ.get("VLLM_DP_SIZE" if key == "data_parallel_size" else "", "") or 1
    try:
        return int(value)
    except (TypeError, ValueError):
        return 1  # the parser says what is wrong with it


def _all_ranks_here(settings):
    # A Python process inside a Slurm job or under torchrun is one program: a launcher's variables must not make it a
    # node of several, unless the keywords or vLLM's own variables say so.
    if any(settings.get(key) is not None for key in _NODES) or os.environ.get("VLLM_DP_RANK"):
        return []
    size = _number(settings, "data_parallel_size")
    return [f"--data-parallel-size-local={size}"] if size * _number(settings, "tensor_parallel_size") > 1 else []


class EngineArgs:
    """The settings of an engine: a model, and every flag of ``cadre serve`` that concerns one, as a keyword.

    An unknown keyword is a TypeError that names the nearest one. Attributes that were not given have the flag's default.
    """

    def __init__(self, model=None, **settings):
        for key in settings:
            if key not in flags() and key not in _NO_EFFECT and key not in _FRONT:
                raise TypeError(f"{type(self).__name__} has no setting '{key}'{nearest(key, flags())}")
        if model is None:
            raise TypeError(f"{type(self).__name__} wants a model: a folder, or a hub name in the local cache")
        self.__dict__.update(settings, model=model)

    def __getattr__(self, name):
        row = flags().get(name)
        if row is None:
            raise AttributeError(f"{type(self).__name__} has no setting '{name}'{nearest(name, flags())}")
        if not row["default"]:
            return None
        try:
            return json.loads(row["default"])
        except ValueError:
            return row["default"]

    @property
    def settings(self):
        """What was given, as a dict."""
        return dict(self.__dict__)

    def words(self):
        """The words after ``cadre serve``."""
        given = {k: v for k, v in self.__dict__.items() if k not in _NO_EFFECT and k != "chat_template"}
        return words_of(given) + _all_ranks_here(given)

    @staticmethod
    def add_cli_args(parser):
        """Adds every flag to an argparse parser, for scripts that read their own command line."""
        taken = {option for action in parser._actions for option in action.option_strings}
        for key, row in flags().items():
            names = ["--" + row["name"]] + (["-" + row["short"]] if row["short"] else [])
            names = [name for name in names if name not in taken]
            if not names or key != row["name"].replace("-", "_"):
                continue
            taken.update(names)
            more = {"nargs": "+"} if row["type"] == "words" else {"action": "append"} if row["type"] == "appended" else {}
            if row["type"] in ("true", "bool"):
                more = {"action": argparse.BooleanOptionalAction if row["type"] == "bool" else "store_true"}
            elif row["type"] in ("int", "float"):
                more["type"] = _loads
            elif row["type"] in ("json", "list"):
                more["type"] = _loads
            text = row["text"].replace("%", "%%")
            parser.add_argument(*names, dest=key, default=None, help=text, **more)
        return parser

    @classmethod
    def from_cli_args(cls, args):
        """The settings that parsed arguments name; what is no flag is left alone."""
        given = {key: value for key, value in vars(args).items() if key in flags() and value is not None}
        return cls(**given)

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.__dict__.items())})"


class AsyncEngineArgs(EngineArgs):
    """As EngineArgs, under the name that AsyncLLM takes."""


def _loads(text):
    try:
        return json.loads(text)
    except ValueError:
        return text


def find_program():
    """The program ``cadre`` that ranks are processes of, or "": CADRE_BIN, the package's own, the build's, PATH."""
    named = os.environ.get("CADRE_BIN", "")
    if named:
        if not os.access(named, os.X_OK) or os.path.isdir(named):
            raise NotFoundError(f"CADRE_BIN is '{named}', which is no program; set it to the path of cadre", "CADRE_BIN")
        return os.path.abspath(named)
    folder = os.path.dirname(os.path.abspath(_engine.__file__))
    for path in (os.path.join(folder, "bin", "cadre"), os.path.join(folder, "..", "..", "cadre"), shutil.which("cadre") or ""):
        if path and os.path.isfile(path) and os.access(path, os.X_OK):
            with open(path, "rb") as file:
                if file.read(4) == b"\x7fELF":  # and not the package's own console script
                    return os.path.abspath(path)
    return ""
