"""The stable names of the rules that a graph can break; ``GraphError.rule`` is one of them."""

from __future__ import annotations

from enum import StrEnum


class Rule(StrEnum):
    """Rules in the order in which they are checked: the text, its structure, then its meaning."""

    JSON = "json"
    DUPLICATE_KEY = "duplicate-key"
    VERSION = "version"
    MISSING_KEY = "missing-key"
    UNKNOWN_KEY = "unknown-key"
    WRONG_TYPE = "wrong-type"
    NUMBER = "number"
    TEXT = "text"
    LIMIT = "limit"
    PARAMETER_NAME = "parameter-name"
    PARAMETER_TYPE = "parameter-type"
    UNKNOWN_PARAMETER = "unknown-parameter"
    UNBOUND_PARAMETER = "unbound-parameter"
    RUN_NAME = "run-name"
    DUPLICATE_RUN = "duplicate-run"
    PROMPT = "prompt"
    UNKNOWN_OPERATION = "unknown-operation"
    MISSING_FIELD = "missing-field"
    STRAY_FIELD = "stray-field"
    RUN_RANGE = "run-range"
    SITE = "site"
    NODE_ORDER = "node-order"
    NO_VALUE = "no-value"
    TENSOR = "tensor"
    INDEX = "index"
    ARGUMENTS = "arguments"
    GRAD = "grad"
    STEPS = "steps"
    SAVE_NAME = "save-name"
    DUPLICATE_SAVE = "duplicate-save"
    DIMS = "dims"
    NOTHING_SAVED = "nothing-saved"
