#!/usr/bin/env python3
"""Writes python/cadre/_settings.pyi: the keywords of LLM(...) with their types and meanings, from the table of flags.

    PYTHONPATH=build/release/python python3 tools/make_settings_stub.py > python/cadre/_settings.pyi

A test compares the file in the tree with this.
"""

from cadre.engine_args import _NO_EFFECT, flags

TYPES = {
    "true": "bool",
    "bool": "bool",
    "int": "int | str",
    "float": "float",
    "str": "str | PathLike[str]",
    "words": "Sequence[str] | str",
    "appended": "Sequence[str] | str",
    "json": "Mapping[str, Any] | str",
    "list": "Sequence[Any] | str",
}
HEAD = '''"""The keywords of LLM(...), EngineArgs(...) and AsyncEngineArgs(...). Written by tools/make_settings_stub.py."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, TypedDict

class Settings(TypedDict, total=False):
'''


def stub():
    rows = {name: (TYPES[row["type"]], row) for name, row in flags().items()}
    rows["chat_template"] = (
        TYPES["str"],
        {"kind": "works", "text": "File of a chat template, or the template itself.", "forward": ""},
    )
    rows["chat_template_content_format"] = ("str", {"kind": "works", "text": "auto, openai or string.", "forward": ""})
    rows["default_chat_template_kwargs"] = (
        TYPES["json"],
        {"kind": "works", "text": "Variables of every chat's template.", "forward": ""},
    )
    for name, reason in _NO_EFFECT.items():
        rows[name] = ("bool", {"kind": "no effect", "text": reason[0].upper() + reason[1:] + ".", "forward": ""})
    text = HEAD
    for name, (kind, row) in rows.items():
        if name == "model" or not name.isidentifier() or row["forward"]:
            continue
        mark = {"works": "", "no effect": "No effect here: ", "not built": "Not built: "}[row["kind"]]
        what = (mark + row["text"]).replace("\\", "\\\\").replace('"""', "'''")
        text += f'    {name}: {kind} | None\n    """{what}{" " if what.endswith(chr(34)) else ""}"""\n'
    return text


if __name__ == "__main__":
    print(stub(), end="")
