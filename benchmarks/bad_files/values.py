"""Forged JSON and YAML: an extreme value in a random place of the tree, and tricks of the text."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from random import Random
from typing import Any

import yaml


def nested(depth: int, kind: str = "list") -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value}
    return value


EXTREMES = (
    None, True, False, 0, 1, -1, 2, -0.0, 0.5, 1e308, -1e308, 5e-324, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1,
    10**30, 10**400,
    float("nan"), float("inf"), float("-inf"), "", " ", "x", "x" * 5000, "0", "-1", "nan", "1e999", "true", "null",
    "\0", "a\0b",
    "\x1b[2J\x1b]0;x\x07", "a\nb", "\r", "\u202egnp.exe", "\u2066x", "\ufeffx", "\ud800", "\U0010ffff",
    "a" + "\u0301" * 300,
    "../../outside/secret", "../../outside/secret.png", "../../../../../../etc/passwd", "/etc/passwd", "..", ".", "/",
    "a/b", "a\\b",
    "~/x", "con", "<script>alert(1)</script>", "</script><script>", "\"><img src=x onerror=alert(1)>", "{{7*7}}",
    "{0.__class__}", "%s%n",
    "=cmd|' /C calc'!A0", "@SUM(1)", "-1+1", "$(touch x)", "`x`", "kd_canary:boom", "kd_canary.py:boom",
    "../../outside/kd_canary.py:boom",
    "os:system", "torchvision:resnet18", "timm:resnet18", "file:///etc/passwd", "resnet8", "digits", "cifar100",
    "published", "trials/a/b",
    [], {}, [[]], [{}], [None], {"": None}, {"a": 1}, ["a", "b"], [1, 2, 3], [0.5] * 3, [-1.0, 0.0, float("inf")],
    "[1, 2]", "{\"a\": 1}",
    "[" * 3000, nested(60), nested(60, "dict"), nested(150), nested(300, "dict"), list(range(3000)),
    {str(each): each for each in range(3000)},
)  # fmt: skip


def forge_json(random: Random, _path: Path, content: bytes) -> bytes:
    value = forged(random, json.loads(content))
    text = json.dumps(value, ensure_ascii=random.random() < 0.5, indent=random.choice((None, 1)))
    return (
        _text_tricks(random, text).encode("utf-8", "surrogatepass") if random.random() < 0.9 else _encoded(random, text)
    )


def forged(random: Random, value: Any) -> Any:
    """A copy with one to three changes."""
    value = copy.deepcopy(value)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        value = _changed(random, value)
    return value


def _changed(random: Random, value: Any) -> Any:
    """At a random depth: another value, a key less, more, or of another name, a copy of another part."""
    whole, parent, key = value, None, None
    while isinstance(value, dict | list) and value and (parent is None or random.random() < 0.7):
        parent, key = value, random.choice(list(value) if isinstance(value, dict) else range(len(value)))
        value = parent[key]
    new = copy.deepcopy(random.choice(EXTREMES))
    kind = random.random()
    if parent is None or kind < 0.02:
        return new
    if kind < 0.6:
        parent[key] = new
    elif kind < 0.7:
        del parent[key]
    elif kind < 0.8:
        parent[key] = random.choice(([value], {"a": value}, str(value), [value] * 3, json.dumps(value, default=str)))
    elif kind < 0.9 and isinstance(parent, dict):
        parent[new if isinstance(new, str) else "extra"] = (
            parent.pop(key) if random.random() < 0.5 else copy.deepcopy(value)
        )
    else:
        parent[key] = copy.deepcopy(random.choice(_parts(whole)))
    return whole


def _parts(value: Any) -> list:
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [value, *(part for each in inner[:20] for part in _parts(each)[:20])]


def _text_tricks(random: Random, text: str) -> str:
    place = random.randrange(len(text) + 1)
    return random.choice((
        *[text] * 8,
        text.replace("{", '{"name": "first", "name": "second", ', 1),
        "\ufeff" + text,
        text.replace("\n", "\r\n"),
        text + "}",
        text + "\0",
        text.replace("0", "9" * 5000, 1),
        text.replace("1", "-1e400", 1),
        text.replace("null", "NaN", 1),
        text[:place] + "[" * 100_000 + text[place:],
        text[:place] + "{\"a\":" * 20_000 + text[place:],
        text.replace('": "', '": "\\ud800', 1),
        text.replace('": ', "\": /* a */ ", 1),
    ))  # fmt: skip


def _encoded(random: Random, text: str) -> bytes:
    return text.encode(random.choice(("utf-16", "utf-32", "latin-1", "utf-7")), "replace")


LAUGHS = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 14))])
MERGES = "\n".join(
    ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}], y{n}: 1}}" for n in range(1, 12))]
)
HOSTILE = (
    LAUGHS, "- " + LAUGHS.replace("\n", "\n  "), MERGES, "- " + MERGES.replace("\n", "\n  "), "&a [*a]", "&a {a: *a}",
    "- &a {name: x, notebook: *a}",
    "- &a {name: x, notebook: 01_teacher, parameters: {a: &b [*b]}}",
    "- {name: x, notebook: 01_teacher, matrix: &m [{a: *m}], parameters: {b: $a}}",
    "!!python/object/apply:os.system ['touch kd_canary']", "- !!python/name:os.system", "!!python/module:kd_canary",
    "!!binary x", "!!binary aGVsbG8=",
    "!!timestamp 2001-99-99", "2001-99-99", "- name: 2001-99-99 25:61:61", "!!int x", "!!float x", "!!set {a, b}",
    "!!omap [a: 1]", "? [a, b]\n: 1",
    "? {a: 1}\n: 1", "[" * 3000, "{a: " * 3000, "- " * 3000, "a: |\n" + " x\n" * 9, "%YAML 9.9\n---\na: 1",
    "--- a\n--- b", "a: 1\na: 2", "a: !x y",
    "*a", "\t- a", "a: 0o777777777777777777777777777", "a: 1_000_000", "a: 1:59:59", "- 0x" + "f" * 5000,
    "- " + "9" * 5000, "- .inf", "- .nan", "\ufeff- a",
    "- \ud83d", "a: 'x", "- {name: x}", "- !!null x", "- name: [x]\n  notebook: {}",
    "every: {lr: {low: .nan, high: .inf}}", "methods: {lm: [1]}", "<<: 1",
    "- <<: [1]", "=: 1", "- =", "a: " + "x" * 200_000, "- {name: &a x, notebook: *a, needs: *a}", "!" * 500,
    "&" * 500, "? " * 1000, "- ? " * 500,
)  # fmt: skip


def forge_yaml(random: Random, _path: Path, content: bytes) -> bytes:
    if random.random() < 0.25:
        return random.choice(HOSTILE).encode("utf-8", "surrogatepass")
    value = forged(random, yaml.safe_load(content))
    try:
        text = yaml.safe_dump(value, allow_unicode=random.random() < 0.5, sort_keys=False)
    except (yaml.YAMLError, RecursionError):
        text = json.dumps(value)
    place = random.randrange(len(text) + 1)
    text = random.choice(
        (*[text] * 9, "\ufeff" + text, text.replace("\n", "\r\n"), text[:place] + random.choice(HOSTILE) + text[place:])
    )
    return text.encode("utf-8", "surrogatepass")
