"""Talks with Juju: action-get, action-set, action-fail, and the rules for what they take."""

import json
import re
import subprocess

# A key is parts with full stops between; Juju keeps stdout and stderr for itself.
_KEY = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
VALUE_CHARS_MAX = 1024
# The kernel takes at most 128 KiB an argument.
PART_CHARS = 96 * 1024
_CALL_CHARS = 512 * 1024
_TIMEOUT_S = 60


class ActionFailed(Exception):
    """What goes to action-fail."""


def get_parameters():
    done = subprocess.run(["action-get", "--format=json"], stdout=subprocess.PIPE, check=True,
                          timeout=_TIMEOUT_S)
    parameters = json.loads(done.stdout.decode() or "{}") or {}
    if not isinstance(parameters, dict):
        raise ActionFailed("action-get gave no parameters")
    return parameters


def text_parameter(parameters, name, pattern, meaning):
    """The text, or empty. Juju checks types by actions.yaml; what is used as a path or an argument
    is checked here."""
    value = parameters.get(name)
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise ActionFailed(f"parameter {name} is not {meaning}")
    return value


def flag_parameter(parameters, name):
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise ActionFailed(f"parameter {name} is neither true nor false")
    return value


def plain(text, length=VALUE_CHARS_MAX):
    """One bounded line of printable ASCII: texts come from headers and paths."""
    line = "".join(c if " " <= c <= "~" else "?" for c in str(text))
    return line if len(line) <= length else line[:length - 3] + "..."


class Results:
    """Gathers results and hands them to Juju in few calls."""

    def __init__(self):
        self._waiting = {}

    def add(self, key, value):
        """What is empty is left out."""
        if isinstance(value, bool):
            value = "true" if value else "false"
        if value != "":
            self._put(key, plain(value))

    def add_list(self, key, values):
        for number, value in enumerate(values[:50]):
            self.add(f"{key}.{number}", value)

    def add_parts(self, key, text):
        """A long text as KEY.part-001, KEY.part-002, …"""
        parts = [text[at:at + PART_CHARS] for at in range(0, len(text), PART_CHARS)]
        self.add(f"{key}.parts", len(parts))
        for number, part in enumerate(parts, 1):
            self._put(f"{key}.part-{number:03}", part)

    def _put(self, key, value):
        if not _KEY.fullmatch(key):
            raise ValueError(f"'{key}' is no result key")
        self._waiting[key] = value

    def send(self):
        call = []
        for key, value in self._waiting.items():
            call.append(f"{key}={value}")
            if sum(map(len, call)) > _CALL_CHARS or len(call) >= 500:
                _set(call)
                call = []
        if call:
            _set(call)
        self._waiting = {}


def _set(arguments):
    subprocess.run(["action-set", *arguments], check=True, timeout=_TIMEOUT_S)


def fail(message):
    # It must not start like an option.
    subprocess.run(["action-fail", plain(message).lstrip("-") or "failed"], check=True,
                   timeout=_TIMEOUT_S)
